"""Sending a tensor as it is, or in half precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splitlib.compressors.base import DTYPES, Compressor, Header, as_bytes, from_bytes
from splitlib.errors import PayloadError
from splitlib.options import described

CASTS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Identity(Compressor):
    """Sends every bit."""

    code: ClassVar[int] = 0

    def encode_body(self, x: Tensor, low: float, high: float, body: Tensor) -> None:
        """Write the tensor's own bytes."""
        body.copy_(as_bytes(x))

    @classmethod
    def body_nbytes(cls, header: Header) -> int:
        """As many as the tensor has."""
        return header.numel * header.dtype.itemsize

    @classmethod
    def decode_body(cls, body: Tensor, header: Header) -> Tensor:
        """Return the tensor, bit for bit."""
        return from_bytes(body, header.dtype)


@dataclass(frozen=True, kw_only=True)
class Cast(Compressor):
    """Sends 16 bits of each value; beyond the largest finite one they saturate instead of overflowing."""

    code: ClassVar[int] = 1
    dtype: str = described("float16", "what is sent of each value", CASTS)

    @property
    def parameters(self) -> tuple[int, int, int, int]:
        """The dtype sent."""
        return (DTYPES.index(CASTS[self.dtype]), 0, 0, 0)

    def encode_body(self, x: Tensor, low: float, high: float, body: Tensor) -> None:
        """Write the values in the narrower dtype."""
        target = CASTS[self.dtype]
        limit = torch.finfo(target).max
        body.copy_(as_bytes(x.float().clamp(-limit, limit).to(target)))

    @classmethod
    def body_nbytes(cls, header: Header) -> int:
        """Two for each value."""
        if header.parameters[0] not in map(DTYPES.index, CASTS.values()):
            raise PayloadError(f"payload names an unknown dtype {header.parameters[0]} to cast from")
        return header.numel * 2

    @classmethod
    def decode_body(cls, body: Tensor, header: Header) -> Tensor:
        """Return the narrower values, held below the largest of the tensor's own dtype."""
        limit = torch.finfo(header.dtype).max
        return from_bytes(body, DTYPES[header.parameters[0]]).float().clamp(-limit, limit)
