"""One side's end of the connection: encodes and sends, receives and decodes, all while the main thread computes."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from splitlib.pipeline.channel import Channel, Coding, Place
from splitlib.pipeline.remote.link import Link, Pace, sleep_until
from splitlib.pipeline.remote.mailbox import Mailbox
from splitlib.pipeline.remote.transport import Transport
from splitlib.pipeline.remote.wire import KINDS, URGENT, Frame, encode_frame, read_frame, read_payload
from splitlib.timeline import DECODE, ENCODE, SEND, Timeline

_CLOSING_SECONDS = 2.0


@dataclass
class Count:
    """What one kind of tensor has cost in training, in bytes."""

    payload: int = 0
    """Payloads, as the record counts them."""
    wire: int = 0
    """Whole messages: payloads, frames, and masks beside them."""
    uncompressed: int = 0

    def add(self, frame: Frame) -> None:
        """Count one message."""
        self.payload += frame.payload_nbytes
        self.wire += frame.nbytes
        self.uncompressed += frame.uncompressed


@dataclass(frozen=True)
class Arrival:
    """A decoded tensor with what its frame says."""

    frame: Frame
    tensor: Tensor
    beside: tuple[Tensor, ...]


_Run = Callable[[], None]


@dataclass(order=True)
class _Job:
    """What waits to be encoded: what is urgent first, then in order."""

    later: bool
    number: int
    run: _Run | None = field(compare=False)


class Endpoint:
    """Threads around a transport: one encodes; for each kind of message, one sends, or one receives and decodes.

    Within a kind everything stays in order, so compressors that learn meet the tensors in the schedule's order.
    """

    def __init__(
        self,
        transport: Transport,
        mailbox: Mailbox,
        *,
        channels: Mapping[int, Channel],
        sends: Sequence[int],
        receives: Sequence[int],
        coding: Coding,
        timeline: Timeline,
        device: torch.device,
        link: Link,
    ) -> None:
        """``channels`` are this side's, for each kind of message that it sends or receives."""
        self.transport, self.mailbox, self.channels, self.timeline = transport, mailbox, channels, timeline
        self.coding, self._sent_kinds = coding, sends
        self._masks: dict[tuple[int, bool, int], Tensor] = {}
        """By step, mode and micro-batch; the mask comes with the first tensor of it that crosses."""
        self.device, self.link, self._pace = device, link, Pace(link)
        self.counts = {kind: Count() for kind in (*sends, *receives)}
        self._encodes = queue.PriorityQueue[_Job]()
        self._numbers = itertools.count()
        self._sends = {kind: queue.SimpleQueue[_Run | None]() for kind in sends}
        self._delayed = queue.SimpleQueue[_Run | None]()
        self._unsent: Counter[int] = Counter()
        self._all_sent = threading.Condition()
        self._threads: list[threading.Thread] = []
        for take in (self._next_encode, self._delayed.get, *(jobs.get for jobs in self._sends.values())):
            self._start(self._work, take)
        for kind in receives:
            self._start(self._receive, kind)

    def _start(self, target: Callable[..., None], argument: object) -> None:
        thread = threading.Thread(target=self._guarded, args=(target, argument), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guarded(self, target: Callable[..., None], argument: object) -> None:
        """Whatever goes wrong in a thread is the main thread's to hear."""
        try:
            target(argument)
        except Exception as error:
            self.mailbox.fail(error)

    def _work(self, take: Callable[[], _Run | None]) -> None:
        """Do what comes until None does."""
        while (run := take()) is not None:
            run()

    def _next_encode(self) -> _Run | None:
        return self._encodes.get().run

    # --- Sending ---

    def send(self, frame: Frame, x: Tensor, beside: Sequence[Tensor] = ()) -> None:
        """Encode and send ``x`` soon; nobody may change it."""
        with self._all_sent:
            self._unsent[frame.kind] += 1
        later = frame.kind not in URGENT
        self._encodes.put(_Job(later, next(self._numbers), lambda: self._encode(frame, x.detach(), beside)))

    def _encode(self, frame: Frame, x: Tensor, beside: Sequence[Tensor]) -> None:
        with self.timeline.during(ENCODE, KINDS[frame.kind], frame.micro_batch):
            encode = partial(self.channels[frame.kind].send, place=self._place(frame, beside))
            frame, message = encode_frame(encode, x, frame, beside)
        queued = time.perf_counter()
        self._sends[frame.kind].put(lambda: self._send(frame, message, queued))

    def _send(self, frame: Frame, message: Tensor, queued: float) -> None:
        """Put a message on the link. A shaped link is busy for as long as the rate says; another thread delivers."""
        nbytes = message.numel()
        if self.link.shaped:
            # By the link's own clock: a thread that overslept would seem to send its next message faster than the link.
            start, end = self._pace.leave(nbytes, queued, urgent=frame.kind in URGENT)
            arrives = end + 1e-3 * self.link.latency_ms
            self._delayed.put(lambda: self._deliver(frame, message, arrives))
        else:
            start = time.perf_counter()
            self._deliver(frame, message, start)
            end = time.perf_counter()
        self.timeline.add(SEND, KINDS[frame.kind], frame.micro_batch, start, end, nbytes=nbytes)

    def _deliver(self, frame: Frame, message: Tensor, moment: float) -> None:
        sleep_until(moment)
        self.transport.send(frame.kind, message)
        with self._all_sent:
            if frame.training:
                self.counts[frame.kind].add(frame)
            self._unsent[frame.kind] -= 1
            self._all_sent.notify_all()

    def flush(self) -> None:
        """Wait until everything is sent."""
        with self._all_sent:
            while not self._all_sent.wait_for(lambda: not self._unsent.total(), timeout=0.2):
                self.mailbox.check()

    # --- Receiving ---

    def _receive(self, kind: int) -> None:
        for message in self.transport.messages(kind):
            frame = read_frame(message)
            with self.timeline.during(DECODE, KINDS[frame.kind], frame.micro_batch):
                payload, beside = read_payload(frame, message, self.device)
                tensor = self.channels[kind].receive(payload, self._place(frame, beside))
            if frame.training:
                self.counts[kind].add(frame)
            self.mailbox.put(kind, Arrival(frame, tensor, beside))

    def _place(self, frame: Frame, beside: Sequence[Tensor]) -> Place:
        key = (frame.step, frame.training, frame.micro_batch)
        if beside:
            # A client that waits for no gradient is a batch ahead, and its kinds of tensors overtake each other.
            for old in [old for old in self._masks if old[0] < frame.step - 1]:
                del self._masks[old]
            self._masks[key] = beside[0]
        mask = self._masks.get(key)
        return self.coding.place(frame.step, frame.micro_batch, mask=mask, training=frame.training)

    def close(self) -> None:
        """Let go of the connection and end the threads; those that wait for a silent peer are left behind."""
        self._encodes.put(_Job(False, -1, None))
        for jobs in (self._delayed, *self._sends.values()):
            jobs.put(None)
        self.transport.close(self._sent_kinds)
        deadline = time.monotonic() + _CLOSING_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
