"""Predicted time of one batch at many rates of a link at once: under ``gpipe``, ``predict`` as sums and maxima.

With that schedule every worker has one order, whatever the link: all micro-batches go forward one behind the other,
then all back. So a batch is a line of stations, each taking as long for every micro-batch, and the links can be the
columns of an array. ``predict`` takes a simulation for each link, and tells besides who did what when.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splitlib.errors import ConfigError
from splitlib.pipeline.predict import Message, Work
from splitlib.timeline import CLIENT, COMPUTE, DECODE, ENCODE, SEND, SERVER

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class _Station:
    """What each micro-batch passes: a worker, for so many seconds (by link), and so many more until the next."""

    worker: tuple[str, str]
    seconds: Seconds | float
    delay: float = 0.0


def gpipe_seconds(work: Work, *, chunks: int, mbit: Seconds, latency_ms: float = 0.0) -> Seconds:
    """Return the seconds per batch at each of the rates; with its link, ``predict(...).seconds`` is the same.

    Args:
        work: what each micro-batch costs.
        chunks: micro-batches a batch is cut into.
        mbit: rates of the link, Mbit/s in each direction, [links].
        latency_ms: of all of them, one way.

    Raises:
        ConfigError: there are no micro-batches.
    """
    if chunks < 1:
        raise ConfigError(f"chunks must be at least 1, not {chunks}")

    def cross(sender: str, receiver: str, message: Message) -> Iterator[_Station]:
        yield _Station((sender, ENCODE), message.encode)
        yield _Station((sender, SEND), 8 * message.nbytes / (1e6 * mbit), latency_ms / 1e3)
        yield _Station((receiver, DECODE), message.decode)

    free: defaultdict[tuple[str, str], Seconds] = defaultdict(lambda: np.zeros_like(mbit))
    start = np.zeros((chunks, len(mbit)))
    forward = [
        _Station((CLIENT, COMPUTE), work.head_forward),
        *cross(CLIENT, SERVER, work.activation_1),
        _Station((SERVER, COMPUTE), work.body_forward),
        *cross(SERVER, CLIENT, work.activation_2),
        _Station((CLIENT, COMPUTE), work.tail_forward),
    ]
    logits = _through(forward, start, free)
    backward = [_Station((CLIENT, COMPUTE), work.tail_backward)]
    if work.gradient_2:  # else nothing before the cut trains
        backward += [*cross(CLIENT, SERVER, work.gradient_2), _Station((SERVER, COMPUTE), work.body_backward)]
    if work.gradient_1:
        backward += [*cross(SERVER, CLIENT, work.gradient_1), _Station((CLIENT, COMPUTE), work.head_backward)]
    _through(backward, np.broadcast_to(logits[-1], start.shape), free)
    client, server = (free[side, COMPUTE] for side in (CLIENT, SERVER))
    ends: Seconds = np.maximum(client + work.client_optimizer, server + work.server_optimizer)
    return ends


def _through(stations: list[_Station], ready: Seconds, free: defaultdict[tuple[str, str], Seconds]) -> Seconds:
    """Return when each micro-batch [chunks, links] has passed all stations; ``free`` is when each worker is, by link.

    The k-th to pass ends at the latest of: any earlier one's readiness, and the times of all from that one to it.
    """
    places = np.arange(len(ready))[:, None]
    for station in stations:
        started = np.maximum(ready, free[station.worker]) - places * station.seconds
        ends = np.maximum.accumulate(started, axis=0) + (places + 1) * station.seconds
        free[station.worker], ready = ends[-1], ends + station.delay
    return ready
