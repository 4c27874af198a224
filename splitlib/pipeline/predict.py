"""Predicted time of one batch between client and server: a simulation of who does what when, without any model.

Each side has four workers that go one thing after the other: one computes, one encodes, one sends, one decodes. What is
ready waits for its worker. Computing goes by the lanes of :mod:`splitlib.pipeline.schedule`, as in the engines. Only
what is being sent is ever interrupted: what crosses cut 2 goes before what crosses cut 1, since it brings work for the
other direction sooner.

    client   head forward                   tail forward, tail backward                   head backward   optimizer
                  activation 1 v       ^ activation 2         gradient 2 v        ^ gradient 1
    server                     body forward                        body backward   optimizer

What it assumes: micro-batches of equal size; full duplex, in each direction one message after the other; encoding and
decoding in threads beside the computation; no other use of the cores, so it does not describe both sides sharing one
machine that is too small for them.

Each worker starts whatever is ready, so a schedule that ranks by what has arrived can have Graham's anomalies (1969): a
slightly faster link may reorder the work and cost a little. ``gpipe`` has one order and none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import chain, pairwise

from splitlib.config.choices import SCHEDULES
from splitlib.errors import ConfigError
from splitlib.pipeline.events import Operation, simulate
from splitlib.pipeline.remote.link import Link
from splitlib.pipeline.schedule import (
    BODY,
    BODY_GRADIENT,
    HEAD,
    HEAD_GRADIENT,
    TAIL,
    TAIL_GRADIENT,
    Task,
    lanes,
    order_of,
)
from splitlib.timeline import CLIENT, COMPUTE, DECODE, ENCODE, SEND, SERVER, TENSORS, Span, with_waits

# What the two sides compute, as in their measured timelines, and the field of Work that says how long.
PASSES = {
    HEAD: "head_forward",
    BODY: "body_forward",
    TAIL: "tail_forward",
    TAIL_GRADIENT: "tail_backward",
    BODY_GRADIENT: "body_backward",
    HEAD_GRADIENT: "head_backward",
}
OPTIMIZER = "optimizer"
MESSAGES = tuple(name.replace(" ", "_") for name in TENSORS)
"""The fields of Work that say what crosses, in the order of ``Engine.channels()``."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """What one micro-batch sends over one cut in one direction."""

    nbytes: int
    encode: float = 0.0
    """Seconds on the sending side."""
    decode: float = 0.0
    """Seconds on the receiving side."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one micro-batch costs: seconds of each pass and its four messages; the optimizers' are a whole batch's."""

    head_forward: float
    head_backward: float
    body_forward: float
    body_backward: float
    tail_forward: float
    """With the loss."""
    tail_backward: float
    activation_1: Message
    """Head to body."""
    activation_2: Message
    """Body to tail."""
    gradient_2: Message | None
    """Tail to body; None where nothing before cut 2 trains: no gradient is sent, and none is waited for."""
    gradient_1: Message | None
    """Body to head; None where the head does not train, as with LoRA behind the embeddings."""
    client_optimizer: float = 0.0
    server_optimizer: float = 0.0

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            numbers = (value.nbytes, value.encode, value.decode) if isinstance(value, Message) else (value or 0,)
            if not all(0 <= number < math.inf for number in numbers):
                raise ConfigError(f"{f.name} must be made of numbers from 0, not {value}")
        if self.gradient_1 is None and self.head_backward:
            raise ConfigError("head_backward must be 0 without gradient_1: the head does not train")
        if self.gradient_2 is None and (self.gradient_1 or self.body_backward or self.server_optimizer):
            raise ConfigError(
                "without gradient_2 the body does not train: no gradient_1, and no seconds for going back"
            )

    def nbytes(self, *names: str) -> int:
        """Return the bytes of one micro-batch in messages: ``activation_1`` ...; those that are not sent have none."""
        messages: list[Message | None] = [getattr(self, name) for name in names]
        return sum(message.nbytes for message in messages if message)

    def client_compute(self, chunks: int) -> float:
        """Return the seconds the client computes in one batch."""
        passes = self.head_forward + self.head_backward + self.tail_forward + self.tail_backward
        return chunks * passes + self.client_optimizer

    def server_compute(self, chunks: int) -> float:
        """Return the seconds the server computes in one batch."""
        return chunks * (self.body_forward + self.body_backward) + self.server_optimizer


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One simulated batch, from time 0."""

    spans: tuple[Span, ...]
    """By start; ``wait`` is where a side computes nothing, its bubble."""
    seconds: float
    """From the first head forward until both sides' optimizers are done."""
    ideal: float
    """Seconds that no schedule can beat: the busier side's computation, or the bytes of the busier direction."""


