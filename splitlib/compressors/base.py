"""The payload that crosses a cut, and what every compressor has in common.

A payload is one contiguous uint8 message: a fixed header, then the codec's body. It decodes on another machine with
nothing but itself: the header names the codec, its parameters, and the tensor's dtype and shape.
"""

from __future__ import annotations

import math
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor

from splitlib.compressors import lossless, reference
from splitlib.errors import PayloadError
from splitlib.options import check_choices

MAGIC = b"SP"
VERSION = 2
MAX_DIMENSIONS = 8
# magic, version, codec, dtype, dimensions, flags, unused, four parameters of the codec, shape, checksum
_HEADER = struct.Struct(f"<2sBBBBBx4H{MAX_DIMENSIONS}Iq")
HEADER_BYTES = _HEADER.size
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_RAW, _ZSTD, _CONTEXT = 1, 2, 4
_FLAGS = (0, _RAW, _ZSTD, _RAW | _ZSTD, _CONTEXT)  # of a header; a raw body has no codes, and zstd nothing left to find
_WORD = 8  # bytes the checksum adds at a time; the header is a whole number of them, and ends with the checksum
_MAX_NUMEL = 2**62  # torch counts bytes in 64 bits


@dataclass(frozen=True)
class Header:
    """What a payload says of itself."""

    codec: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    parameters: tuple[int, int, int, int] = (0, 0, 0, 0)
    raw: bool = False
    """The body holds the tensor as it was, because it has values a quantizer cannot carry."""
    zstd: bool = False
    """The body is compressed once more, without loss."""
    context: bool = False
    """The body's codes are written in the context of their neighbours, without loss."""

    @property
    def numel(self) -> int:
        """Elements of the tensor."""
        return math.prod(self.shape)

    @property
    def row(self) -> int:
        """Elements in a row of the tensor, its last dimension."""
        return self.shape[-1] if self.shape else 1

    @property
    def body_nbytes(self) -> int:
        """Bytes of the body, without a lossless stage, that this header implies; PayloadError for wrong parameters."""
        if self.raw:
            return self.numel * self.dtype.itemsize
        return _CODECS[self.codec].body_nbytes(self) if self.numel else 0

    def pack(self) -> bytes:
        """Return the header's bytes, with a checksum of 0."""
        shape = self.shape + (0,) * (MAX_DIMENSIONS - len(self.shape))
        flags = _RAW * self.raw | _ZSTD * self.zstd | _CONTEXT * self.context
        dtype = DTYPES.index(self.dtype)
        return _HEADER.pack(MAGIC, VERSION, self.codec, dtype, len(self.shape), flags, *self.parameters, *shape, 0)

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
        if codec not in _CODECS or dtype >= len(DTYPES) or ndim > MAX_DIMENSIONS or flags not in _FLAGS:
            raise PayloadError("payload's header is corrupted: unknown codec, dtype, flag or number of dimensions")
        shape = tuple(rest[4 : 4 + ndim])
        if math.prod(max(size, 1) for size in shape) > _MAX_NUMEL:
            raise PayloadError(f"payload's header is corrupted: it claims the shape {list(shape)}")
        raw, zstd, context = (bool(flags & flag) for flag in (_RAW, _ZSTD, _CONTEXT))
        return cls(codec, DTYPES[dtype], shape, tuple(rest[:4]), raw, zstd, context)


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
        if self.message.dtype != torch.uint8 or self.message.ndim != 1:
            raise PayloadError(f"a payload is 1-d uint8, not {self.message.ndim}-d {self.message.dtype}")
        return Header.unpack(self.message[:HEADER_BYTES].cpu().numpy().tobytes())

    @property
    def body(self) -> Tensor:
        """The message without its header."""
        return self.message[HEADER_BYTES:]


_CODECS: dict[int, type[Compressor]] = {}


