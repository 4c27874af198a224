"""What a compressor loses of a tensor, as every table, plan and picture states it: squared error over variance."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def relative_error(x: Tensor, decoded: Tensor) -> float:
    """Return the mean squared error of ``decoded`` over the :func:`spread` of ``x``: 0 is exact, 1 as bad as the mean.

    Tensors with inf or NaN travel as they are, so these values count as exact. Where a finite one comes out as inf or
    NaN, the error is infinite.

    >>> relative_error(Tensor([-1.0, 1.0]), Tensor([0.0, 0.0]))
    1.0

    Args:
        x: the tensor, of at least one value.
        decoded: what arrived, in the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    if decoded.shape != x.shape:
        raise ValueError(f"a tensor of {list(x.shape)} and one of {list(decoded.shape)} do not compare")
    difference = decoded.double() - x.detach().double()
    squared = torch.where(x.isfinite(), difference, 0.0).square().mean().item()
    if not math.isfinite(squared):
        return math.inf
    return squared / spread(x) if squared else 0.0


def unequal_gain(x: Tensor, decoded: Tensor) -> float:
    """Return how unequally the rows of a tensor arrive, such as a text's tokens: 0 where one factor fits them all.

    A row's gain is the share of it that arrives: its inner product with what did, over its energy. Returned is how far
    a row's gain lies from that of all values, as a share of it, in the median over the rows that are not zero. NaN
    where nothing arrives.

    Of gradients a common factor only shortens the step, and noise averages out over many; but where large rows arrive
    and small ones do not, or small ones do and large ones are cut off, the sum over the rows says something else.
    Notebook 13 measures what that does to training.

    >>> x = Tensor([[3.0, 4.0], [0.6, 0.8], [0.8, 0.6], [0.0, 0.0]])
    >>> round(unequal_gain(x, x / 2), 6)  # a row that is zero has no gain
    0.0
    >>> kept = Tensor([[1.0], [0.0], [0.0], [0.0]])  # the large row, of 25 parts of the energy in 27
    >>> unequal_gain(x, kept * x)
    1.0

    Args:
        x: the tensor, [..., W].
        decoded: what arrived, in the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    if decoded.shape != x.shape:
        raise ValueError(f"a tensor of {list(x.shape)} and one of {list(decoded.shape)} do not compare")
    sent, came = x.detach().double(), decoded.double()
    arrived, energy = (sent * came).sum(-1), sent.square().sum(-1)
    gain, of_all = arrived / energy, arrived.sum() / energy.sum()
    return (gain / of_all - 1).abs()[energy > 0].median().item()


def spread(x: Tensor) -> float:
    """Return the variance of all values, of the population; over it, errors of parts of a tensor are stated too.

    It is the mean square where all values are the same, so that a constant has errors, and 1 where all are 0.

    >>> spread(Tensor([1.0, 3.0])), spread(Tensor([3.0, 3.0])), spread(Tensor([0.0]))
    (1.0, 9.0, 1.0)
    """
    x = x.detach().double()
    return x.var(correction=0).item() or x.square().mean().item() or 1.0
