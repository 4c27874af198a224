"""What encodes a tensor at a cut: ``encode(x) -> Payload`` and ``decode(payload) -> Tensor``.

>>> import torch
>>> codec = make_compressor("sort", level_bits=6, bin_bits=2)
>>> payload = codec.encode(torch.linspace(0, 1, 1000))
>>> round(payload.nbytes / 4000, 2)  # of float32
0.27
>>> decode(payload).shape
torch.Size([1000])
"""

from splitlib.compressors.base import HEADER_BYTES, Compressor, Payload, decode
from splitlib.compressors.cast import Cast, Identity
from splitlib.compressors.deadzone import DeadZone
from splitlib.compressors.error import relative_error, spread, unequal_gain
from splitlib.compressors.learning import BEFORE, after, others_before
from splitlib.compressors.lowrank import PowerIteration
from splitlib.compressors.per_cut import make_compressors
from splitlib.compressors.registry import COMPRESSORS, compressor_options, make_compressor
from splitlib.compressors.sort import FastQuantization, SortQuantization
from splitlib.compressors.topk import TopK
from splitlib.compressors.uniform import UniformQuantization

__all__ = [
    "BEFORE",
    "COMPRESSORS",
    "HEADER_BYTES",
    "Cast",
    "Compressor",
    "DeadZone",
    "FastQuantization",
    "Identity",
    "Payload",
    "PowerIteration",
    "SortQuantization",
    "TopK",
    "UniformQuantization",
    "after",
    "compressor_options",
    "decode",
    "make_compressor",
    "make_compressors",
    "others_before",
    "relative_error",
    "spread",
    "unequal_gain",
]
