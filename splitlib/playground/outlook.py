"""What the measured costs predict: time per batch over a link, of the choice and of the compressors beside it.

Bytes are those of payloads, as in records. What the planner counts besides, as a wire carries it, is left out: frames
(:data:`~splitlib.pipeline.remote.wire.FRAME_BYTES` for each message) and the attention mask of text, a byte a token.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from splitlib.config import RunConfig
from splitlib.pipeline.predict import Message, Prediction, Work, predict
from splitlib.pipeline.predict_rates import Seconds, gpipe_seconds
from splitlib.pipeline.remote.link import Link
from splitlib.planner.choices import largest_gain
from splitlib.playground.bench import Bench, Codec, Encoded
from splitlib.plots.timing import rate_text
from splitlib.timeline import TENSORS

SCHEDULE = "gpipe"  # what the engine in_process runs, and with it the command that is copied
RATES = tuple(float(rate) for rate in np.geomspace(1, 1e5, 11))  # Mbit/s: two to a decade
_FINE = np.geomspace(RATES[0], RATES[-1], 201)  # a rate where two lines cross is shown to two digits
NONE, CHOSEN = "none", "on screen"
_RIVALS = (
    Codec.of("none", {}),
    Codec.of("cast", {"dtype": "float16"}),
    Codec.of("uniform", {"bits": 8}),
    Codec.of("uniform", {"bits": 4}),
    Codec.of("sort", {"level_bits": 6, "bin_bits": 2, "edges": "cube_root"}),
    Codec.of("power_iteration", {"rank": 4}),
)
RIVALS: Mapping[str, Codec] = {str(codec): codec for codec in _RIVALS}
"""What the choice is compared with, by label."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One pair of compressors with what it costs: measured error and bytes, and the work they make."""

    label: str
    encoded: Mapping[str, Encoded]
    """By tensor."""
    work: Work
    chunks: int
    """Micro-batches that the batch really makes."""

    @property
    def ratio(self) -> float:
        """Bytes sent over uncompressed bytes, all cuts and directions."""
        return sum(e.nbytes for e in self.encoded.values()) / sum(e.whole for e in self.encoded.values())

    @property
    def error(self) -> float:
        """The largest squared error over variance of any tensor."""
        return max(e.error for e in self.encoded.values())

    @property
    def unequal(self) -> float | None:
        """The larger unequal gain of a text's gradients; None of images."""
        return largest_gain(e.unequal for name, e in self.encoded.items() if name.startswith("gradient"))

    def seconds(self, link: Link) -> float:
        """Return the predicted time per batch."""
        return batch(self.work, self.chunks, link).seconds


def codecs_of(config: RunConfig) -> tuple[Codec, Codec]:
    """Return what encodes activations and what encodes gradients."""
    name, options = config.effective_gradient_compressor
    return Codec.of(config.compressor, config.compressor_options), Codec.of(name, options)


def candidate(bench: Bench, config: RunConfig, label: str, activations: Codec, gradients: Codec) -> Candidate:
    """Measure what is not measured yet of one pair of compressors, and put their costs together."""
    passes = bench.stage_times(config)
    encoded = {name: bench.encoded(config, name, activations if name[0] == "a" else gradients) for name in TENSORS}
    messages: dict[str, Any] = {name.replace(" ", "_"): _message(one) for name, one in encoded.items()}
    chunks = len(encoded[TENSORS[0]].payloads)
    return Candidate(label=label, encoded=encoded, work=dataclasses.replace(passes, **messages), chunks=chunks)


def chosen(bench: Bench, config: RunConfig) -> Candidate:
    """Return the candidate that the controls show."""
    return candidate(bench, config, CHOSEN, *codecs_of(config))


def compared(bench: Bench, config: RunConfig) -> list[Candidate]:
    """Return what is on screen, then the usual compressors."""
    rivals = [candidate(bench, config, label, codec, codec) for label, codec in RIVALS.items()]
    return [chosen(bench, config), *rivals]


def _message(encoded: Encoded) -> Message:
    mean = round(encoded.nbytes / len(encoded.payloads))
    return Message(nbytes=mean, encode=encoded.encode, decode=encoded.decode)


@lru_cache(maxsize=64)
def batch(work: Work, chunks: int, link: Link) -> Prediction:
    """Return the predicted batch with its spans."""
    return predict(work, chunks=chunks, link=link, schedule=SCHEDULE)


@lru_cache(maxsize=256)
def by_rate(work: Work, chunks: int, latency_ms: float) -> Seconds:
    """Return the predicted time per batch at the rates where crossings are looked for."""
    return gpipe_seconds(work, chunks=chunks, mbit=_FINE, latency_ms=latency_ms)


def times(candidates: Sequence[Candidate], latency_ms: float) -> dict[str, list[float]]:
    """Return seconds per batch at each of :data:`RATES`, by label."""
    step = len(_FINE) // (len(RATES) - 1)
    return {each.label: by_rate(each.work, each.chunks, latency_ms)[::step].tolist() for each in candidates}


def pays(one: Candidate, none: Candidate, latency_ms: float) -> list[tuple[float, float]]:
    """Return from which link rate to which, in Mbit/s, ``one`` takes less time than ``none``.

    At a link's slow end bytes decide, at its fast end the codec's own time does. Times are sums of the work and of
    bytes over the rate, so between two neighbouring rates the gain is taken as straight over the rate's inverse.
    """
    gains = by_rate(none.work, none.chunks, latency_ms) - by_rate(one.work, one.chunks, latency_ms)
    ends = [RATES[0]] if gains[0] > 0 else []
    for place in np.flatnonzero((gains[:-1] > 0) != (gains[1:] > 0)):
        share = gains[place] / (gains[place] - gains[place + 1])
        low, high = 1 / _FINE[place], 1 / _FINE[place + 1]
        ends.append(float(1 / (low + share * (high - low))))
    ends += [RATES[-1]] if gains[-1] > 0 else []
    return list(zip(ends[::2], ends[1::2], strict=True))


def in_words(spans: Sequence[tuple[float, float]]) -> str:
    """Return the rates of :func:`pays` in words."""
    return ", ".join(_span(*span) for span in spans) or "nowhere"


def _span(low: float, high: float) -> str:
    if low == RATES[0] and high == RATES[-1]:
        return f"at every rate, {rate_text(low)} to {rate_text(high)}"
    if low == RATES[0]:
        return f"up to {rate_text(high)}"
    return f"from {rate_text(low)}" if high == RATES[-1] else f"{rate_text(low)} to {rate_text(high)}"
