"""Top-k sparsification: the values farthest from zero cross, and all others arrive as zeros.

It is the baseline of split learning. In its randomised form (Zheng et al. 2023, "Reducing Communication for Split
Learning by Randomized Top-k Sparsification", IJCAI, arXiv:2305.18469) some of the largest give way to others drawn at
random while training, so that what is seldom large is not left out for ever. The paper has one set of positions for
both directions; here activations and gradients each have their own compressor, and choose their own.

What is sent is float16, of which the error is far below that of leaving values out, so that all there is to see is the
sparsity's. Where they belong is a bitmap: coded in context it takes about the entropy of the share that is kept, six
bits a kept value at a twentieth, where the index into a row of 384 would take nine.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splitlib.compressors.base import Header, as_bytes, from_bytes
from splitlib.compressors.deadzone import ROW, SCALE_HELP, SCALES, TENSOR
from splitlib.compressors.packing import pack, packed_nbytes, unpack
from splitlib.compressors.quantizer import CODES, CONTEXT, Quantizer
from splitlib.errors import ConfigError, PayloadError
from splitlib.options import described

_EXPONENT, _VALUE = 2, 2  # bytes: what all values are scaled by, an int16, and each value, a float16
_TOP = 15  # the largest value is sent as one just below 2^15: float16 then has 29 octaves below it in full precision


@dataclass(frozen=True, kw_only=True)
class TopK(Quantizer):
    """Sends the ``share`` of values with the largest magnitudes, at least one, each within float16's half unit.

    Exactly ``round(share * n)`` of the n values of the tensor, or of each row, are sent; of those with equal magnitudes
    the first ones. Where they lie is coded in the context of their neighbours, so how many bytes that takes follows
    from the values; with ``codes="packed"`` it is one bit for each value of the tensor.

    >>> x = torch.randn(64, 384, generator=torch.Generator().manual_seed(0))
    >>> [round(8 * TopK(share=share).encode(x).nbytes / x.numel(), 1) for share in (0.05, 0.1, 0.2)]  # bits a value
    [1.1, 2.1, 3.9]
    """

    code: ClassVar[int] = 7
    codes: str = described(CONTEXT, "how codes are written, in context of their neighbours in fewer bits", CODES)
    share: float = described(0.1, "of all values, which are sent: those farthest from zero; above 0 and up to 1")
    scale: str = described(TENSOR, SCALE_HELP, SCALES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise ConfigError(f"topk: share must be above 0 and at most 1, not {self.share}")

    @property
    def parameters(self) -> tuple[int, int, int, int]:
        """Whether rows are by themselves, and the share, a float32 in two halves."""
        low, high = struct.unpack("<2H", struct.pack("<f", self.share))
        return (SCALES.index(self.scale), low, high, 0)

    def encode_body(self, x: Tensor, low: float, high: float, body: Tensor) -> None:
        """Write the exponent, the values in their order, and the bitmap of their places."""
        width, kept = _widths(Header(self.code, x.dtype, tuple(x.shape), self.parameters))
        rows = x.reshape(-1, width)
        chosen = largest(rows.abs(), kept)
        exponent = math.frexp(max(-low, high))[1] - _TOP
        values = rows[chosen].double() * 2.0**-exponent
        split = _EXPONENT + _VALUE * len(values)
        body[:_EXPONENT] = as_bytes(torch.tensor([exponent], dtype=torch.int16))
        body[_EXPONENT:split] = as_bytes(values.half())
        body[split:] = pack(chosen.reshape(-1).int(), 1)

    @classmethod
    def body_nbytes(cls, header: Header) -> int:
        """The exponent, two for each value that is sent, and a bit for each that could be."""
        return cls.codes_at(header)[0] + packed_nbytes(header.numel, 1)

    @classmethod
    def codes_at(cls, header: Header) -> tuple[int, int]:
        """Behind the values."""
        width, kept = _widths(header)
        return _EXPONENT + _VALUE * (header.numel // width) * kept, 1

    @classmethod
    def decode_body(cls, body: Tensor, header: Header) -> Tensor:
        """Put the values in their places; scaling is by a power of two, so that nothing is rounded again."""
        split, _ = cls.codes_at(header)
        chosen = unpack(body[split:], 1, header.numel).bool()
        exponent = from_bytes(body[:_EXPONENT], torch.int16).double()
        values = from_bytes(body[_EXPONENT:split], torch.float16).double() * exponent.exp2()
        places = int(chosen.count_nonzero())
        if len(values) != places or not values.isfinite().all():
            raise PayloadError(f"payload's values are damaged: {len(values)} for {places} places, or some not finite")
        limit = torch.finfo(header.dtype).max
        x = torch.zeros(header.numel, device=body.device)
        x[chosen] = values.clamp_(-limit, limit).float()
        return x


def largest(magnitudes: Tensor, kept: int) -> Tensor:
    """Return which values [rows, n] are the ``kept`` largest of their row, of equal ones the first.

    That is a mask, the same on every device: what ``torch.topk`` does with equal values depends on it.
    """
    least = magnitudes.topk(kept, sorted=False).values.amin(1, keepdim=True)
    chosen = magnitudes >= least
    if int(chosen.count_nonzero()) > kept * len(chosen):
        equal = magnitudes == least
        room = kept - (chosen & ~equal).sum(1, keepdim=True)
        chosen &= ~equal | (equal.cumsum(1) <= room)
    return chosen


def _widths(header: Header) -> tuple[int, int]:
    """Return how many values are chosen from at a time, and how many of them are kept; PayloadError if impossible."""
    scale, *halves, _ = header.parameters
    (share,) = struct.unpack("<f", struct.pack("<2H", *halves))
    if scale not in range(len(SCALES)) or not 0 <= share <= 1:
        raise PayloadError(f"payload names the scale {scale} and the share {share:g} for top-k sparsification")
    width = header.row if SCALES[scale] == ROW else header.numel
    return width, max(1, round(share * width))
