"""When each side of a pipeline did what: the spans of one batch, measured or simulated."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

CLIENT, SERVER = "client", "server"
TENSORS = ("activation 1", "gradient 1", "activation 2", "gradient 2")
"""What crosses the cuts, as spans name it: cut by cut, activations before gradients."""
COMPUTE, ENCODE, SEND, DECODE, WAIT = ACTIVITIES = ("compute", "encode", "send", "decode", "wait")


@dataclass(frozen=True, kw_only=True)
class Span:
    """One thing that one side did."""

    side: str
    """``client`` or ``server``; a stage's name where all run in one process."""
    activity: str
    """One of :data:`ACTIVITIES`. A send lasts until the last byte has left."""
    what: str
    """What was computed or sent, such as ``head``, ``tail gradient``."""
    micro_batch: int
    start: float
    """Seconds; only differences mean something."""
    end: float
    nbytes: int = 0
    """Bytes of the message, where one was sent."""


@dataclass
class Timeline:
    """Collects spans from several threads."""

    side: str
    spans: list[Span] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def during(self, activity: str, what: str, micro_batch: int) -> Iterator[None]:
        """Note how long the block takes."""
        start = time.perf_counter()
        yield
        self.add(activity, what, micro_batch, start, time.perf_counter())

    def add(self, activity: str, what: str, micro_batch: int, start: float, end: float, nbytes: int = 0) -> None:
        """Note what was timed elsewhere."""
        span = Span(
            side=self.side, activity=activity, what=what, micro_batch=micro_batch, start=start, end=end, nbytes=nbytes
        )
        with self._lock:
            self.spans.append(span)

    def forget_before(self, moment: float) -> None:
        """Forget what began before ``moment`` (``perf_counter``)."""
        with self._lock:
            self.spans = [span for span in self.spans if span.start >= moment]

    def take(self) -> list[Span]:
        """Return the spans since the last call, by start, and forget them."""
        with self._lock:
            taken, self.spans = self.spans, []
        return sorted(taken, key=lambda span: span.start)


def with_waits(spans: Iterable[Span], *, until: float = -math.inf) -> list[Span]:
    """Return ``spans`` by start, with a ``wait`` wherever a side does not compute between first and last.

    A wait is named after what it waits for; at a side's end, after what the other side still does. The last one ends
    with the last span, or at ``until`` where that is later.
    """
    spans = sorted(spans, key=lambda span: (span.start, span.end))
    waits = [wait for side in dict.fromkeys(span.side for span in spans) for wait in _gaps(spans, side, until)]
    return sorted([*spans, *waits], key=lambda span: (span.start, span.end))


def _gaps(spans: list[Span], side: str, until: float) -> Iterator[Span]:
    free, last = spans[0].start, max(spans, key=lambda span: span.end)
    working = [span for span in spans if span.side == side and span.activity == COMPUTE]
    for span in [*working, replace(last, start=max(last.end, until))]:
        if span.start > free:
            yield replace(span, side=side, activity=WAIT, start=free, end=span.start, nbytes=0)
        free = max(free, span.end)
