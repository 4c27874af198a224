"""Uniform quantization: one minimum and one step for the whole tensor (001 §2.1 and 003's baseline)."""

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
class UniformQuantization(Quantizer):
    """Rounds to the nearest of ``2^bits`` evenly spaced levels between minimum and maximum.

    The error of each value is at most half a step, (max - min) / (2^bits - 1) / 2, up to float32 rounding.
    """

    code: ClassVar[int] = 2
    bits: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.bits <= 16:
            raise ConfigError(f"uniform: bits must be from 1 to 16, not {self.bits}")

    @property
    def parameters(self) -> tuple[int, int, int, int]:
        """The width of a code."""
        return (self.bits, 0, 0, 0)

    def encode_body(self, x: Tensor, low: float, high: float, body: Tensor) -> None:
        """Write minimum, step and packed codes."""
        ends = torch.tensor([[low], [high]], dtype=torch.float32, device=x.device)
        table = level_table(ends[0], ends[1], self.bits)
        codes = nearest_level(x.float().reshape(-1), table[0], table[1], self.bits)
        body[:RANGE_BYTES] = as_bytes(table)
        body[RANGE_BYTES:] = pack(codes, self.bits)

    @classmethod
    def body_nbytes(cls, header: Header) -> int:
        """One range and the codes."""
        bits = header.parameters[0]
        if not 1 <= bits <= 16:
            raise PayloadError(f"payload names {bits} bits for uniform quantization; 1 to 16 are possible")
        return RANGE_BYTES + packed_nbytes(header.numel, bits)

    @classmethod
    def decode_body(cls, body: Tensor, header: Header) -> Tensor:
        """Look each code's value up in the table of all levels."""
        bits = header.parameters[0]
        values = level_values(from_bytes(body[:RANGE_BYTES], torch.float32), bits, header.dtype).reshape(-1)
        return values[unpack(body[RANGE_BYTES:], bits, header.numel)]
