"""What all quantizers share: a table of ranges, packed codes, and zstd over both on request.

The body of every quantizer is ``k`` minima, ``k`` steps (float32), then the codes. A code is ``range * 2^Q + level``;
its value is ``minimum[range] + level * step[range]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splitlib.compressors.base import Compressor
from splitlib.compressors.lossless import MAX_LEVEL
from splitlib.errors import ConfigError

RANGE_BYTES = 8  # minimum and step, float32


@dataclass(frozen=True, kw_only=True)
class Quantizer(Compressor):
    """A compressor that rounds to a table's levels. ``zstd`` from 1 to 22 shrinks what it sends; 0 leaves it."""

    zstd: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.zstd <= MAX_LEVEL:
            raise ConfigError(f"zstd must be from 0 (off) to {MAX_LEVEL}, not {self.zstd}")

    @property
    def zstd_level(self) -> int:
        """The parameter ``zstd``."""
        return self.zstd


def level_table(low: Tensor, high: Tensor, bits: int) -> Tensor:
    """Return minima and steps, [2, k] float32, of k ranges cut into ``2^bits`` levels.

    Each end is divided before the subtraction, which would overflow for a range wider than float32's largest value.
    """
    levels = max((1 << bits) - 1, 1)
    return torch.stack([low + 0.0, high / levels - low / levels])  # + 0.0 turns -0.0 into 0.0


def level_values(table: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """Return the value of every code, [k, 2^bits], from :func:`level_table`'s numbers.

    Rounding may put the last level of a huge range just past ``dtype``'s largest value: it is held there.
    """
    low, step = table.reshape(2, -1, 1)
    limit = torch.finfo(dtype).max
    return (low + torch.arange(1 << bits, device=table.device) * step).clamp(-limit, limit)


def nearest_level(values: Tensor, low: Tensor, step: Tensor, bits: int) -> Tensor:
    """Return the codes (int32) of the levels nearest to ``values``; a step of 0 gives code 0."""
    codes = torch.where(step > 0, (values / step - low / step).round_(), 0.0)
    return codes.nan_to_num_(0.0).clamp_(0, (1 << bits) - 1).int()
