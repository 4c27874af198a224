"""One way to split: what it costs each side and the link, and a bound on its time that needs no simulation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Protocol

from splitlib.config import RunConfig
from splitlib.pipeline.predict import MESSAGES, Message, Prediction, Work, predict
from splitlib.pipeline.remote.link import Link
from splitlib.planner.candidates import Compressors, Pair, parse_compressor
from splitlib.planner.costs import ACTIVATION, GRADIENT, CodecCost, Costs, codec_key

TOLERABLE_ERROR = 0.1
"""Of the variance: what is sent with more is not recommended, training may collapse."""
TOLERABLE_GAIN = 0.25
"""Unequal gain of a text's gradients: with more, all rows of notebook 13 collapse, however small their errors."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One machine: costs measured on a device, and how many times as fast as that device it is."""

    costs: Costs
    speed: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A partition, a compressor and a number of micro-batches, with what they cost."""

    base: RunConfig
    """What all choices share."""
    partition: str
    """Its name; ``custom`` for cuts that have none."""
    pair: Pair
    """Units before each cut."""
    compressor: str
    """As :mod:`splitlib.planner.candidates` writes it."""
    chunks: int
    """Micro-batches in a batch."""
    work: Work
    """Of one micro-batch: what :func:`splitlib.pipeline.predict.predict` takes."""
    errors: Mapping[str, float]
    """By tensor (``activation 1`` ...): mean squared error over variance on the micro-batch that was measured."""
    unequal: float | None
    """The larger unequal gain of a text's gradients; None of images, or where costs are too old to have it."""
    uncompressed_bytes: int
    """Of one batch, all cuts, both directions, tensors only."""
    client_share: float
    """Of the forward MACs."""
    seconds: float = float("nan")
    """Predicted time per batch on the plan's link."""

    @cached_property
    def config(self) -> RunConfig:
        """The choice, ready to run."""
        cuts = ",".join(map(str, self.pair)) if self.partition == "custom" else ""
        settings = parse_compressor(self.compressor)
        return self.base.replace(partition=self.partition, cuts=cuts, stages=3, chunks=self.chunks, **settings)

    @property
    def wire_bytes(self) -> int:
        """Bytes of one batch on the wire, both directions, everything counted."""
        return self.chunks * self.work.nbytes(*MESSAGES)

    @property
    def error(self) -> float:
        """The largest of the errors."""
        return max(self.errors.values())

    def __str__(self) -> str:
        cuts = ",".join(map(str, self.pair)) if self.partition == "custom" else self.partition
        return f"{cuts}, {self.compressor}, {self.chunks} micro-batch{'es' if self.chunks > 1 else ''}"

    def predict(self, link: Link) -> Prediction:
        """Return the batch simulated on ``link``, with what each side does when."""
        return predict(self.work, chunks=self.chunks, link=link, schedule=self.base.schedule)


class Loses(Protocol):
    """What is judged by what it loses: a choice here, a candidate of the playground."""

    @property
    def error(self) -> float:
        """The largest of any tensor."""

    @property
    def unequal(self) -> float | None:
        """The larger unequal gain of a text's gradients; None of images."""


