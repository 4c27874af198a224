"""What travels between two machines: one uint8 message for each tensor, a frame around a compressor's payload.

::

    offset   0  2  magic "SF"
             2  1  version
             3  1  kind: activation 1, gradient 2, ...
             4  1  flags: training
             6  2  micro-batch
             8  2  micro-batches of this batch
            12  4  optimizer step
            16  8  bytes of the payload
            24  8  bytes of the tensors beside it (an attention mask)
            32  8  bytes that would cross without compression, for the record
            40  4  CRC-32 of this header and of the tensors beside the payload
            48     the tensors beside the payload, filled up to whole words
                   the payload, which has a header and a checksum of its own

The two checksums cover every byte once. Nothing is unpickled: numbers are read by position, tensors from raw bytes.
"""

from __future__ import annotations

import dataclasses
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splitlib.compressors import Payload, decode
from splitlib.errors import PayloadError
from splitlib.timeline import TENSORS

MAGIC, VERSION = b"SF", 1
_FRAME = struct.Struct("<2sBBBxHHxxIQQQI4x")
FRAME_BYTES = _FRAME.size
_TRAINING = 1
_WORD = 8

ACTIVATION_1, GRADIENT_1, ACTIVATION_2, GRADIENT_2, ROOM = 1, 2, 3, 4, 9
KINDS = dict(zip((ACTIVATION_1, GRADIENT_1, ACTIVATION_2, GRADIENT_2, ROOM), (*TENSORS, "room"), strict=True))
FROM_CLIENT, FROM_SERVER = (ACTIVATION_1, GRADIENT_2), (ACTIVATION_2, GRADIENT_1)
URGENT = (ACTIVATION_2, GRADIENT_2)
"""Cut 2 before cut 1, both ways: a micro-batch that is further on brings work for the other direction sooner."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What a frame says of its payload."""

    kind: int
    """One of :data:`KINDS`. ``room`` announces the size of the messages to come and has no payload."""
    training: bool = True
    step: int = 0
    """Optimizer steps before this batch."""
    micro_batch: int = 0
    of: int = 1
    """Micro-batches in this batch."""
    uncompressed: int = 0
    """Bytes of the tensor if nothing compressed it, inserted layers included."""
    payload_nbytes: int = 0
    beside_nbytes: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the whole message."""
        if self.kind == ROOM:
            return FRAME_BYTES
        return FRAME_BYTES + self.beside_nbytes + self.payload_nbytes

    def __str__(self) -> str:
        mode = "training" if self.training else "evaluation"
        return f"{KINDS[self.kind]}, micro-batch {self.micro_batch} of {self.of}, step {self.step}, {mode}"

    def pack(self, beside: bytes = b"") -> bytes:
        """Return the header and what is beside the payload, with their checksum."""

        def header(checksum: int) -> bytes:
            return _FRAME.pack(
                MAGIC,
                VERSION,
                self.kind,
                _TRAINING * self.training,
                self.micro_batch,
                self.of,
                self.step,
                self.payload_nbytes,
                self.beside_nbytes,
                self.uncompressed,
                checksum,
            )

        return header(zlib.crc32(beside, zlib.crc32(header(0)))) + beside


END = Frame(kind=ROOM)
"""Announces that no more comes."""


def encode_frame(
    encode: Callable[..., Payload], x: Tensor, frame: Frame, beside: Sequence[Tensor] = ()
) -> tuple[Frame, Tensor]:
    """Return ``frame`` with its sizes filled in, and the message that carries ``x`` encoded: 1-d uint8 on the CPU.

    ``encode`` is called like :meth:`splitlib.compressors.Compressor.encode`.
    """
    extra = _pack_beside(beside)
    room = FRAME_BYTES + len(extra)
    payload = encode(x, room=room)
    frame = dataclasses.replace(frame, payload_nbytes=payload.nbytes, beside_nbytes=len(extra))
    body = payload.message
    message = body.as_strided((room + body.numel(),), (1,), body.storage_offset() - room).cpu()
    message[:room] = torch.frombuffer(bytearray(frame.pack(extra)), dtype=torch.uint8)
    return frame, message


def announcement(nbytes: int) -> Tensor:
    """Return the message that tells the receiver to make room for messages of ``nbytes``."""
    return torch.frombuffer(bytearray(Frame(kind=ROOM, payload_nbytes=nbytes).pack()), dtype=torch.uint8)


def read_frame(message: Tensor) -> Frame:
    """Return the checked header of a received message, which may be longer than the frame in it.

    Raises:
        PayloadError: the message is truncated, foreign, of another version, or its header is damaged.
    """
    if message.numel() < FRAME_BYTES:
        raise PayloadError(f"frame of {message.numel()} bytes is shorter than its {FRAME_BYTES}-byte header")
    head = message[:FRAME_BYTES].numpy().tobytes()
    magic, version, kind, flags, micro_batch, of, step, payload, beside, uncompressed, _ = _FRAME.unpack(head)
    if magic != MAGIC:
        raise PayloadError(f"not a splitlib frame: it starts with {magic!r}, not {MAGIC!r}")
    if version != VERSION:
        raise PayloadError(f"frame of version {version}; this splitlib reads version {VERSION}")
    if kind not in KINDS:
        raise PayloadError(f"frame's header is corrupted: it is of the unknown kind {kind}")
    frame = Frame(
        kind=kind,
        training=bool(flags & _TRAINING),
        step=step,
        micro_batch=micro_batch,
        of=of,
        uncompressed=uncompressed,
        payload_nbytes=payload,
        beside_nbytes=beside,
    )
    if frame.nbytes > message.numel():
        raise PayloadError(f"frame says it has {frame.nbytes} bytes; only {message.numel()} arrived")
    extra = b"" if kind == ROOM else message[FRAME_BYTES : FRAME_BYTES + beside].numpy().tobytes()
    if frame.pack(extra) != head + extra:
        raise PayloadError("frame is corrupted: its checksum does not fit")
    return frame


def decode_frame(frame: Frame, message: Tensor, device: torch.device) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the tensor in ``message`` and those beside it, on ``device``; nothing keeps a view of the message.

    Raises:
        PayloadError: as :func:`~splitlib.compressors.decode`.
    """
    payload, beside = read_payload(frame, message, device)
    return decode(payload), beside


