"""Quantization for an entropy coder: evenly spaced levels around zero, whose bin is wider than the others.

Behind a coder that gives frequent levels few bits, what counts is not how many levels there are but how surprising they
are. Evenly spaced ones of which as many are allowed as it takes then lose least (Gish and Pierce 1968), and for values
with a peak at zero the bin around zero should be wider than the rest, with each value restored at its bin's mean
(Sullivan 1996). Rounding to levels where the squared error is least, as ``edges=least_error`` does, is best where every
code takes the same number of bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splitlib.compressors.base import Header, as_bytes, from_bytes
from splitlib.compressors.quantizer import CODES, CONTEXT, SMALLEST_STEP, Quantizer
from splitlib.compressors.scales import ROW, SCALE_HELP, SCALES, TENSOR, as_scales, factors, octaves_below, rows_of
from splitlib.errors import ConfigError, PayloadError
from splitlib.options import described

_BITS = 16  # of a level before it is coded, an int16
_MOST = torch.iinfo(torch.int16).max
_ROUND_UP = 0.4  # a value moves up to the next level from 1 minus this, so that zero's bin is 1.2 steps wide
_STEP, _NUMBERS = 4, 8  # bytes of the step; with the shift, in front of the rows' scales


@dataclass(frozen=True, kw_only=True)
class DeadZone(Quantizer):
    """Rounds towards zero to multiples of a step, and restores what is not zero at the mean of its bin.

    A step is ``step`` root mean squares wide, or wider if the largest value would be more than 32767 steps away. Values
    within 0.6 steps of zero become zero; any other errs by less than a step. Each level is coded in the context of its
    neighbours (:mod:`splitlib.compressors.mixing`), so how many bytes it takes follows from the values. ``scale="row"``
    gives each row of the tensor a step of its own, for one byte.

    >>> x = torch.randn(64, 384, generator=torch.Generator().manual_seed(0))
    >>> [round(8 * DeadZone(step=step).encode(x).nbytes / x.numel(), 1) for step in (0.5, 1.0, 2.0)]  # bits a value
    [3.0, 2.0, 1.0]
    """

    code: ClassVar[int] = 6
    coder: ClassVar[str] = "mixing"
    codes: str = described(CONTEXT, "how codes are written, in context of their neighbours in fewer bits", CODES)
    step: float = described(1.0, "distance of two levels, in root mean squares of the values")
    scale: str = described(TENSOR, SCALE_HELP, SCALES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1e-3 <= self.step <= 1e3:
            raise ConfigError(f"deadzone: step must be from 0.001 to 1000 root mean squares, not {self.step}")

    @property
    def parameters(self) -> tuple[int, int, int, int]:
        """Whether rows have scales."""
        return (SCALES.index(self.scale), 0, 0, 0)

    def encode_body(self, x: Tensor, low: float, high: float, body: Tensor) -> None:
        """Write the step, the shift, the rows' scales and the packed levels.

        Getting memory for a large tensor in double precision takes longer than computing it, so two such serve for all.
        """
        by_row = self.scale == ROW
        rows = x.double().reshape(_rows(x.shape, by_row), -1)
        work = rows.square()
        spread = work.mean(1).sqrt()
        distances = torch.abs(rows, out=work)
        sizes = torch.maximum(spread, distances.amax(1) / (self.step * _MOST))
        largest = sizes.max()
        step = (self.step * largest).clamp(SMALLEST_STEP, torch.finfo(torch.float32).max).float()
        scales = as_scales(octaves_below(sizes).round())
        distances.div_(_steps(step, scales, by_row))
        levels = torch.add(distances, _ROUND_UP, out=rows).floor_().clamp_(max=_MOST)
        magnitudes = levels.to(torch.int16)
        shift = distances.sub_(levels).masked_fill_(magnitudes == 0, 0).sum() / magnitudes.count_nonzero().clamp(min=1)
        split = self._codes_begin(len(scales), by_row)
        body[:_STEP] = as_bytes(step.reshape(1))
        body[_STEP:_NUMBERS] = as_bytes(shift.float().reshape(1))
        body[_NUMBERS:split] = scales[: split - _NUMBERS]
        magnitudes = magnitudes.reshape(x.shape)
        body[split:] = as_bytes(torch.where(x < 0, -magnitudes, magnitudes))

    @classmethod
    def body_nbytes(cls, header: Header) -> int:
        """Step and shift, a byte for each row with a scale, and the levels."""
        if header.parameters[0] not in range(len(SCALES)):
            raise PayloadError(f"payload names the scale {header.parameters[0]} for dead-zone quantization")
        return cls.codes_at(header)[0] + 2 * header.numel

    @classmethod
    def codes_at(cls, header: Header) -> tuple[int, int]:
        """Behind the scales."""
        by_row = bool(header.parameters[0])
        return cls._codes_begin(_rows(header.shape, by_row), by_row), _BITS

    @classmethod
    def decode_body(cls, body: Tensor, header: Header) -> Tensor:
        """Compute each value in double precision from its level, the shift and its row's step."""
        split, by_row = cls.codes_at(header)[0], bool(header.parameters[0])
        step, shift = from_bytes(body[:_NUMBERS], torch.float32).double()
        rows = from_bytes(body[split:], torch.int16).double().reshape(_rows(header.shape, by_row), -1)
        values = (rows + rows.sign() * shift) * _steps(step, body[_NUMBERS:split], by_row)
        limit = torch.finfo(header.dtype).max
        return values.clamp_(-limit, limit).float()

    @staticmethod
    def _codes_begin(rows: int, by_row: bool) -> int:
        return _NUMBERS + (rows if by_row else 0)


def _rows(shape: tuple[int, ...], by_row: bool) -> int:
    """Return how many rows have a scale of their own; without, all values are one."""
    return rows_of(shape) if by_row else 1


def _steps(step: Tensor, scales: Tensor, by_row: bool) -> Tensor:
    """Return the step of each row, [rows, 1] in double precision."""
    return step.double() * factors(scales) if by_row else step.double()
