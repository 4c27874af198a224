"""Uniform quantization: one minimum and step for the whole tensor (001 §2.1, 003's baseline) or for each block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splitlib.compressors.base import Header, as_bytes, from_bytes
from splitlib.compressors.loops import loops
from splitlib.compressors.packing import packed_nbytes
from splitlib.compressors.quantizer import (
    RANGE_BYTES,
    Quantizer,
    level_scaling,
    level_table,
)
from splitlib.errors import ConfigError, PayloadError
from splitlib.options import described


@dataclass(frozen=True, kw_only=True)
class UniformQuantization(Quantizer):
    """Rounds to the nearest of ``2^bits`` evenly spaced levels between minimum and maximum.

    ``block`` consecutive values share a minimum and a step; 0 means the whole tensor. The error of each value is at
    most half a step, (max - min) / (2^bits - 1) / 2, up to float32 rounding.
    """

    code: ClassVar[int] = 2
    bits: int = described(8, "bits of a code")
    block: int = described(0, "values that share a range, a multiple of 8; 0: all of them")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.bits <= 16:
            raise ConfigError(f"uniform: bits must be from 1 to 16, not {self.bits}")
        if not 0 <= self.block < 1 << 16 or self.block % 8:
            raise ConfigError(f"uniform: block must be 0 or a multiple of 8 below 65536, not {self.block}")

    @property
    def parameters(self) -> tuple[int, int, int, int]:
        """The width of a code and the block."""
        return (self.bits, self.block, 0, 0)

    def encode_body(self, x: Tensor, low: float, high: float, body: Tensor) -> None:
        """Write minima, steps and packed codes."""
        flat, on_device = x.float().reshape(-1), loops(x.device)
        ends = torch.tensor([[low], [high]], dtype=torch.float32)
        table = level_table(on_device.extremes(flat, self.block) if self.block else ends, self.bits)
        split = RANGE_BYTES * table.shape[1]
        body[:split] = as_bytes(table)
        on_device.write_blocks(flat, level_scaling(table), self.block or len(flat), self.bits, body[split:])

    @classmethod
    def body_nbytes(cls, header: Header) -> int:
        """A range for each block, and the codes."""
        bits, block = header.parameters[:2]
        if not 1 <= bits <= 16 or block % 8:
            raise PayloadError(f"payload names {bits} bits in blocks of {block} for uniform quantization")
        return cls.codes_at(header)[0] + packed_nbytes(header.numel, bits)

    @classmethod
    def codes_at(cls, header: Header) -> tuple[int, int]:
        """Behind the ranges."""
        return RANGE_BYTES * _blocks(header), header.parameters[0]

    @classmethod
    def decode_body(cls, body: Tensor, header: Header) -> Tensor:
        """Compute each value from its code and its block's minimum and step."""
        (split, bits), block, numel = cls.codes_at(header), header.parameters[1], header.numel
        table = from_bytes(body[:split], torch.float32).reshape(2, -1)
        limit = torch.finfo(header.dtype).max
        return loops(body.device).read_blocks(body[split:], table, block or numel, bits, numel, limit)


def _blocks(header: Header) -> int:
    block = header.parameters[1]
    return -(-header.numel // block) if block else 1
