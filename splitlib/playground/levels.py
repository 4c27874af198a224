"""Where a payload's quantizer has its bins and levels, read from the payload itself."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from splitlib.compressors import Payload
from splitlib.compressors.base import from_bytes, whole_body
from splitlib.compressors.quantizer import RANGE_BYTES, level_values
from splitlib.compressors.sort import BinnedQuantization, FastQuantization, SortQuantization
from splitlib.compressors.uniform import UniformQuantization

MOST_LEVELS = 1024  # more would be a solid bar
_BINNED: dict[int, type[BinnedQuantization]] = {one.code: one for one in (SortQuantization, FastQuantization)}
Values = NDArray[np.floating]
_NOTHING: Values = np.empty(0)


def edges_and_levels(payload: Payload) -> tuple[Values, Values]:
    """Return where bins begin, with the last one's end, and every value that can be sent.

    Both are empty for codecs without levels and where blocks or rows have their own; levels are empty when there are
    more than :data:`MOST_LEVELS`.
    """
    header = payload.header
    binned = header.codec in _BINNED and not header.parameters[2]
    whole = header.codec == UniformQuantization.code and not header.parameters[1]
    if header.raw or not header.numel or not (binned or whole):
        return _NOTHING, _NOTHING
    level_bits, bins = (header.parameters[0], 1 << header.parameters[1]) if binned else (header.parameters[0], 1)
    body = whole_body(header, payload.body) if header.zstd else payload.body  # in context, the table stands as it is
    table = from_bytes(body[: RANGE_BYTES * bins], torch.float32).reshape(2, bins)
    values = level_values(table, level_bits, header.dtype).reshape(bins, -1)
    edges = np.unique(np.append(table[0].numpy(), values.max()))
    levels = np.unique(values.numpy())
    return edges, levels if len(levels) <= MOST_LEVELS else _NOTHING
