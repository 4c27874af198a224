"""Sort and fast quantization (001 §2): bins that follow the values, each quantized uniformly.

The documents sort the tensor, cut the order into 2^S equal parts, quantize each part with its own minimum and step, and
put the codes back in place. Only the bins' ends depend on the order, so they are all that is looked for here; then one
pass writes the codes. A code is ``bin * 2^Q + level``, Q + S bits.

What the documents do not have is a scale for each row: tokens' gradients differ so much in size that few bits lose the
small ones altogether (notebook 13). Rows that were made alike before they are binned keep them, for a byte each.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splitlib.compressors.base import Header, as_bytes, from_bytes
from splitlib.compressors.edges import RULES, Bins, sampled_count
from splitlib.compressors.loops import loops
from splitlib.compressors.packing import packed_nbytes
from splitlib.compressors.quantizer import (
    RANGE_BYTES,
    Quantizer,
    level_scaling,
    level_table,
    level_values,
)
from splitlib.compressors.scales import ROW, SCALE_HELP, SCALES, TENSOR, as_scales, factors, octaves_below, rows_of
from splitlib.errors import ConfigError, PayloadError
from splitlib.options import described


@dataclass(frozen=True, kw_only=True)
class BinnedQuantization(Quantizer):
    """``2^bin_bits`` bins with ``2^level_bits`` levels each.

    The error of each value is at most half its own bin's step, up to float32 rounding; a bin of one level has no step,
    and errs by its width at most. With ``scale="row"`` each row, its largest value raised to within a quarter of an
    octave below the tensor's, is binned with the others, and its error is as much smaller as it was raised. The
    documents write Q for ``level_bits`` and S for ``bin_bits``.
    """

    level_bits: int = described(6, "bits of a level in its bin, the documents' Q")
    bin_bits: int = described(2, "bits of a bin's number, the documents' S")
    scale: str = described(TENSOR, SCALE_HELP, SCALES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level_bits < 0 or self.bin_bits < 0 or not 1 <= self.level_bits + self.bin_bits <= 16:
            raise ConfigError(
                f"level_bits {self.level_bits} + bin_bits {self.bin_bits} must come to 1 to 16 bits a code"
            )

    @property
    def parameters(self) -> tuple[int, int, int, int]:
        """Q, S and whether rows have scales."""
        return (self.level_bits, self.bin_bits, SCALES.index(self.scale), 0)

    @abstractmethod
    def bins(self, x: Tensor, low: float, high: float) -> Bins:
        """Return the ``2^bin_bits`` bins of a 1-d float32 tensor."""

    def encode_body(self, x: Tensor, low: float, high: float, body: Tensor) -> None:
        """Write the bins' minima and steps, the rows' scales and the packed codes."""
        flat, on_device = x.float().reshape(-1), loops(x.device)
        split, bits = RANGE_BYTES << self.bin_bits, self.level_bits + self.bin_bits
        codes = split
        if self.scale == ROW:
            rows = flat.reshape(rows_of(x.shape), -1)
            # Rounded down, no row is raised above the largest: nothing overflows.
            scales = as_scales(octaves_below(rows.abs().amax(1).double()).floor())
            flat = (rows / factors(scales)).float().reshape(-1)
            low, high = on_device.span(flat)
            codes += len(scales)
            body[split:codes] = scales
        begins, *ends = torch.stack(
            self.bins(flat, low, high)
        ).cpu()  # a GPU takes as long for a number as for a tensor
        table = level_table(torch.stack(ends), self.level_bits)
        body[:split] = as_bytes(table)
        on_device.write_codes(flat, begins[1:].contiguous(), level_scaling(table), self.level_bits, bits, body[codes:])

    @classmethod
    def body_nbytes(cls, header: Header) -> int:
        """A range for each bin, a byte for each row with a scale, and the codes."""
        level_bits, bin_bits, scale = header.parameters[:3]
        if not 1 <= level_bits + bin_bits <= 16 or scale >= len(SCALES):
            raise PayloadError(
                f"payload names {level_bits}+{bin_bits} bits a code, where 1 to 16 are possible, and the scale {scale}"
            )
        return cls.codes_at(header)[0] + packed_nbytes(header.numel, level_bits + bin_bits)

    @classmethod
    def codes_at(cls, header: Header) -> tuple[int, int]:
        """Behind the bins and the scales."""
        level_bits, bin_bits, scale = header.parameters[:3]
        scaled = rows_of(header.shape) if SCALES[scale] == ROW else 0
        return (RANGE_BYTES << bin_bits) + scaled, level_bits + bin_bits

    @classmethod
    def decode_body(cls, body: Tensor, header: Header) -> Tensor:
        """Look each code's value up in a table of all 2^(Q+S) values, and multiply by its row's factor."""
        (codes, bits), split = cls.codes_at(header), RANGE_BYTES << header.parameters[1]
        values = level_values(from_bytes(body[:split].cpu(), torch.float32), header.parameters[0], header.dtype)
        x = loops(body.device).read_codes(body[codes:], values, bits, header.numel)
        return x if codes == split else x.reshape(codes - split, -1) * factors(body[split:codes])


@dataclass(frozen=True, kw_only=True)
class SortQuantization(BinnedQuantization):
    """Bins by a rule over the whole tensor, ``edges``: equal_count is the documents', :data:`edges.RULES` has all."""

    code: ClassVar[int] = 3
    edges: str = described("equal_count", "where the bins lie", RULES)

    def bins(self, x: Tensor, low: float, high: float) -> Bins:
        """Apply the rule."""
        return RULES[self.edges](x, low, high, 1 << self.bin_bits, 1 << self.level_bits)


@dataclass(frozen=True, kw_only=True)
class FastQuantization(BinnedQuantization):
    """Bins of about equally many values, from a random sample of the whole tensor.

    The original took the batch's first sample for that, whose values may be unlike the others'.
    """

    code: ClassVar[int] = 4

    def bins(self, x: Tensor, low: float, high: float) -> Bins:
        """Take the sample's ranks for the tensor's."""
        return sampled_count(x, low, high, 1 << self.bin_bits, 1 << self.level_bits)
