"""The client of two machines: head and tail are here, the body is wherever the line leads; labels stay."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from splitlib.config import RunConfig
from splitlib.errors import PeerError
from splitlib.pipeline.boundary import Traffic, uncompressed_nbytes
from splitlib.pipeline.channel import Channel, Coding
from splitlib.pipeline.engine import Engine, Scale, Start, batch_loss, unscaled
from splitlib.pipeline.inprocess import shrinkage
from splitlib.pipeline.parts import Codecs, same_weights, trains, weights_norm
from splitlib.pipeline.remote.control import Control
from splitlib.pipeline.remote.endpoint import Endpoint
from splitlib.pipeline.remote.link import Link
from splitlib.pipeline.remote.side import Batch, Inbox, channels_by_kind, work_off
from splitlib.pipeline.remote.transport import Transport
from splitlib.pipeline.remote.wire import (
    ACTIVATION_1,
    ACTIVATION_2,
    FROM_CLIENT,
    FROM_SERVER,
    GRADIENT_1,
    GRADIENT_2,
)
from splitlib.pipeline.schedule import HEAD, HEAD_GRADIENT, TAIL, TAIL_GRADIENT, Agenda, Task, lanes
from splitlib.pipeline.stage import CurrentStep, Stage
from splitlib.timeline import CLIENT, Span, Timeline

_BUILDING_SECONDS = 600.0  # a server may have to load weights
_SAVING_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Line:
    """A connection to the other side that has just been made."""

    control: Control
    transport: Callable[[], Transport]
    """Makes the tensors' connection, once both sides want it."""