def predict(work: Work, *, chunks: int, link: Link, schedule: str = "1f1b") -> Prediction:
    """Simulate one batch.

    Args:
        work: what each micro-batch costs.
        chunks: micro-batches a batch is cut into.
        link: between client and server.
        schedule: ``gpipe``: all forward passes, micro-batch 0 first, then all backward passes, the last one first.
            ``1f1b``: a micro-batch's backward pass as soon as its logits are there, always micro-batch 0 first.

    >>> none = Message(nbytes=0)
    >>> work = Work(
    ...     head_forward=1, body_forward=2, tail_forward=1, tail_backward=1, body_backward=4, head_backward=2,
    ...     activation_1=Message(nbytes=10**6), activation_2=none, gradient_2=none, gradient_1=none,
    ... )
    >>> predict(work, chunks=1, link=Link(rate_mbit=8)).seconds
    12.0

    Raises:
        ConfigError: the schedule is unknown or there are no micro-batches.
    """
    if schedule not in SCHEDULES:
        raise ConfigError(f"unknown schedule {schedule!r}; choose from {', '.join(SCHEDULES)}")
    if chunks < 1:
        raise ConfigError(f"chunks must be at least 1, not {chunks}")
    plan = _Plan(work, chunks, link, schedule)
    plan.build()
    done = list(simulate(plan.operations))
    seconds = max(span.end for span in done)  # of all: what takes no time may have waited for a message
    spans = [span for span in done if span.end > span.start or span.activity == SEND]
    return Prediction(
        spans=tuple(with_waits(spans, until=seconds)),
        seconds=seconds,
        ideal=ideal_seconds(work, chunks=chunks, link=link),
    )


def ideal_seconds(work: Work, *, chunks: int, link: Link) -> float:
    """Return the busiest of: the client's computation, the server's, the bytes up, the bytes down; in seconds."""
    return max(
        work.client_compute(chunks),
        work.server_compute(chunks),
        link.seconds(chunks * work.nbytes("activation_1", "gradient_2")),
        link.seconds(chunks * work.nbytes("activation_2", "gradient_1")),
    )


def break_even(
    work: Work, other: Work, *, chunks: int, rates: Sequence[float], latency_ms: float = 0.0, schedule: str = "1f1b"
) -> list[float]:
    """Return the link rates in Mbit/s at which ``work`` and ``other`` take equally long, between ``rates`` (ascending).

    Found between neighbouring rates by bisection on the logarithm, to a thousandth.
    """

    def gain(rate: float) -> float:
        link = Link(rate_mbit=rate, latency_ms=latency_ms)
        times = (predict(each, chunks=chunks, link=link, schedule=schedule).seconds for each in (work, other))
        return next(times) - next(times)

    gains = [gain(rate) for rate in rates]
    pairs = zip(pairwise(rates), pairwise(gains), strict=True)
    return [_bisect(gain, low, high) for (low, high), (first, second) in pairs if (first > 0) != (second > 0)]


