"""Who computes what in which order while a batch's micro-batches cross the cuts: pure, no torch, no clock.

A side has *lanes*: lists of tasks, each of which runs in its own order. Whenever a side is free it takes the first lane
whose next task has what it needs. So a schedule is nothing but the lanes of both sides and their priorities, and the
result does not depend on timing: every order that matters to a bit (the additions of gradients, the statistics of batch
norm, the state of compressors) is the order within one lane.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from splitlib.timeline import CLIENT, SERVER

HEAD, BODY, TAIL = "head", "body", "tail"
HEAD_GRADIENT, BODY_GRADIENT, TAIL_GRADIENT = "head gradient", "body gradient", "tail gradient"


class Task(NamedTuple):
    """One stage's work, forward or backward, on one micro-batch."""

    work: str
    micro_batch: int


Lanes = Sequence[Sequence[Task]]


def lanes(schedule: str, side: str, chunks: int, *, training: bool = True) -> Lanes:
    """Return the lanes of ``side``, those with the highest priority first.

    ``gpipe`` (Huang et al. 2019): all micro-batches forward, then all backward, last one first, as torchgpipe does. The
    loss is taken over the whole batch, between the two. Sending forward and sending back take turns on the link.

    ``1f1b`` (Narayanan et al. 2019): a micro-batch turns back as soon as its logits are there, and the server goes back
    before it goes on. Both directions of the link are busy at once. The client first does what the server waits for:
    nobody waits for the head's gradient. Unlike the original, nothing bounds how many micro-batches are under way.

    >>> [[f"{task.work} {task.micro_batch}" for task in lane] for lane in lanes("gpipe", "server", 2)]
    [['body 0', 'body 1'], ['body gradient 1', 'body gradient 0']]
    >>> [[f"{task.work} {task.micro_batch}" for task in lane] for lane in lanes("1f1b", "server", 2)]
    [['body gradient 0', 'body gradient 1'], ['body 0', 'body 1']]
    """
    forward = range(chunks)
    if not training:
        return [_lane(forward, HEAD), _lane(forward, TAIL)] if side == CLIENT else [_lane(forward, BODY)]
    if schedule == "gpipe":
        backward = forward[::-1]
        if side == SERVER:
            return [_lane(forward, BODY), _lane(backward, BODY_GRADIENT)]
        return [
            _lane(forward, HEAD),
            _lane(forward, TAIL),
            _lane(backward, TAIL_GRADIENT),
            _lane(backward, HEAD_GRADIENT),
        ]
    if side == SERVER:
        return [_lane(forward, BODY_GRADIENT), _lane(forward, BODY)]
    return [_lane(forward, TAIL, TAIL_GRADIENT), _lane(forward, HEAD), _lane(forward, HEAD_GRADIENT)]


def _lane(order: Iterable[int], *works: str) -> list[Task]:
    """Return a lane that does all ``works`` of a micro-batch before it turns to the next."""
    return [Task(work, micro_batch) for micro_batch in order for work in works]


def order_of(schedule: str, work: str, chunks: int) -> Sequence[int]:
    """Return the order in which micro-batches go through ``work``, which is that of what is sent after it.

    >>> list(order_of("gpipe", BODY_GRADIENT, 3)), list(order_of("1f1b", BODY_GRADIENT, 3))
    ([2, 1, 0], [0, 1, 2])
    """
    backward = work in (HEAD_GRADIENT, BODY_GRADIENT, TAIL_GRADIENT)
    return range(chunks)[::-1] if backward and schedule == "gpipe" else range(chunks)


class Agenda:
    """What one side still has to do in a batch, and what of it can run now."""

    def __init__(self, lanes: Lanes, ready: Iterable[Task] = ()) -> None:
        """``ready`` tasks need nothing; all others wait until :meth:`allow`."""
        self._lanes = [list(reversed(lane)) for lane in lanes if lane]
        self._ready = set(ready)

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def allow(self, task: Task) -> None:
        """Say that ``task`` has what it needs."""
        self._ready.add(task)

    def next(self) -> Task | None:
        """Take the task to run now off the agenda, or return None: nothing can run until something arrives."""
        for lane in self._lanes:
            if lane[-1] in self._ready:
                task = lane.pop()
                self._lanes = [left for left in self._lanes if left]
                return task
        return None

    def waiting_for(self) -> Task:
        """Return the first task that cannot run yet."""
        return self._lanes[0][-1]
