"""A scale for each row of a tensor, such as a token of text, beside one for all of it.

Tokens' gradients differ in size by orders of magnitude. A quantizer that measures all of them by one range serves the
large ones and loses the small ones; with a scale of its own, a byte, each row is quantized as if all were alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

TENSOR, ROW = "tensor", "row"
SCALES = (TENSOR, ROW)
"""What values are measured by: all of them, or those of their own row, the last dimension."""
SCALE_HELP = "what steps are measured by, or the largest values are chosen from; a row is a token of text"
_PER_OCTAVE = 4  # scales are told apart by quarters of an octave, so that a byte reaches over 64
_FACTORS = torch.tensor([2.0 ** (-scale / _PER_OCTAVE) for scale in range(256)], dtype=torch.float64)


def octaves_below(sizes: Tensor) -> Tensor:
    """Return how far below the largest each size is, in quarters of an octave: not yet rounded, inf for a size of 0.

    >>> octaves_below(torch.tensor([8.0, 4.0, 0.0])).tolist()
    [0.0, 4.0, inf]
    """
    return _PER_OCTAVE * (sizes.max() / sizes).log2()


def as_scales(quarters: Tensor) -> Tensor:
    """Return the bytes of whole :func:`octaves_below`, with those beyond the last, and rows that are 0, at 255."""
    return quarters.nan_to_num(255, 255).clamp(0, 255).to(torch.uint8)


def factors(scales: Tensor) -> Tensor:
    """Return by what values of each row's scale are multiplied when they are restored, [rows, 1] in float64."""
    return _FACTORS.to(scales.device)[scales.long()].reshape(-1, 1)


def rows_of(shape: tuple[int, ...]) -> int:
    """Return how many rows a tensor has; one without dimensions has one."""
    return torch.Size(shape[:-1]).numel()
