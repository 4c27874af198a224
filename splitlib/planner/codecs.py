"""What compressors cost on one tensor: bytes and losses, which are exact, and times, which are measured in turn."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Sequence

from torch import Tensor

from splitlib.compressors import after, relative_error, unequal_gain
from splitlib.pipeline.remote.wire import ACTIVATION_1, Frame, decode_frame, encode_frame
from splitlib.planner.candidates import codec
from splitlib.planner.costs import CodecCost
from splitlib.runtime import timed

WARMUP = 2


def in_turn(specs: Sequence[str], x: Tensor, repeats: int, before: Sequence[Tensor] = ()) -> list[CodecCost]:
    """Return the costs of compressors on one tensor, as an engine would send it, measured in turn.

    Each encodes it as often, and every time as if for the first time: one that learns has learnt from ``before``, what
    crossed there in the micro-batches before, and never from the tensor itself.
    """
    codecs = [after(codec(spec), before) for spec in specs]
    encode: list[list[float]] = [[] for _ in codecs]
    decode: list[list[float]] = [[] for _ in codecs]
    nbytes, errors = [0] * len(codecs), [0.0] * len(codecs)
    gains: list[float | None] = [None] * len(codecs)
    for number in range(WARMUP + repeats):
        for place, each in enumerate(codecs):
            (frame, message), seconds = timed(
                encode_frame, copy.copy(each).encode, x.detach(), Frame(kind=ACTIVATION_1)
            )
            (back, _), later = timed(decode_frame, frame, message, x.device)
            if number >= WARMUP:
                encode[place].append(seconds)
                decode[place].append(later)
            nbytes[place], errors[place], gains[place] = message.numel(), relative_error(x, back), tokens_gain(x, back)
    medians = ([statistics.median(each) for each in column] for column in (encode, decode))
    return [
        CodecCost(nbytes=n, encode=e, decode=d, error=error, unequal=unequal)
        for n, e, d, error, unequal in zip(nbytes, *medians, errors, gains, strict=True)
    ]


def tokens_gain(x: Tensor, arrived: Tensor) -> float | None:
    """Return the :func:`unequal_gain` of a text's tokens [B, T, W], 1 where nothing arrives; None of other tensors."""
    if x.ndim != 3:
        return None
    gain = unequal_gain(x, arrived)
    return 1.0 if math.isnan(gain) else gain
