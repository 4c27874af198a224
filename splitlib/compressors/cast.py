"""Sending a tensor as it is, or in half precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splitlib.compressors.base import DTYPES, Compressor, Header, PayloadError, as_bytes, from_bytes
from splitlib.errors import ConfigError

CASTS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Identity(Compressor):
    """Sends every bit."""

    code: ClassVar[int] = 0

    def encode_body(self, flat: Tensor) -> Tensor:
        """Return the tensor's own bytes."""
        return as_bytes(flat)

    @classmethod
    def decode_body(cls, body: Tensor, header: Header) -> Tensor:
        """Return the tensor, bit for bit."""
        return from_bytes(body, header.dtype, header.numel)


@dataclass(frozen=True, kw_only=True)
class Cast(Compressor):
    """Sends 16 bits of each value; float16 saturates at its largest finite value instead of overflowing to inf."""

    code: ClassVar[int] = 1
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if self.dtype not in CASTS:
            raise ConfigError(f"cast: dtype must be float16 or bfloat16, not {self.dtype!r}")

    @property
    def parameters(self) -> tuple[int, int, int, int]:
        """The dtype sent."""
        return (DTYPES.index(CASTS[self.dtype]), 0, 0, 0)

    def encode_body(self, flat: Tensor) -> Tensor:
        """Return the values in the narrower dtype."""
        target = CASTS[self.dtype]
        limit = torch.finfo(target).max
        return as_bytes(flat.float().clamp(-limit, limit).to(target))

    @classmethod
    def decode_body(cls, body: Tensor, header: Header) -> Tensor:
        """Return the narrower values."""
        if header.parameters[0] >= len(DTYPES):
            raise PayloadError(f"payload names an unknown dtype {header.parameters[0]} to cast from")
        return from_bytes(body, DTYPES[header.parameters[0]], header.numel)