def largest_gain(gains: Iterable[float | None]) -> float | None:
    """Return the largest of unequal gains, None if there are none."""
    return max((gain for gain in gains if gain is not None), default=None)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much of what crosses may be lost where something is recommended."""

    error: float = TOLERABLE_ERROR
    """At any cut."""
    unequal: float = TOLERABLE_GAIN
    """Of gradients."""

    def allow(self, choice: Loses) -> bool:
        """Return whether it is within them."""
        return choice.error <= self.error and (choice.unequal or 0) <= self.unequal


class Costing:
    """Puts measured costs together to choices, sums over layers kept."""

    def __init__(self, base: RunConfig, client: Side, server: Side) -> None:
        self.base, self.client, self.server = base, client, server
        self._sums: dict[tuple[str, str, int], list[float]] = {}
        layers = client.costs.layers
        self._trained = [0, *accumulate(layer.parameters for layer in layers)]
        self._macs = [0, *accumulate(layer.macs for layer in layers)]

    def choice(self, pair: Pair, partition: str, compressor: Compressors, chunks: int, size: int) -> Choice:
        """Return the choice with cuts at ``pair`` and ``chunks`` micro-batches of ``size`` samples."""
        first, second = pair
        count = len(self.client.costs.layers)
        spec, gradient_spec = compressor.activations, compressor.gradients
        beside = self.client.costs.times(size).beside_nbytes  # the client keeps it, so the second cut has none
        messages: dict[str, Any] = {
            "activation_1": self._message(ACTIVATION, first, spec[0], size, self.client, self.server, beside),
            "activation_2": self._message(ACTIVATION, second, spec[1], size, self.server, self.client),
            "gradient_2": self._message(GRADIENT, second, gradient_spec[1], size, self.client, self.server),
            "gradient_1": self._message(GRADIENT, first, gradient_spec[0], size, self.server, self.client),
        }
        share = (self._trained[second] - self._trained[first]) / max(self._trained[-1], 1)
        work = Work(
            head_forward=self._seconds(self.client, "forward", size, 0, first),
            head_backward=self._seconds(self.client, "backward", size, 0, first),
            body_forward=self._seconds(self.server, "forward", size, first, second),
            body_backward=self._seconds(self.server, "backward", size, first, second),
            tail_forward=self._seconds(self.client, "forward", size, second, count),
            tail_backward=self._seconds(self.client, "backward", size, second, count),
            client_optimizer=(1 - share) * self.client.costs.optimizer / self.client.speed,
            server_optimizer=share * self.server.costs.optimizer / self.server.speed,
            **{name: message for name, (message, _) in messages.items()},
        )
        return Choice(
            base=self.base,
            partition=partition,
            pair=pair,
            compressor=compressor.text,
            chunks=chunks,
            work=work,
            errors={name.replace("_", " "): cost.error for name, (_, cost) in messages.items()},
            unequal=largest_gain(messages[name][1].unequal for name in ("gradient_1", "gradient_2")),
            uncompressed_bytes=self._uncompressed(pair, size, chunks),
            client_share=1 - (self._macs[second] - self._macs[first]) / max(self._macs[-1], 1),
        )

    def _seconds(self, side: Side, direction: str, size: int, start: int, end: int) -> float:
        """Return what the layers from ``start`` to before ``end`` take on a side."""
        key = (side.costs.device, direction, size)
        if key not in self._sums:
            self._sums[key] = [0.0, *accumulate(getattr(side.costs.times(size), direction))]
        sums = self._sums[key]
        return max(0.0, sums[end] - sums[start]) / side.speed

    def _message(
        self, direction: str, cut: int, spec: str, size: int, sender: Side, receiver: Side, beside: int = 0
    ) -> tuple[Message | None, CodecCost]:
        key = codec_key(spec, direction, cut, size)
        sent, received = sender.costs.codec(key), receiver.costs.codec(key)
        if direction == GRADIENT and not self._trained[cut]:
            return None, sent  # nothing before the cut asks for it
        encode, decode = sent.encode / sender.speed, received.decode / receiver.speed
        return Message(nbytes=sent.nbytes + beside, encode=encode, decode=decode), sent

    def _uncompressed(self, pair: Pair, size: int, chunks: int) -> int:
        nbytes, trained = self.client.costs.times(size).nbytes, self._trained
        return chunks * sum(nbytes[cut - 1] * (2 if trained[cut] else 1) for cut in pair)


def lower_bound(work: Work, chunks: int, link: Link) -> float:
    """Return seconds that no schedule beats, without simulating one.

    For each side and each direction of the link: all its work, what must come before the first of it, and what must
    follow the last of it. With one micro-batch nothing overlaps but the two optimizers, and the bound is the time
    itself. It saves simulating what cannot be among the fastest.
    """
    latency = link.latency_ms / 1e3
    up1, down2 = work.activation_1, work.activation_2
    up2, down1 = work.gradient_2, work.gradient_1
    send_up, send_down = (
        chunks * sum(link.seconds(each.nbytes) for each in messages if each)
        for messages in ((up1, up2), (down2, down1))
    )
    to_body = work.head_forward + _crossing(up1, link)
    after_head = work.head_backward + work.client_optimizer
    # After the last backward pass of the body, then of the tail; and from the last of the body's forward passes on.
    after_body = max(_crossing(down1, link) + after_head if down1 else 0.0, work.server_optimizer)
    after_tail = max(_crossing(up2, link) + work.body_backward + after_body if up2 else 0.0, work.client_optimizer)
    from_tail = work.tail_forward + work.tail_backward + after_tail
    from_down = _crossing(down2, link) + from_tail
    last_up = up2.decode + work.body_backward + after_body if up2 else up1.decode + work.body_forward + from_down
    last_down = down1.decode + after_head if down1 else down2.decode + from_tail
    return max(
        to_body + work.body_forward + from_down,
        to_body + chunks * (work.body_forward + work.body_backward) + after_body,
        work.client_compute(chunks),
        work.head_forward + up1.encode + send_up + latency + last_up,
        to_body + work.body_forward + down2.encode + send_down + latency + last_down,
    )


def _crossing(message: Message, link: Link) -> float:
    return message.encode + link.seconds(message.nbytes) + link.latency_ms / 1e3 + message.decode
