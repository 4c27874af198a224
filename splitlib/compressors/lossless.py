"""The lossless stages, which the decoder undoes before it reads anything else: zstd, and codes in context.

zstd takes a quantizer's whole body. Codes of activations and gradients are far from equally frequent, so it finds up to
another factor of four. But it looks for bytes that repeat, and packed codes straddle bytes: :mod:`arithmetic` takes
each code by itself, given its neighbours, and needs far fewer bytes where tensors are smooth (benchmarks/README.md).
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
import zstandard
from torch import Tensor

from splitlib.errors import PayloadError

MAX_LEVEL = 22
# zstd stores at most 128 KiB in a block, and a block of one repeated byte in 4 bytes.
_MAX_RATIO = (128 << 10) // 4


def shrink(body: Tensor, level: int) -> Tensor:
    """Return ``body`` (uint8) as one zstd frame, on the same device."""
    frame = zstandard.ZstdCompressor(level=level).compress(body.cpu().numpy().tobytes())
    return torch.frombuffer(bytearray(frame), dtype=torch.uint8).to(body.device)


def grow(frame: Tensor, nbytes: int) -> Tensor:
    """Return the ``nbytes`` that :func:`shrink` compressed, on the same device.

    Raises:
        PayloadError: the frame is damaged, or does not hold ``nbytes``. Nothing is allocated for a claim no frame of
            this size can keep.
    """
    data = frame.cpu().numpy().tobytes()
    try:
        claimed = zstandard.frame_content_size(data)
        if claimed != nbytes or nbytes > len(data) * _MAX_RATIO:
            raise PayloadError(f"payload's zstd frame holds {claimed} bytes; its header implies {nbytes}")
        body = zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise PayloadError(f"payload's zstd frame is damaged: {error}") from None
    return torch.frombuffer(bytearray(body), dtype=torch.uint8).to(frame.device)


def shrink_codes(coder: str, packed: Tensor, bits: int, numel: int, row: int) -> Tensor | None:
    """Return packed codes (uint8) as the ``coder`` has them, on the same device, or None if that takes more bytes."""
    coded = _module(coder).shrink(packed.cpu().numpy(), bits, numel, row)
    return None if coded is None else torch.from_numpy(coded).to(packed.device)


def grow_codes(coder: str, coded: Tensor, bits: int, numel: int, row: int) -> Tensor:
    """Undo :func:`shrink_codes`, on the same device; PayloadError if the bytes do not hold these codes."""
    return torch.from_numpy(_module(coder).grow(coded.cpu().numpy(), bits, numel, row)).to(coded.device)


def _module(coder: str) -> ModuleType:
    """Return a compiled coder; what compiles it is imported only now, when it is needed."""
    return importlib.import_module(f"splitlib.compressors.{coder}")
