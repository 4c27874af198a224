"""The lossless stage: zstd over a quantizer's body, which the decoder undoes before it reads anything else.

Codes of activations and gradients are far from equally frequent, so zstd finds up to another factor of four.
"""

from __future__ import annotations

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
