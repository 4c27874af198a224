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
    delay: float = 0.0
    """From its end until others may use what it made: the link's latency."""
    ready_at: float = 0.0
    """When all it needs is there; meaningful once it is."""
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
    doing: Operation | None = None


def simulate(operations: list[Operation]) -> Iterator[Span]:
    """Yield what was done, as it starts: each worker always takes the lowest rank of what is ready."""
    workers = [_Worker(name) for name in dict.fromkeys(operation.worker for operation in operations)]
    # Computation last: what takes no time is over, and what it makes ready is ranked, before a pass is chosen.
    workers.sort(key=lambda worker: worker.name[1] == COMPUTE)
    by_name = {worker.name: worker for worker in workers}
    tie = count()  # of equals, what came first
    events = [(0.0, next(tie), operation) for operation in operations if not operation.after]
    while events:
        now = events[0][0]
        while events and events[0][0] == now:
            _, _, operation = heapq.heappop(events)
            worker = by_name[operation.worker]
            if worker.doing is operation:
                worker.doing = None
                for later in operation.free(now):
                    heapq.heappush(events, (later.ready_at, next(tie), later))
            else:
                heapq.heappush(worker.queue, (operation.rank, next(tie), operation))
        for worker in workers:
            if events and events[0][0] == now:
                break
            if worker.queue and worker.doing is None:
                _, _, operation = heapq.heappop(worker.queue)
                worker.doing = operation
                end = now + operation.seconds
                heapq.heappush(events, (end, next(tie), operation))
                yield replace(operation.span, start=now, end=end)