def _bisect(gain: Callable[[float], float], low: float, high: float) -> float:
    rising = gain(high) > 0
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        if (gain(middle) > 0) == rising:
            high = middle
        else:
            low = middle
    return math.sqrt(low * high)


# --- Operations and who waits for what -------------------------------------------------------------------------------


class _Plan:
    """All operations of one batch, each after what it needs."""

    def __init__(self, work: Work, chunks: int, link: Link, schedule: str) -> None:
        self.work, self.chunks, self.link, self.schedule = work, chunks, link, schedule
        self.operations: list[Operation] = []
        self.ranks = {
            task: rank
            for side in (CLIENT, SERVER)
            for rank, task in enumerate(chain.from_iterable(lanes(schedule, side, chunks)))
        }

    def build(self) -> None:
        """Fill :attr:`operations`."""
        logits = [self._forward(j) for j in range(self.chunks)]
        # Under gpipe the first backward pass waits for every micro-batch's logits.
        ends = [self._backward(j, logits if self.schedule == "gpipe" else [logits[j]]) for j in range(self.chunks)]
        for side, seconds in ((CLIENT, self.work.client_optimizer), (SERVER, self.work.server_optimizer)):
            lasts = [end[side] for end in ends if side in end]
            self._add(side, COMPUTE, OPTIMIZER, self.chunks - 1, seconds, lasts)

    def _forward(self, j: int) -> Operation:
        head = self._compute(CLIENT, HEAD, j, [])
        body = self._compute(SERVER, BODY, j, [self._cross(CLIENT, "activation 1", head)])
        return self._compute(CLIENT, TAIL, j, [self._cross(SERVER, "activation 2", body)])

    def _backward(self, j: int, logits: list[Operation]) -> dict[str, Operation]:
        """Go back as far as anything trains; return the last pass of each side that goes back."""
        ends = {CLIENT: self._compute(CLIENT, TAIL_GRADIENT, j, logits)}
        if self.work.gradient_2:
            arrived = self._cross(CLIENT, "gradient 2", ends[CLIENT])
            ends[SERVER] = self._compute(SERVER, BODY_GRADIENT, j, [arrived])
        if self.work.gradient_1:
            arrived = self._cross(SERVER, "gradient 1", ends[SERVER])
            ends[CLIENT] = self._compute(CLIENT, HEAD_GRADIENT, j, [arrived])
        return ends

    def _compute(self, side: str, what: str, j: int, after: list[Operation]) -> Operation:
        seconds = getattr(self.work, PASSES[what])
        return self._add(side, COMPUTE, what, j, seconds, after, rank=(self.ranks[Task(what, j)], 0))

    def _cross(self, side: str, what: str, made: Operation) -> Operation:
        """Encode, send and decode what a pass ``made``; return the last of them."""
        message: Message = getattr(self.work, what.replace(" ", "_"))
        j, other = made.span.micro_batch, SERVER if side == CLIENT else CLIENT
        rank = (0 if what.endswith("2") else 1, order_of(self.schedule, made.span.what, self.chunks).index(j))
        encoded = self._add(side, ENCODE, what, j, message.encode, [made], rank=rank)
        seconds = self.link.seconds(message.nbytes)
        sent = self._add(side, SEND, what, j, seconds, [encoded], rank=rank, nbytes=message.nbytes)
        sent.delay, sent.yields = self.link.latency_ms / 1e3, True
        return self._add(other, DECODE, what, j, message.decode, [sent])

    def _add(
        self, side: str, activity: str, what: str, j: int, seconds: float, after: list[Operation],
        *, rank: tuple[int, int] = (0, 0), nbytes: int = 0,
    ) -> Operation:  # fmt: skip
        """Add an operation; those of equal rank go in the order in which they become ready."""
        span = Span(side=side, activity=activity, what=what, micro_batch=j, start=0.0, end=0.0, nbytes=nbytes)
        self.operations.append(Operation(span, (side, activity), seconds, rank, after))
        return self.operations[-1]