class Compressor(ABC):
    """Encodes tensors of any floating dtype in :data:`DTYPES`, any shape and memory layout, on any device.

    A subclass is a dataclass of its parameters with a one-byte ``code``. It says how many bytes its body has, writes
    them, and reads them back. It may keep state between calls of ``encode``; ``decode`` knows only the payload.
    """

    code: ClassVar[int]
    coder: ClassVar[str] = "arithmetic"
    """The module that writes codes in context, for a codec that has codes."""
    learns: ClassVar[bool] = False
    """Whether what it makes of a tensor depends on those before."""
    state: Tensor | None = None
    """What the next ``encode`` starts from, for a codec that learns from the tensors before; checkpoints hold it."""

    def __post_init__(self) -> None:
        """Check what is set."""
        check_choices(self)

    def __init_subclass__(cls) -> None:
        """Register the codec by its code, so that a payload finds its decoder.

        Raises:
            TypeError: the code is taken, or it is a parent's, which would decode the payloads in its own way.
        """
        super().__init_subclass__()
        if "decode_body" in vars(cls) and "code" not in vars(cls) and hasattr(cls, "code"):
            raise TypeError(f"codec {cls.__name__} needs a code of its own: with {cls.code} its parent would decode it")
        if "code" in vars(cls) and _CODECS.setdefault(cls.code, cls).__qualname__ != cls.__qualname__:
            raise TypeError(f"codec {cls.code} is taken by {_CODECS[cls.code].__name__}")

    @property
    def parameters(self) -> tuple[int, int, int, int]:
        """Four numbers below 2^16 for the header: all that :meth:`decode_body` knows beside dtype and shape."""
        return (0, 0, 0, 0)

    @property
    def in_evaluation(self) -> Compressor:
        """What encodes in evaluation: the codec itself, unless it has something that only training gains from."""
        return self

    def without_loss(self, header: Header, body: Tensor) -> tuple[Header, Tensor]:
        """Return header and body once a lossless stage has tried to shrink the body; here there is none."""
        return header, body

    @classmethod
    def loops_on(cls, device: torch.device) -> ModuleType:
        """Return the module that scans tensors and messages: torch's operations, among which a codec's own may be."""
        return reference

    def encode(self, x: Tensor, *, room: int = 0) -> Payload:
        """Return ``x`` encoded. A tensor holding inf or NaN travels as it is, flagged raw: loss scaling needs it whole.

        Args:
            x: a dense tensor in float32, float16 or bfloat16.
            room: bytes to leave free in the memory before the message, a multiple of eight: a network writes its own
                header there and sends both at once, without copying.

        Raises:
            PayloadError: the dtype is another, there are more than eight dimensions, or the tensor is sparse.
        """
        if x.dtype not in DTYPES or x.ndim > MAX_DIMENSIONS or x.layout != torch.strided:
            kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise PayloadError(
                f"cannot encode a {x.ndim}-dimensional {x.dtype} tensor ({x.layout}); only dense ones of {kinds} "
                f"with up to {MAX_DIMENSIONS} dimensions: convert it, such as with .float()"
            )
        x = x.detach().contiguous()
        low, high = self.loops_on(x.device).span(x) if x.numel() else (0.0, 0.0)
        raw = not math.isfinite(low) or not math.isfinite(high)
        header = Header(self.code, x.dtype, tuple(x.shape), self.parameters, raw)
        message = torch.empty(room + HEADER_BYTES + header.body_nbytes, dtype=torch.uint8, device=x.device)[room:]
        if raw:
            message[HEADER_BYTES:] = as_bytes(x)
        elif x.numel():
            self.encode_body(x, low, high, message[HEADER_BYTES:])
        shrunk_header, shrunk = self.without_loss(header, message[HEADER_BYTES:])
        if HEADER_BYTES + shrunk.numel() < message.numel():
            front = torch.empty(room + HEADER_BYTES, dtype=torch.uint8, device=x.device)
            header, message = shrunk_header, torch.cat([front, shrunk])[room:]
        return _sealed(header, message)

    @abstractmethod
    def encode_body(self, x: Tensor, low: float, high: float, body: Tensor) -> None:
        """Fill ``body`` (uint8, of :meth:`body_nbytes`, uninitialised).

        Args:
            x: a contiguous, finite tensor of at least one element, in its own dtype and shape.
            low: its smallest value.
            high: its largest value.
            body: where the bytes go.
        """

    @classmethod
    @abstractmethod
    def body_nbytes(cls, header: Header) -> int:
        """Return the bytes of the body of a tensor that is not empty; raise PayloadError if parameters are impossible.

        The header may come from a damaged payload, so this allocates nothing.
        """

    @classmethod
    def codes_at(cls, header: Header) -> tuple[int, int]:
        """Return the byte of the body where packed codes begin, and the bits of each; PayloadError if it has none."""
        raise PayloadError("payload's header is corrupted: its codec has no codes")

    @classmethod
    @abstractmethod
    def decode_body(cls, body: Tensor, header: Header) -> Tensor:
        """Return the tensor of ``header.numel`` > 0 elements, in any shape and floating dtype.

        ``body`` has exactly the bytes that :meth:`body_nbytes` says.
        """


