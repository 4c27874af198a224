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


def spread(x: Tensor) -> float:
    """Return the variance of all values, of the population; over it, errors of parts of a tensor are stated too.

    It is the mean square where all values are the same, so that a constant has errors, and 1 where all are 0.

    >>> spread(Tensor([1.0, 3.0])), spread(Tensor([3.0, 3.0])), spread(Tensor([0.0]))
    (1.0, 9.0, 1.0)
    """
    x = x.detach().double()
    return x.var(correction=0).item() or x.square().mean().item() or 1.0
