"""What all quantizers share: a table of ranges, packed codes, and on request a lossless stage behind them.

The body of every quantizer is ``k`` minima, ``k`` steps (float32), then the codes. A code is ``range * 2^Q + level``;
its value is ``minimum[range] + level * step[range]``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType

import torch
from torch import Tensor

from splitlib.compressors.base import Compressor, Header
from splitlib.compressors.loops import loops
from splitlib.compressors.lossless import MAX_LEVEL, shrink, shrink_codes
from splitlib.errors import ConfigError
from splitlib.options import described

RANGE_BYTES = 8  # minimum and step, float32
# Steps this small have a finite inverse in float32, even twice it. Below lie only numbers many devices flush to zero.
SMALLEST_STEP = 2.0**-125


PACKED, CONTEXT = "packed", "context"
CODES = (PACKED, CONTEXT)
"""How codes are written: in their own width, or each arithmetically in the context of its neighbours."""


@dataclass(frozen=True, kw_only=True)
class Quantizer(Compressor):
    """A compressor that rounds to a table's levels. Two stages send the same values in fewer bytes; one can be had."""

    zstd: int = described(0, f"level of zstd behind the codes, 1 to {MAX_LEVEL}; 0: none")
    codes: str = described(PACKED, "how codes are written, in context of their neighbours in fewer bits", CODES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.zstd <= MAX_LEVEL:
            raise ConfigError(f"zstd must be from 0 (off) to {MAX_LEVEL}, not {self.zstd}")
        if self.zstd and self.codes == CONTEXT:
            raise ConfigError("zstd finds nothing in codes that are written in context: choose one of the two")

    def without_loss(self, header: Header, body: Tensor) -> tuple[Header, Tensor]:
        """Apply the stage that was asked for."""
        if self.zstd:
            return replace(header, zstd=True), shrink(body, self.zstd)
        if self.codes == PACKED or header.raw or not header.numel:
            return header, body
        first, bits = self.codes_at(header)
        coded = shrink_codes(self.coder, body[first:], bits, header.numel, header.row)
        return (header, body) if coded is None else (replace(header, context=True), torch.cat([body[:first], coded]))

    @classmethod
    def loops_on(cls, device: torch.device) -> ModuleType:
        """Return the device's loops: torch's threads spin on after an operation and hold the core these wait for."""
        return loops(device)


def level_table(ends: Tensor, bits: int) -> Tensor:
    """Return minima and steps, [2, k] float32, of k ranges, ``ends`` [2, k], cut into ``2^bits`` levels."""
    low, high = ends
    step = (high.double() - low.double()) / max((1 << bits) - 1, 1)
    step = step.clamp(SMALLEST_STEP, torch.finfo(torch.float32).max)
    return torch.stack([low + 0.0, step.float()])  # + 0.0 turns -0.0 into 0.0


def level_scaling(table: Tensor) -> Tensor:
    """Return half of each minimum and twice each inverse step, [2, k] float32: what encoding multiplies by."""
    return torch.stack([table[0] * 0.5, (2.0 / table[1].double()).float()])


def level_values(table: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """Return the value of every code, [k * 2^bits] float32, from :func:`level_table`'s numbers.

    Rounding may put the last level of a huge range just past ``dtype``'s largest value: it is held there.
    """
    low, step = table.double().reshape(2, -1, 1)
    limit = torch.finfo(dtype).max
    values = low + torch.arange(1 << bits, device=table.device) * step
    return values.clamp_(-limit, limit).float().reshape(-1)