def decode(payload: Payload) -> Tensor:
    """Return the tensor a payload encodes, on the payload's device, in its dtype and shape.

    Raises:
        PayloadError: the payload is truncated, corrupted or foreign.
    """
    header, body = payload.header, payload.body
    nbytes = header.body_nbytes
    if body.numel() != nbytes and not ((header.zstd or header.context) and nbytes):
        raise PayloadError(f"payload's body has {body.numel()} bytes; its header implies {nbytes}")
    if int(_word_sum(payload.message, _CODECS[header.codec].loops_on(body.device))):
        raise PayloadError("payload is corrupted: its checksum does not fit")
    if not header.numel:
        return torch.empty(header.shape, dtype=header.dtype, device=body.device)
    body = whole_body(header, body)
    if header.raw:
        return from_bytes(body, header.dtype).reshape(header.shape)
    return _CODECS[header.codec].decode_body(body, header).to(header.dtype).reshape(header.shape)


def whole_body(header: Header, body: Tensor) -> Tensor:
    """Return the body as the codec wrote it, with what a lossless stage took put back.

    Raises:
        PayloadError: the body does not hold what the header says, or the codec has no such stage. The header's
            parameters must have been checked, as :attr:`Header.body_nbytes` does.
    """
    if header.zstd:
        return lossless.grow(body, header.body_nbytes)
    if header.context:
        codec = _CODECS[header.codec]
        first, bits = codec.codes_at(header)
        return torch.cat([body[:first], lossless.grow_codes(codec.coder, body[first:], bits, header.numel, header.row)])
    return body


def as_bytes(x: Tensor) -> Tensor:
    """View a contiguous tensor as bytes."""
    return x.reshape(-1).view(torch.uint8)


def from_bytes(body: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a copy of bytes as 1-d numbers; they may start at any byte, where a view would need alignment."""
    return body.clone().view(dtype)


def _sealed(header: Header, message: Tensor) -> Payload:
    """Write the header in front of the body, with the checksum that makes the sum of all the message's words 0."""
    packed = torch.frombuffer(bytearray(header.pack()), dtype=torch.uint8)
    message[:HEADER_BYTES] = packed.to(message.device)
    checksum = message[HEADER_BYTES - _WORD : HEADER_BYTES].view(torch.int64)
    checksum -= _word_sum(message, _CODECS[header.codec].loops_on(message.device))
    return Payload(message)


def _word_sum(message: Tensor, loops: ModuleType) -> Tensor:
    """Return the sum modulo 2^64 of the message's 8-byte words, the last one filled up with zeros.

    Every flipped bit changes it. It runs at memory speed on any device, as no CRC does.
    """
    if message.storage_offset() % _WORD or not message.is_contiguous():
        message = message.clone(memory_format=torch.contiguous_format)
    return loops.word_sum(message)
