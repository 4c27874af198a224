"""Sort quantization (001 §2): bins that hold equally many values, each quantized uniformly.

This is the documents' algorithm as written: sort, cut the order into 2^S equal parts, quantize each part with its own
minimum and step, put the codes back in place. A code is ``bin * 2^Q + level``, Q + S bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splitlib.compressors.base import Header, as_bytes, from_bytes
from splitlib.compressors.packing import pack, packed_nbytes, unpack
from splitlib.compressors.quantizer import RANGE_BYTES, Quantizer, level_table, level_values, nearest_level
from splitlib.errors import ConfigError, PayloadError


@dataclass(frozen=True, kw_only=True)
class SortQuantization(Quantizer):
    """``2^bin_bits`` bins of equally many values with ``2^level_bits`` levels each.

    The error of each value is at most half its own bin's step, up to float32 rounding. The documents write Q for
    ``level_bits`` and S for ``bin_bits``.
    """

    code: ClassVar[int] = 3
    level_bits: int = 6
    bin_bits: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level_bits < 0 or self.bin_bits < 0 or not 1 <= self.level_bits + self.bin_bits <= 16:
            raise ConfigError(
                f"sort: level_bits {self.level_bits} + bin_bits {self.bin_bits} must come to 1 to 16 bits a code"
            )

    @property
    def parameters(self) -> tuple[int, int, int, int]:
        """Q and S."""
        return (self.level_bits, self.bin_bits, 0, 0)

    def encode_body(self, x: Tensor, low: float, high: float, body: Tensor) -> None:
        """Write the bins' minima and steps and the packed codes."""
        flat = x.float().reshape(-1)
        ordered, index = torch.sort(flat, stable=True)
        bins = 1 << self.bin_bits
        size = -(-len(ordered) // bins)
        bin_of = torch.arange(len(ordered), device=flat.device) // size
        starts = torch.arange(bins, device=flat.device) * size
        last = len(ordered) - 1
        table = level_table(
            ordered[starts.clamp(max=last)], ordered[(starts + size - 1).clamp(max=last)], self.level_bits
        )
        levels = nearest_level(ordered, table[0][bin_of], table[1][bin_of], self.level_bits)
        codes = torch.empty_like(levels)
        codes[index] = (bin_of.int() << self.level_bits) + levels
        table_bytes = RANGE_BYTES << self.bin_bits
        body[:table_bytes] = as_bytes(table)
        body[table_bytes:] = pack(codes, self.level_bits + self.bin_bits)

    @classmethod
    def body_nbytes(cls, header: Header) -> int:
        """A range for each bin, and the codes."""
        level_bits, bin_bits = header.parameters[:2]
        if not 1 <= level_bits + bin_bits <= 16:
            raise PayloadError(
                f"payload names {level_bits}+{bin_bits} bits for sort quantization; 1 to 16 are possible"
            )
        return (RANGE_BYTES << bin_bits) + packed_nbytes(header.numel, level_bits + bin_bits)

    @classmethod
    def decode_body(cls, body: Tensor, header: Header) -> Tensor:
        """Look each code's value up in a table of all 2^(Q+S) values."""
        level_bits, bin_bits = header.parameters[:2]
        table_bytes = RANGE_BYTES << bin_bits
        values = level_values(from_bytes(body[:table_bytes], torch.float32), level_bits, header.dtype).reshape(-1)
        return values[unpack(body[table_bytes:], level_bits + bin_bits, header.numel)]
