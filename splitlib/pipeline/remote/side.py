"""What client and server have in common: working off an agenda while tensors come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from splitlib.pipeline.channel import Channel, Coding
from splitlib.pipeline.parts import Codecs
from splitlib.pipeline.remote.endpoint import Arrival, Endpoint
from splitlib.pipeline.remote.wire import ACTIVATION_1, ACTIVATION_2, GRADIENT_1, GRADIENT_2, Frame, check_frame
from splitlib.pipeline.schedule import BODY, BODY_GRADIENT, HEAD_GRADIENT, TAIL, Agenda, Task, order_of
from splitlib.timeline import COMPUTE, WAIT

AWAITED_BY = {ACTIVATION_1: BODY, ACTIVATION_2: TAIL, GRADIENT_2: BODY_GRADIENT, GRADIENT_1: HEAD_GRADIENT}
"""Which work needs which kind of tensor."""
Works = Mapping[str, Callable[[int], None]]


def channels_by_kind(codecs: Codecs, coding: Coding) -> dict[int, Channel]:
    """Return one side's channels at both cuts, cut by cut, activations before gradients."""
    return {
        ACTIVATION_1: coding.activations(codecs.activations[0]),
        GRADIENT_1: coding.gradients(codecs.gradients[0]),
        ACTIVATION_2: coding.activations(codecs.activations[1]),
        GRADIENT_2: coding.gradients(codecs.gradients[1]),
    }


@dataclass(frozen=True)
class Batch:
    """Which batch it is: what every frame of it says."""

    step: int
    of: int
    training: bool

    def frame(self, kind: int, micro_batch: int, uncompressed: int = 0) -> Frame:
        """Return the frame for one of its tensors."""
        return Frame(
            kind=kind,
            training=self.training,
            step=self.step,
            micro_batch=micro_batch,
            of=self.of,
            uncompressed=uncompressed,
        )


class Inbox:
    """The tensors of one batch: checks that each is the one that is due, and allows the task that waits for it."""

    def __init__(self, endpoint: Endpoint, schedule: str, batch: Batch, kinds: Sequence[int]) -> None:
        self._endpoint, self._batch = endpoint, batch
        self._due = {kind: list(order_of(schedule, AWAITED_BY[kind], batch.of))[::-1] for kind in kinds}
        self._arrived: dict[Task, Arrival] = {}

    def __getitem__(self, task: Task) -> Arrival:
        """Return what came for ``task``."""
        return self._arrived[task]

    def drain(self, agenda: Agenda) -> None:
        """Take in whatever is there."""
        while (item := self._endpoint.mailbox.poll(*self._waiting())) is not None:
            self._take_in(item, agenda)

    def wait(self, agenda: Agenda) -> None:
        """Wait for the next tensor; :meth:`Mailbox.take` has the errors."""
        task = agenda.waiting_for()
        with self._endpoint.timeline.during(WAIT, task.work, task.micro_batch):
            item = self._endpoint.mailbox.take(*self._waiting())
        self._take_in(item, agenda)

    def _waiting(self) -> Iterator[int]:
        return (kind for kind, due in self._due.items() if due)

    def _take_in(self, item: tuple[Any, Arrival], agenda: Agenda) -> None:
        kind, arrival = item
        micro_batch = self._due[kind].pop()
        check_frame(arrival.frame, self._batch.frame(kind, micro_batch))
        task = Task(AWAITED_BY[kind], micro_batch)
        self._arrived[task] = arrival
        agenda.allow(task)


def work_off(agenda: Agenda, inbox: Inbox, works: Works, endpoint: Endpoint) -> None:
    """Run every task of a batch, most urgent first, as what they need comes in.

    Raises:
        PayloadError: a tensor is damaged, or not the one that was due.
        PeerError: the other side is gone.
    """
    while agenda:
        inbox.drain(agenda)
        task = agenda.next()
        if task is None:
            inbox.wait(agenda)
            continue
        with endpoint.timeline.during(COMPUTE, task.work, task.micro_batch):
            works[task.work](task.micro_batch)
