"""The payload that crosses a cut, and what every compressor has in common.

A payload is one contiguous uint8 message: a fixed header, then the codec's body. It decodes on another machine with
nothing but itself: the header names the codec, its parameters, and the tensor's dtype and shape.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splitlib.errors import SplitlibError

MAGIC = b"SP"
VERSION = 1
MAX_DIMENSIONS = 8
# magic, version, codec, dtype, dimensions, flags, unused, four parameters of the codec, shape
_HEADER = struct.Struct(f"<2sBBBBBx4B{MAX_DIMENSIONS}I")
HEADER_BYTES = _HEADER.size
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_RAW = 1


class PayloadError(SplitlibError):
    """A payload is truncated, corrupted or not one of ours."""


@dataclass(frozen=True)
class Header:
    """What a payload says of itself."""

    codec: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    parameters: tuple[int, int, int, int] = (0, 0, 0, 0)
    raw: bool = False
    """The body holds the tensor as it was, because it has values a quantizer cannot carry."""

    @property
    def numel(self) -> int:
        """Elements of the tensor."""
        return torch.Size(self.shape).numel()

    def pack(self) -> bytes:
        """Return the header's bytes."""
        shape = self.shape + (0,) * (MAX_DIMENSIONS - len(self.shape))
        flags = _RAW if self.raw else 0
        dtype = DTYPES.index(self.dtype)
        return _HEADER.pack(MAGIC, VERSION, self.codec, dtype, len(self.shape), flags, *self.parameters, *shape)

    @classmethod
    def unpack(cls, message: bytes) -> Header:
        """Read a header; raise PayloadError if it is none."""
        if len(message) < HEADER_BYTES:
            raise PayloadError(f"payload of {len(message)} bytes is shorter than its {HEADER_BYTES}-byte header")
        magic, version, codec, dtype, ndim, flags, *rest = _HEADER.unpack(message)
        if magic != MAGIC:
            raise PayloadError(f"not a splitlib payload: it starts with {magic!r}, not {MAGIC!r}")
        if version != VERSION:
            raise PayloadError(f"payload of version {version}; this splitlib reads version {VERSION}")
        if codec not in _CODECS or dtype >= len(DTYPES) or ndim > MAX_DIMENSIONS or flags & ~_RAW:
            raise PayloadError("payload's header is corrupted: unknown codec, dtype, flag or number of dimensions")
        return cls(codec, DTYPES[dtype], tuple(rest[4 : 4 + ndim]), tuple(rest[:4]), bool(flags & _RAW))


@dataclass(frozen=True)
class Payload:
    """One encoded tensor as a contiguous uint8 message; ``nbytes`` is what the wire carries."""

    message: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes on the wire, header included."""
        return self.message.numel()

    @property
    def header(self) -> Header:
        """The message's header, checked."""
        return Header.unpack(self.message[:HEADER_BYTES].cpu().numpy().tobytes())

    @property
    def body(self) -> Tensor:
        """The message without its header."""
        return self.message[HEADER_BYTES:]


_CODECS: dict[int, type[Compressor]] = {}


class Compressor(ABC):
    """Encodes tensors of any floating dtype in :data:`DTYPES`, any shape and memory layout, on any device.

    A subclass is a frozen dataclass of its parameters with a one-byte ``code``, and turns a flat float32 tensor into
    the body's bytes and back.
    """

    code: ClassVar[int]

    def __init_subclass__(cls) -> None:
        """Register the codec by its code, so that a payload finds its decoder."""
        super().__init_subclass__()
        if _CODECS.setdefault(cls.code, cls).__qualname__ != cls.__qualname__:
            raise TypeError(f"codec {cls.code} is taken by {_CODECS[cls.code].__name__}")

    @property
    def parameters(self) -> tuple[int, int, int, int]:
        """Four bytes for the header from which :meth:`decode_body` knows how the body is laid out."""
        return (0, 0, 0, 0)

    def encode(self, x: Tensor) -> Payload:
        """Return ``x`` encoded. A tensor holding inf or NaN travels as it is, flagged raw: loss scaling needs it whole.

        Raises:
            PayloadError: the dtype is not floating, or there are more than eight dimensions.
        """
        if x.dtype not in DTYPES or x.ndim > MAX_DIMENSIONS:
            raise PayloadError(f"cannot encode a {x.ndim}-dimensional {x.dtype}; floating, at most {MAX_DIMENSIONS}")
        flat = x.detach().contiguous().reshape(-1)
        raw = not bool(torch.isfinite(flat).all())
        header = Header(self.code, x.dtype, tuple(x.shape), self.parameters, raw)
        body = as_bytes(flat) if raw else self.encode_body(flat)
        return Payload(torch.cat([_bytes_tensor(header.pack(), x.device), body]))

    @abstractmethod
    def encode_body(self, flat: Tensor) -> Tensor:
        """Return the body (uint8, 1-d) of a finite 1-d tensor."""

    @classmethod
    @abstractmethod
    def decode_body(cls, body: Tensor, header: Header) -> Tensor:
        """Return the 1-d tensor of ``header.numel`` elements that ``body`` encodes, in any floating dtype."""


def decode(payload: Payload) -> Tensor:
    """Return the tensor a payload encodes, on the payload's device, in its dtype and shape.

    Raises:
        PayloadError: the payload is truncated, corrupted or foreign.
    """
    header = payload.header
    if header.raw:
        return from_bytes(payload.body, header.dtype, header.numel).reshape(header.shape)
    flat = _CODECS[header.codec].decode_body(payload.body, header)
    return flat.to(header.dtype).reshape(header.shape)


def as_bytes(flat: Tensor) -> Tensor:
    """View a contiguous 1-d tensor as bytes."""
    return flat.view(torch.uint8)


def from_bytes(body: Tensor, dtype: torch.dtype, numel: int) -> Tensor:
    """Read ``numel`` elements that fill ``body`` exactly; raise PayloadError if they do not."""
    expect(body, numel * dtype.itemsize)
    return body.clone().view(dtype)  # the body starts at any byte, a view needs alignment


def expect(body: Tensor, nbytes: int) -> None:
    """Raise PayloadError unless ``body`` has exactly ``nbytes``."""
    if body.numel() != nbytes:
        raise PayloadError(f"payload's body has {body.numel()} bytes; its header implies {nbytes}")


def _bytes_tensor(data: bytes, device: torch.device) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)