class RemotePipeline(Engine):
    """Trains head and tail with a body on the other side of a line.

    Only the tensors at the cuts, the attention mask and the config travel. Every order that matters to a bit is the
    in-process engine's: see :mod:`splitlib.pipeline.schedule`.
    """

    def __init__(
        self,
        parts: Sequence[nn.Module],
        codecs: Codecs,
        config: RunConfig,
        *,
        device: torch.device,
        dial: Callable[[], Line],
        link: Link,
        coding: Coding,
    ) -> None:
        """``parts`` are head, body and tail, of which the body is let go; ``dial`` connects to the server."""
        super().__init__()
        head, body, tail = parts
        self.config, self.device, self.link, self.coding = config, device, link, coding
        self.traffic, self.current, self.timeline = Traffic(), CurrentStep(config.seed), Timeline(CLIENT)
        self.head = Stage(head, 0, self.current, config.precision, device).to(device)
        self.tail = Stage(tail, 2, self.current, config.precision, device).to(device)
        self.by_kind = channels_by_kind(codecs, coding)
        self.returns = {GRADIENT_1: trains(head), GRADIENT_2: trains(head, body)}
        self.shrinkage = shrinkage(head)
        self._body_norm = weights_norm(body)
        self._dial, self._control, self._endpoint = dial, None, None
        self._remote_parameters = 0
        self._clock_offset = 0.0

    # --- Life ---

    _control: Control | None
    _endpoint: Endpoint | None

    def open(self, start: Start) -> None:
        """Connect to the server and have it build its part.

        Raises:
            PeerError: the server cannot be reached, refuses, or was lost.
        """
        line = self._dial()
        control = self._control = line.control  # so that close() can tell the server, however far this comes
        control.send("hello", **start.to_dict(), link=asdict(self.link))
        ready = control.receive("ready", timeout=_BUILDING_SECONDS)
        self._check_body(ready["weights_norm"])
        self._remote_parameters = ready["parameters"]
        transport = line.transport()
        self._clock_offset = control.clock_offset()
        self._endpoint = Endpoint(
            transport,
            control.mailbox,
            channels=self.by_kind,
            sends=FROM_CLIENT,
            receives=FROM_SERVER,
            coding=self.coding,
            timeline=self.timeline,
            device=self.device,
            link=self.link,
        )

    def _check_body(self, theirs: float) -> None:
        """Refuse to train with a body that starts from other weights than ours: nothing else would tell."""
        if not same_weights(theirs, self._body_norm):
            raise PeerError(
                f"the server has other weights of {self.config.model_name}: norm {theirs:.7g} of the body's, not "
                f"{self._body_norm:.7g}; give both sides the same files (--hub)"
            )

    @property
    def control(self) -> Control:
        """The control channel, once open."""
        if self._control is None:
            raise RuntimeError("the engine is not connected: call open() first")
        return self._control

    @property
    def endpoint(self) -> Endpoint:
        """Where tensors go and come from, once open."""
        if self._endpoint is None:
            raise RuntimeError("the engine is not connected: call open() first")
        return self._endpoint

    def keep(self, step: int) -> None:
        """As :meth:`Engine.keep`."""
        self.control.send("save", step=step)
        self.control.receive("saved", timeout=_SAVING_SECONDS)

    def close(self, reason: str = "") -> None:
        """As :meth:`Engine.close`; a complete run's checkpoints are removed on the server."""
        if self._control is None:
            return
        try:
            if not reason and not self.control.mailbox.lost:
                self.control.send("finish")
                self.control.receive("finished", timeout=_SAVING_SECONDS)
        finally:
            self.control.close(reason)
            if self._endpoint is not None:
                self._endpoint.close()
            self._control = self._endpoint = None

    @property
    def parameter_count(self) -> int:
        """As :meth:`Engine.parameter_count`, the server's included."""
        return super().parameter_count + self._remote_parameters

    def weights_norm(self) -> float:
        """As :meth:`Engine.weights_norm`, the body's included."""
        return math.hypot(super().weights_norm(), self._body_norm)

    def channels(self) -> list[Channel]:
        """As :meth:`Engine.channels`; the server keeps the state of its own."""
        return list(self.by_kind.values())

    def take_spans(self) -> list[Span]:
        """Return what both sides did in the last training batch, by this machine's clock."""
        self.control.send("spans")
        theirs = [Span(**span) for span in self.control.receive("spans", timeout=_SAVING_SECONDS)["spans"]]
        shift = self._clock_offset
        moved = [replace(span, start=span.start + shift, end=span.end + shift) for span in theirs]
        return sorted([*self.timeline.take(), *moved], key=lambda span: span.start)

    # --- Batches ---

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return logits [B, classes] of a batch in evaluation."""
        if self.training:
            raise RuntimeError("this engine trains by train_batch(); call eval() before evaluating")
        with torch.no_grad():
            return torch.cat(self._run(inputs, self.current.step).logits)

    def train_batch(self, inputs: tuple[Tensor, ...], labels: Tensor, *, step: int, scale: Scale = unscaled) -> float:
        """As :meth:`Engine.train_batch`."""
        self.current.step = step
        self.timeline.take()
        before = {kind: replace(count) for kind, count in self.endpoint.counts.items()}
        loss = self._run(inputs, step, labels.to(self.device), scale).loss
        self.endpoint.flush()
        for kind, count in self.endpoint.counts.items():
            way = "activation" if kind in (ACTIVATION_1, ACTIVATION_2) else "gradient"
            sizes = {way: count.payload - before[kind].payload}
            self.traffic.add(**sizes, uncompressed=count.uncompressed - before[kind].uncompressed)
        return loss

    def _run(
        self, inputs: tuple[Tensor, ...], step: int, labels: Tensor | None = None, scale: Scale | None = None
    ) -> _ClientBatch:
        self.control.mailbox.step = step
        chunks = self.config.chunks
        micro_batches = list(zip(*(x.to(self.device).chunk(chunks) for x in inputs), strict=True))
        batch = Batch(step, len(micro_batches), labels is not None)
        work = _ClientBatch(self, batch, micro_batches, labels, scale)
        work.run()
        return work


class _ClientBatch:
    """One batch on the client."""

    def __init__(
        self,
        engine: RemotePipeline,
        batch: Batch,
        micro_batches: list[tuple[Tensor, ...]],
        labels: Tensor | None,
        scale: Scale | None,
    ) -> None:
        self.engine, self.batch, self.inputs = engine, batch, micro_batches
        self.labels, self.scale = labels, scale
        self.whole = engine.config.schedule == "gpipe"
        wanted = [GRADIENT_1] if batch.training and engine.returns[GRADIENT_1] else []
        self.inbox = Inbox(engine.endpoint, engine.config.schedule, batch, [ACTIVATION_2, *wanted])
        all_lanes = lanes(engine.config.schedule, CLIENT, batch.of, training=batch.training)
        kept = [lane for lane in all_lanes if wanted or lane[0].work != HEAD_GRADIENT]
        self.agenda = Agenda(kept, [Task(HEAD, i) for i in range(batch.of)])
        self.outputs: dict[int, tuple[Tensor, ...]] = {}
        self.received: dict[int, Tensor] = {}
        self.uncompressed: dict[int, int] = {}
        self._logits: dict[int, Tensor] = {}
        self._upstream: Sequence[Tensor] = ()
        self.loss = 0.0

    def run(self) -> None:
        """Do everything."""
        works = {
            HEAD: self.head,
            TAIL: self.tail,
            TAIL_GRADIENT: self.tail_gradient,
            HEAD_GRADIENT: self.head_gradient,
        }
        work_off(self.agenda, self.inbox, works, self.engine.endpoint)

    @property
    def logits(self) -> list[Tensor]:
        """The micro-batches' logits, in order."""
        return [self._logits[i] for i in range(self.batch.of)]

    def head(self, i: int) -> None:
        """Run the head and send what it makes."""
        first, *beside = self.outputs[i] = self.engine.head(self.inputs[i], i)
        uncompressed = uncompressed_nbytes(first, self.engine.shrinkage())
        self.engine.endpoint.send(self.batch.frame(ACTIVATION_1, i, uncompressed), first, beside)

    def tail(self, i: int) -> None:
        """Run the tail on what came back; after the last one of gpipe, take the loss."""
        arrival = self.inbox[Task(TAIL, i)]
        self.uncompressed[i] = arrival.frame.uncompressed
        if self.batch.training:
            self.received[i] = arrival.tensor.requires_grad_(self.engine.returns[GRADIENT_2])
        (self._logits[i],) = self.engine.tail((arrival.tensor, *self.outputs[i][1:]), i)
        if not self.batch.training:
            return
        if not self.whole:
            self.agenda.allow(Task(TAIL_GRADIENT, i))
        elif len(self._logits) == self.batch.of:
            self._take_loss()

    def _take_loss(self) -> None:
        """Take the mean loss over the whole batch's logits, as the in-process engine does."""
        assert self.labels is not None and self.scale is not None
        logits = torch.cat([part.detach() for part in self.logits]).requires_grad_()
        loss = batch_loss(logits, self.labels)
        self.scale(loss).backward()
        assert logits.grad is not None
        self._upstream = logits.grad.split([len(part) for part in self.logits])
        self.loss = loss.item()
        for i in range(self.batch.of):
            self.agenda.allow(Task(TAIL_GRADIENT, i))

    def tail_gradient(self, i: int) -> None:
        """Go back through the tail and send the gradient."""
        if self.whole:
            self._logits[i].backward(self._upstream[i])
        else:
            self._add_loss(i)
        if self.engine.returns[GRADIENT_2]:
            gradient = self.received.pop(i).grad
            assert gradient is not None
            self.engine.endpoint.send(self.batch.frame(GRADIENT_2, i, self.uncompressed[i]), gradient)

    def _add_loss(self, i: int) -> None:
        """Take a micro-batch's share of the batch's mean loss."""
        assert self.labels is not None and self.scale is not None
        labels = self.labels.chunk(self.engine.config.chunks)[i]
        summed = nn.functional.cross_entropy(self._logits[i].float(), labels, reduction="sum")
        loss = summed / len(self.labels)
        self.scale(loss).backward()
        self.loss += loss.item()

    def head_gradient(self, i: int) -> None:
        """Go back through the head with the gradient that came."""
        self.outputs.pop(i)[0].backward(self.inbox[Task(HEAD_GRADIENT, i)].tensor)
