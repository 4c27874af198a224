"""Uniform quantization: one minimum and one step for the whole tensor (001 §2.1 and 003's baseline)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splitlib.compressors.base import Compressor, Header, PayloadError, as_bytes, expect, from_bytes
from splitlib.compressors.packing import pack, packed_nbytes, unpack
from splitlib.errors import ConfigError

TABLE_BYTES = 8  # minimum and step, float32


@dataclass(frozen=True, kw_only=True)
class UniformQuantization(Compressor):
    """Rounds to the nearest of ``2^bits`` evenly spaced levels between minimum and maximum.

    The error of each value is at most half a step, (max - min) / (2^bits - 1) / 2, up to float32 rounding.
    """

    code: ClassVar[int] = 2
    bits: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise ConfigError(f"uniform: bits must be from 1 to 16, not {self.bits}")

    @property
    def parameters(self) -> tuple[int, int, int, int]:
        """The width of a code."""
        return (self.bits, 0, 0, 0)

    def encode_body(self, flat: Tensor) -> Tensor:
        """Return minimum, step and packed codes."""
        if flat.numel() == 0:
            return flat.new_empty(0, dtype=torch.uint8)
        values = flat.float()
        low, high = torch.aminmax(values)
        table = level_table(low[None], high[None], self.bits)
        codes = nearest_level(values, table[0], table[1], self.bits)
        return torch.cat([as_bytes(table.reshape(-1)), pack(codes, self.bits)])

    @classmethod
    def decode_body(cls, body: Tensor, header: Header) -> Tensor:
        """Look each code's value up in the table of all levels."""
        bits, numel = header.parameters[0], header.numel
        if not 1 <= bits <= 16:
            raise PayloadError(f"payload names {bits} bits for uniform quantization; 1 to 16 are possible")
        if numel == 0:
            expect(body, 0)
            return body.new_empty(0, dtype=torch.float32)
        expect(body, TABLE_BYTES + packed_nbytes(numel, bits))
        values = level_values(from_bytes(body[:TABLE_BYTES], torch.float32, 2), bits, header.dtype)
        return values[unpack(body[TABLE_BYTES:], bits, numel)]


def level_table(low: Tensor, high: Tensor, bits: int) -> Tensor:
    """Return minima and steps, [2, k] float32, of k ranges cut into ``2^bits`` levels.

    Each end is divided before the subtraction, which would overflow for a range wider than float32's largest value.
    """
    levels = max((1 << bits) - 1, 1)
    return torch.stack([low, high / levels - low / levels])


def level_values(table: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """Return the value of every code, [k * 2^bits], from :func:`level_table`'s numbers.

    Rounding may put the last level of a huge range just past ``dtype``'s largest value: it is held there.
    """
    low, step = table.reshape(2, -1, 1)
    limit = torch.finfo(dtype).max
    return (low + torch.arange(1 << bits, device=table.device) * step).clamp(-limit, limit).reshape(-1)


def nearest_level(values: Tensor, low: Tensor, step: Tensor, bits: int) -> Tensor:
    """Return the codes (int32) of the levels nearest to ``values``; a step of 0 gives code 0."""
    codes = torch.where(step > 0, (values / step - low / step).round_(), 0.0)
    return codes.nan_to_num_(0.0).clamp_(0, (1 << bits) - 1).int()
