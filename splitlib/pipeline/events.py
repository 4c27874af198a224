"""A simulation by events: operations that need each other, and workers that do one at a time in order of rank."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from splitlib.timeline import COMPUTE, Span


@dataclass(eq=False)
class Operation:
    """Something one worker has to do, after others."""

    span: Span
    """Who does what; its start and end are not known yet."""
    worker: tuple[str, str]
    """Side and what this worker is for."""
    seconds: float
    rank: tuple[int, int]
    """Among what is ready, the lowest goes first; of equals, what was ready first."""
    after: Sequence[Operation] = ()
    yields: bool = False
    """Whether what has a lower first rank interrupts it; it goes on afterwards."""
    delay: float = 0.0
    """From its end until others may use what it made: the link's latency."""
    ready_at: float = 0.0
    """When all it needs is there; meaningful once it is."""
    started: float | None = None
    """When it was first begun."""
    _waiting: list[Operation] = field(default_factory=list)
    _missing: int = 0

    def __post_init__(self) -> None:
        self._missing = len(self.after)
        for earlier in self.after:
            earlier._waiting.append(self)

    def free(self, now: float) -> list[Operation]:
        """Return the operations that only waited for this one, which ends ``now``."""
        for later in self._waiting:
            later._missing -= 1
            later.ready_at = max(later.ready_at, now + self.delay)
        return [later for later in self._waiting if not later._missing]


@dataclass(eq=False)
class _Worker:
    name: tuple[str, str]
    queue: list[tuple[tuple[int, int], int, Operation]] = field(default_factory=list)
    doing: tuple[tuple[int, int], int, Operation] | None = None
    """What it took from the queue, ..."""
    end: float = 0.0
    """... and when that will be done."""

    def interrupt(self, now: float) -> None:
        """Put back what yields to the first in the queue."""
        if self.doing and self.queue and self.doing[2].yields and self.queue[0][0][0] < self.doing[0][0]:
            self.doing[2].seconds = self.end - now
            heapq.heappush(self.queue, self.doing)
            self.doing = None

    def take(self, now: float) -> Operation | None:
        """Begin with the first in the queue and return it, or None where there is nothing or no time."""
        if self.doing or not self.queue:
            return None
        self.doing = heapq.heappop(self.queue)
        operation = self.doing[2]
        self.end = now + operation.seconds
        operation.started = now if operation.started is None else operation.started
        return operation


def simulate(operations: list[Operation]) -> Iterator[Span]:
    """Yield what was done, as it ends: each worker always takes the lowest rank of what is ready."""
    workers = [_Worker(name) for name in dict.fromkeys(operation.worker for operation in operations)]
    # Computation last: what takes no time is over, and what it makes ready is ranked, before a pass is chosen.
    workers.sort(key=lambda worker: worker.name[1] == COMPUTE)
    by_name = {worker.name: worker for worker in workers}
    tie = count()  # of equals, what came first
    events = [(0.0, next(tie), operation) for operation in operations if not operation.after]
    while events:
        now = events[0][0]
        while events and events[0][0] == now:
            _, number, operation = heapq.heappop(events)
            worker = by_name[operation.worker]
            if operation.started is None:
                heapq.heappush(worker.queue, (operation.rank, number, operation))
            elif worker.doing and worker.doing[2] is operation and worker.end == now:  # else it was interrupted
                worker.doing = None
                yield replace(operation.span, start=operation.started, end=now)
                for later in operation.free(now):
                    heapq.heappush(events, (later.ready_at, next(tie), later))
        for worker in workers:
            if events and events[0][0] == now:
                break
            worker.interrupt(now)
            if (taken := worker.take(now)) is not None:
                heapq.heappush(events, (worker.end, next(tie), taken))
