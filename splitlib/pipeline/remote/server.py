"""The server of two machines: it has the body, builds it from the client's config, and never sees a label."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splitlib.compressors import make_compressors
from splitlib.config import RunConfig, run_title
from splitlib.config.checks import check_choices, check_ranges
from splitlib.errors import PeerError
from splitlib.optimization import Updater
from splitlib.pipeline.boundary import uncompressed_nbytes
from splitlib.pipeline.channel import Coding
from splitlib.pipeline.engine import Start
from splitlib.pipeline.inprocess import check_precision, shrinkage
from splitlib.pipeline.parts import make_codecs, make_parts, trains, weights_norm
from splitlib.pipeline.remote.client import Line
from splitlib.pipeline.remote.control import Control, Message
from splitlib.pipeline.remote.endpoint import Endpoint
from splitlib.pipeline.remote.kept import KeptSteps
from splitlib.pipeline.remote.link import Link
from splitlib.pipeline.remote.mailbox import CONTROL
from splitlib.pipeline.remote.side import Batch, Inbox, channels_by_kind, work_off
from splitlib.pipeline.remote.wire import ACTIVATION_1, ACTIVATION_2, FROM_CLIENT, FROM_SERVER, GRADIENT_1, GRADIENT_2
from splitlib.pipeline.schedule import BODY, BODY_GRADIENT, Agenda, Task, lanes
from splitlib.pipeline.stage import CurrentStep, Stage
from splitlib.timeline import SERVER, Timeline


def serve(
    line: Line,
    *,
    hub: Path | None,
    device: torch.device,
    required: Mapping[str, Any],
    log: Callable[[str], None] = lambda line: None,
) -> Session:
    """Serve one client until its run is complete.

    Args:
        line: the connection.
        hub: a local mirror of the hub, for pretrained weights.
        device: where the body runs.
        required: settings that the client's config must have.
        log: takes a line for people.

    Raises:
        PeerError: the client is gone, or ended early.
        SplitlibError: its config is refused, or a frame was damaged; the client was told.
    """
    hello = line.control.receive("hello")
    start, link = read_hello(hello, required)
    log(f"{run_title(start.config)}: config {start.config.key}, from step {start.step} of {start.total_steps}")
    session = Session(start, hub, device)
    parameters = sum(p.numel() for p in session.body.parameters())
    line.control.send("ready", parameters=parameters, weights_norm=session.weights_norm)
    endpoint = Endpoint(
        line.transport(),
        line.control.mailbox,
        channels=session.channels,
        sends=FROM_SERVER,
        receives=FROM_CLIENT,
        coding=session.coding,
        timeline=session.timeline,
        device=device,
        link=link,
    )
    try:
        session.run(endpoint, line.control)
    finally:
        endpoint.close()
    return session


def read_hello(hello: Message, required: Mapping[str, Any]) -> tuple[Start, Link]:
    """Return what the client wants, if it is what this server was started for.

    Raises:
        PeerError: a setting differs; both values are in the message.
        ConfigError: the config is impossible.
    """
    try:
        values = {
            name: hello[name] for name in ("num_labels", "data_fingerprint", "total_steps", "step", "train_samples")
        }
        config, link = RunConfig.from_dict(hello["config"]), Link(**hello["link"])
    except (KeyError, TypeError) as error:
        raise PeerError(f"the client's hello lacks {error}") from None
    for name, wanted in required.items():
        given = config.to_dict()[name]
        if given != wanted:
            raise PeerError(f"{name} is {given!r} on the client and {wanted!r} on the server")
    return Start(config=config, **values), link


def check_required(required: Mapping[str, Any]) -> None:
    """Refuse settings that no client can bring. Whether they fit together depends on the rest of its config.

    Raises:
        ConfigError: a setting is none, or out of its range.
    """
    config = copy.copy(RunConfig())
    for name, value in required.items():
        object.__setattr__(config, name, value)
    check_choices(config)
    check_ranges(config)
    for name, options in (("compressor", "compressor_options"), ("gradient_compressor", "gradient_options")):
        if required.get(name, "same") != "same":
            make_compressors(required[name], required.get(options, {}))


class Session:
    """One run on the server: the body, its optimizer, its checkpoints."""

    def __init__(self, start: Start, hub: Path | None, device: torch.device) -> None:
        config = self.config = start.config
        check_precision(config.precision, [device])
        codecs = make_codecs(config)
        head, body, _ = make_parts(config, start.num_labels, hub)
        self.step, self.device = start.step, device
        self.weights_norm = weights_norm(body)  # as built, before a checkpoint is read
        self.timeline, self.current = Timeline(SERVER), CurrentStep(config.seed)
        self.body = Stage(body, 1, self.current, config.precision, device).to(device)
        self.shrinkage = shrinkage(body)
        self.coding = Coding.of(config, start.train_samples)
        self.channels = channels_by_kind(codecs, self.coding)
        self.returns = {GRADIENT_1: trains(head), GRADIENT_2: trains(head, body)}
        self.updater = None
        if trains(body):
            self.updater = Updater(self.body, config, total_steps=start.total_steps, device=device)
        self._batch_ended = 0.0
        self.kept = KeptSteps(config, start.data_fingerprint)
        if start.step:
            self._restore(self.kept.load(start.step))
        else:
            self.kept.remove()

    updater: Updater | None

    def run(self, endpoint: Endpoint, control: Control) -> None:
        """Answer the client, batch after batch, until it says that the run is complete."""
        while True:
            endpoint.mailbox.step = self.step
            key, item = endpoint.mailbox.take(CONTROL, ACTIVATION_1)
            if key == ACTIVATION_1:
                endpoint.mailbox.put_back(key, item)
                self._batch(Batch(item.frame.step, item.frame.of, item.frame.training), endpoint)
            elif item["kind"] == "finish":
                self.kept.remove()
                control.send("finished")
                return
            else:
                self._obey(item, control)

    def _obey(self, command: Message, control: Control) -> None:
        if command["kind"] == "save":
            if command["step"] != self.step:
                raise PeerError(f"the client saves step {command['step']}; the server is at step {self.step}")
            self.kept.save(self.step, self._state())
            control.send("saved")
        elif command["kind"] == "spans":
            control.send("spans", spans=[asdict(span) for span in self.timeline.take()])
        else:
            raise PeerError(f"the client sent the unknown command {command['kind']!r}")

    def _batch(self, batch: Batch, endpoint: Endpoint) -> None:
        if batch.training and batch.step != self.step:
            raise PeerError(f"the client sent a batch of step {batch.step}; the server is at step {self.step}")
        self.current.step = batch.step
        self.body.train(batch.training)
        with torch.set_grad_enabled(batch.training):
            self.timeline.forget_before(self._batch_ended)
            if batch.training and self.updater is not None:
                self.updater.zero_grad()
            _ServerBatch(self, batch, endpoint).run()
            self._batch_ended = time.perf_counter()
            if batch.training and self.updater is not None:
                self.updater.step()
        self.step += batch.training

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.body.state_dict(),
            "channels": [channel.state for channel in self.channels.values()],
            "updater": self.updater and self.updater.state_dict(),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.body.load_state_dict(state["model"])
        for channel, learnt in zip(self.channels.values(), state["channels"], strict=True):
            channel.state = learnt
        if self.updater is not None:
            self.updater.load_state_dict(state["updater"])


class _ServerBatch:
    """One batch on the server."""

    def __init__(self, session: Session, batch: Batch, endpoint: Endpoint) -> None:
        self.session, self.batch, self.endpoint = session, batch, endpoint
        schedule = session.config.schedule
        self.returning = batch.training and session.returns[GRADIENT_2]
        kinds = [ACTIVATION_1, GRADIENT_2] if self.returning else [ACTIVATION_1]
        self.inbox = Inbox(endpoint, schedule, batch, kinds)
        self.agenda = Agenda(lanes(schedule, SERVER, batch.of, training=self.returning))
        self.received: dict[int, Tensor] = {}
        self.outputs: dict[int, Tensor] = {}

    def run(self) -> None:
        """Do everything."""
        work_off(self.agenda, self.inbox, {BODY: self.body, BODY_GRADIENT: self.body_gradient}, self.endpoint)

    def body(self, i: int) -> None:
        """Run the body and send what it makes."""
        arrival = self.inbox[Task(BODY, i)]
        wants = self.batch.training and self.session.returns[GRADIENT_1]
        x = self.received[i] = arrival.tensor.requires_grad_(wants)
        out = self.outputs[i] = self.session.body((x, *arrival.beside), i)[0]
        uncompressed = uncompressed_nbytes(out, self.session.shrinkage())
        self.endpoint.send(self.batch.frame(ACTIVATION_2, i, uncompressed), out)

    def body_gradient(self, i: int) -> None:
        """Go back through the body and send the gradient, if the client wants one."""
        self.outputs.pop(i).backward(self.inbox[Task(BODY_GRADIENT, i)].tensor)
        if self.session.returns[GRADIENT_1]:
            gradient = self.received.pop(i).grad
            assert gradient is not None
            uncompressed = self.inbox[Task(BODY, i)].frame.uncompressed
            self.endpoint.send(self.batch.frame(GRADIENT_1, i, uncompressed), gradient)