def read_payload(frame: Frame, message: Tensor, device: torch.device) -> tuple[Payload, tuple[Tensor, ...]]:
    """Return the payload in ``message``, which it may share, and the tensors beside it, on ``device``."""
    start = FRAME_BYTES + frame.beside_nbytes
    beside = _unpack_beside(message[FRAME_BYTES:start].numpy().tobytes())
    payload = Payload(message[start : frame.nbytes].to(device, copy=device.type != "cpu"))
    return payload, tuple(tensor.to(device) for tensor in beside)


def check_frame(frame: Frame, expected: Frame) -> None:
    """Raise PayloadError unless ``frame`` is the one that is due, whatever its sizes."""
    if _identity(frame) != _identity(expected):
        raise PayloadError(f"expected {expected}; received {frame}")


def _identity(frame: Frame) -> Frame:
    return dataclasses.replace(frame, uncompressed=0, payload_nbytes=0, beside_nbytes=0)


# --- Tensors beside the payload: integers, as they are --------------------------------------------------------------

_DTYPES = (torch.int64, torch.int32, torch.uint8, torch.bool)
_BESIDE = struct.Struct("<BBB5x4I")  # dtype, dtype sent, dimensions, shape
_MAX_DIMENSIONS = 4
_MAX_NUMEL = 1 << 60  # torch counts bytes in 64 bits, also where one dimension of several is 0


def _pack_beside(tensors: Sequence[Tensor]) -> bytes:
    """Return integer tensors as bytes. A mask's ones and zeros take one byte each, whatever their dtype."""
    return b"".join(map(_pack_one, tensors))


def _pack_one(tensor: Tensor) -> bytes:
    if tensor.dtype not in _DTYPES or tensor.ndim > _MAX_DIMENSIONS:
        raise PayloadError(f"cannot send a {tensor.ndim}-dimensional {tensor.dtype} beside a payload")
    tensor = tensor.detach().cpu().contiguous()
    small = tensor.numel() > 0 and int(tensor.min()) >= 0 and int(tensor.max()) < 256
    sent = tensor.to(torch.uint8) if small else tensor
    shape = (*tensor.shape, *[0] * (_MAX_DIMENSIONS - tensor.ndim))
    head = _BESIDE.pack(_DTYPES.index(tensor.dtype), _DTYPES.index(sent.dtype), tensor.ndim, *shape)
    body = sent.numpy().tobytes()
    return head + body + bytes(-(len(head) + len(body)) % _WORD)


def _unpack_beside(data: bytes) -> list[Tensor]:
    tensors, offset = [], 0
    while offset < len(data):
        tensor, nbytes = _unpack_one(memoryview(data)[offset:])
        tensors.append(tensor)
        offset += nbytes + -nbytes % _WORD
    return tensors


def _unpack_one(data: memoryview) -> tuple[Tensor, int]:
    """Return the first tensor in ``data`` and its bytes, header included; whatever it claims is checked before use."""
    if len(data) < _BESIDE.size:
        raise PayloadError(f"tensor beside a payload is damaged: {len(data)} bytes, and its header has {_BESIDE.size}")
    dtype, sent, ndim, *shape = _BESIDE.unpack_from(data)
    if max(dtype, sent) >= len(_DTYPES) or ndim > _MAX_DIMENSIONS:
        raise PayloadError("tensor beside a payload is damaged: unknown dtype or number of dimensions")
    size = shape[:ndim]
    nbytes = math.prod(size) * _DTYPES[sent].itemsize
    there = data[_BESIDE.size : _BESIDE.size + nbytes]
    if len(there) < nbytes or math.prod(max(n, 1) for n in size) > _MAX_NUMEL:
        raise PayloadError(f"tensor beside a payload is damaged: it claims the shape {size} in {len(data)} bytes")
    raw = torch.empty(nbytes, dtype=torch.uint8)
    raw.numpy()[:] = there
    return raw.view(_DTYPES[sent]).reshape(size).to(_DTYPES[dtype]), _BESIDE.size + nbytes
