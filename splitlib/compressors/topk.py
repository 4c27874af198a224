"""Top-k sparsification: the values farthest from zero cross, and all others arrive as zeros.

It is the baseline of split learning. In its randomised form (Zheng et al. 2023, "Reducing Communication for Split
Learning by Randomized Top-k Sparsification", IJCAI, arXiv:2305.18469) some of the largest give way to others drawn at
random while training, so that what is seldom large is not left out for ever. Activations and gradients each have a
compressor here: the gradients sent are the largest ones, not those of the activations that were sent.

Which values are sent is a bitmap, coded in context. With a twentieth sent that takes 5.7 bits for each of them where
places say nothing of each other, and fewer where channels or tokens are alike; an index into a row of 384 takes 9.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from splitlib.compressors.base import Header, as_bytes, from_bytes
from splitlib.compressors.packing import pack, packed_nbytes, unpack
from splitlib.compressors.quantizer import CODES, CONTEXT, Quantizer
from splitlib.compressors.scales import ROW, SCALE_HELP, SCALES, TENSOR
from splitlib.errors import ConfigError, PayloadError
from splitlib.options import described

VALUES = {"float16": torch.float16, "float8": torch.float8_e4m3fn}
"""What is sent of a value: 11 bits of precision over 29 octaves below the largest, or 4 bits over 14."""
_DTYPES = tuple(VALUES.values())
_TOPS = {torch.float16: 15, torch.float8_e4m3fn: 8}  # the largest is sent as a value below 2^this, half of what fits
_EXPONENT = 2  # bytes of the exponent that all values are scaled by
_FARTHEST = 1023  # 2 to the power of more is no float64


@dataclass(frozen=True, kw_only=True)
class TopK(Quantizer):
    """Sends the ``share`` of values with the largest magnitudes, at least one, scaled by a common power of two.

    Exactly ``round(share * n)`` of the n values of the tensor, or of each row, are sent; of those with equal magnitudes
    the first ones. Zeros are sent where nothing else is left. Float16 errs by 2^-11 of a value at most, float8 by 2^-4,
    little beside what is left out. How many bytes the places take follows from the values; with ``codes="packed"`` they
    take one bit for each value of the tensor.

    In training each of the largest gives way, with a chance of ``random``, to one drawn from the rest of its row or
    tensor, as far as there are others. What is drawn depends on the tensor alone, so that every engine and a run that
    goes on draw the same.

    >>> x = torch.randn(64, 384, generator=torch.Generator().manual_seed(0))
    >>> [round(8 * TopK(share=share).encode(x).nbytes / x.numel(), 1) for share in (0.05, 0.1, 0.2)]  # bits a value
    [1.1, 2.1, 3.9]
    """

    code: ClassVar[int] = 7
    codes: str = described(CONTEXT, "how codes are written, in context of their neighbours in fewer bits", CODES)
    share: float = described(0.1, "share of the values that is sent, the farthest from zero: above 0, up to 1")
    scale: str = described(TENSOR, SCALE_HELP, SCALES)
    values: str = described("float16", "what is sent of each value", VALUES)
    random: float = described(0.0, "in training, the chance of each of the largest to give way to another value")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise ConfigError(f"topk: share must be above 0 and at most 1, not {self.share}")
        if not 0 <= self.random <= 1:
            raise ConfigError(f"topk: random must be from 0 to 1, not {self.random}")

    @property
    def parameters(self) -> tuple[int, int, int, int]:
        """Whether rows are by themselves, the share, a float32 in two halves, and what is sent of a value."""
        low, high = struct.unpack("<2H", struct.pack("<f", self.share))
        return (SCALES.index(self.scale), low, high, _DTYPES.index(VALUES[self.values]))

    @property
    def in_evaluation(self) -> TopK:
        """The same without chance."""
        return replace(self, random=0.0)

    def encode_body(self, x: Tensor, low: float, high: float, body: Tensor) -> None:
        """Write the exponent, the values in their order, and the bitmap of their places."""
        width, kept, dtype = _widths(Header(self.code, x.dtype, tuple(x.shape), self.parameters))
        rows = x.reshape(-1, width)
        chosen = largest(rows.abs(), kept)
        if self.random:
            chosen = swapped(chosen, self.random, seed=int(x.reshape(-1).view(torch.int16).sum()))
        exponent = math.frexp(max(-low, high))[1] - _TOPS[dtype]
        values = (rows[chosen].double() * 2.0**-exponent).to(dtype)
        split = _EXPONENT + len(values) * dtype.itemsize
        body[:_EXPONENT] = as_bytes(torch.tensor([exponent], dtype=torch.int16))
        body[_EXPONENT:split] = as_bytes(values)
        body[split:] = pack(chosen.reshape(-1).int(), 1)

    @classmethod
    def body_nbytes(cls, header: Header) -> int:
        """The exponent, the values that are sent, and a bit for each that could be."""
        return cls.codes_at(header)[0] + packed_nbytes(header.numel, 1)

    @classmethod
    def codes_at(cls, header: Header) -> tuple[int, int]:
        """Behind the values."""
        width, kept, dtype = _widths(header)
        return _EXPONENT + header.numel // width * kept * dtype.itemsize, 1

    @classmethod
    def decode_body(cls, body: Tensor, header: Header) -> Tensor:
        """Put the values in their places; scaling is by a power of two, so that nothing is rounded again."""
        split, dtype = cls.codes_at(header)[0], _widths(header)[2]
        chosen = unpack(body[split:], 1, header.numel).bool()
        exponent = min(int(from_bytes(body[:_EXPONENT], torch.int16)), _FARTHEST)
        values = from_bytes(body[_EXPONENT:split], dtype).double() * math.ldexp(1.0, exponent)
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


def swapped(chosen: Tensor, chance: float, seed: int) -> Tensor:
    """Return the mask [rows, n] with each chosen value exchanged, with a ``chance``, for another one of its row.

    Those that enter are the ones with the highest draws. All is drawn on the CPU, for every device the same.
    """
    draws = torch.rand(chosen.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    draws = draws.to(chosen.device)
    leaving = chosen & (draws < chance)
    leaving &= leaving.cumsum(1) <= (~chosen).sum(1, keepdim=True)
    counts = leaving.sum(1, keepdim=True)
    most = int(counts.max())
    others = draws.masked_fill(chosen, -1).topk(most, 1).indices
    entering = torch.arange(most, device=chosen.device) < counts
    return (chosen & ~leaving).scatter(1, others, entering) if most else chosen


def _widths(header: Header) -> tuple[int, int, torch.dtype]:
    """Return how many values are chosen from at a time, how many are sent, and as what; PayloadError if impossible."""
    scale, *halves, dtype = header.parameters
    (share,) = struct.unpack("<f", struct.pack("<2H", *halves))
    if scale >= len(SCALES) or dtype >= len(VALUES) or not 0 <= share <= 1:
        raise PayloadError(f"payload names scale {scale}, share {share:g} and values {dtype} for top-k sparsification")
    width = header.row if SCALES[scale] == ROW else header.numel
    return width, max(1, round(share * width)), _DTYPES[dtype]
