"""What the measured costs predict: time per batch over a link, of the choice and of the compressors beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from splitlib.config import RunConfig
from splitlib.pipeline.predict import LinkModel, Message, Prediction, Work, predict
from splitlib.playground.bench import Bench, Codec, Encoded
from splitlib.plots.timing import rate_text

SCHEDULE = "gpipe"  # what the engine in_process runs, and with it the command that is copied
RATES = tuple(float(rate) for rate in np.geomspace(1, 1e5, 11))  # Mbit/s: two to a decade
_STEPS = 3  # towards a crossing; the rate is shown to two digits
NONE, CHOSEN = "none", "on screen"
TENSORS = ("activation 1", "gradient 1", "activation 2", "gradient 2")
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
    def worst(self) -> float:
        """The largest squared error over variance of any tensor."""
        return max(e.error for e in self.encoded.values())

    def seconds(self, link: LinkModel) -> float:
        """Return the predicted time per batch."""
        return seconds(self.work, self.chunks, link)


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


@lru_cache(maxsize=4096)
def seconds(work: Work, chunks: int, link: LinkModel) -> float:
    """Return the predicted time per batch."""
    return batch(work, chunks, link).seconds


@lru_cache(maxsize=64)
def batch(work: Work, chunks: int, link: LinkModel) -> Prediction:
    """Return the predicted batch with its spans."""
    return predict(work, chunks=chunks, link=link, schedule=SCHEDULE)


def times(candidates: Sequence[Candidate], latency_ms: float) -> dict[str, list[float]]:
    """Return seconds per batch at each of :data:`RATES`, by label."""
    links = [LinkModel.symmetric(rate, latency_ms) for rate in RATES]
    return {each.label: [each.seconds(link) for link in links] for each in candidates}


def crossings(one: Candidate, other: Candidate, latency_ms: float) -> list[float]:
    """Return the rates in Mbit/s at which two candidates take equally long."""
    links = [LinkModel.symmetric(rate, latency_ms) for rate in RATES]
    gains = [one.seconds(link) - other.seconds(link) for link in links]
    found = []
    for ends, (first, second) in zip(pairwise(RATES), pairwise(gains), strict=True):
        if (first > 0) != (second > 0):
            found.append(_between(one, other, ends, (first, second), latency_ms))
    return found


def _between(
    one: Candidate, other: Candidate, ends: tuple[float, float], gains: tuple[float, float], latency_ms: float
) -> float:
    """Return the rate between ``ends`` where the gain is 0, by false position on the logarithm, as Illinois does it."""
    (low, high), (below, above) = ends, gains
    rate = low
    for _ in range(_STEPS):
        share = below / (below - above)
        rate = float(low * (high / low) ** share)
        link = LinkModel.symmetric(rate, latency_ms)
        gain = one.seconds(link) - other.seconds(link)
        if (gain > 0) == (below > 0):
            low, below, above = rate, gain, above / 2
        else:
            high, above, below = rate, gain, below / 2
        if not gain:
            break
    return rate


def pays(one: Candidate, none: Candidate, latency_ms: float) -> list[tuple[float, float]]:
    """Return from which link rate to which, in Mbit/s, ``one`` takes less time than ``none``.

    At a link's slow end bytes decide, at its fast end the codec's own time does.
    """
    ends = [RATES[0], *crossings(one, none, latency_ms), RATES[-1]]
    spans = []
    for low, high in pairwise(ends):
        middle = LinkModel.symmetric((low * high) ** 0.5, latency_ms)
        if one.seconds(middle) < none.seconds(middle):
            spans.append((low, high))
    return spans


def in_words(spans: Sequence[tuple[float, float]]) -> str:
    """Return the rates of :func:`pays` in words."""
    return ", ".join(_span(*span) for span in spans) or "nowhere"


def _span(low: float, high: float) -> str:
    if low == RATES[0] and high == RATES[-1]:
        return f"at every rate, {rate_text(low)} to {rate_text(high)}"
    if low == RATES[0]:
        return f"up to {rate_text(high)}"
    return f"from {rate_text(low)}" if high == RATES[-1] else f"{rate_text(low)} to {rate_text(high)}"
