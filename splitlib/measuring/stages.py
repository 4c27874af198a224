"""What each stage and each compressor costs on its own, measured on real batches: the planner's input.

The stages run one after the other in this thread, micro-batch by micro-batch, forward and back, with every payload
encoded and decoded as a wire would need it. So nothing overlaps, and every second belongs to one pass.
"""

from __future__ import annotations

import copy
import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from splitlib.compressors import Compressor, decode
from splitlib.config import RunConfig
from splitlib.errors import ConfigError
from splitlib.experiment import prepare
from splitlib.measuring.batches import stages_of
from splitlib.measuring.kept import kept_times
from splitlib.measuring.records import readable, timing_path
from splitlib.pipeline.channel import Channel
from splitlib.pipeline.engine import batch_loss
from splitlib.pipeline.inprocess import Pipeline
from splitlib.pipeline.predict import MESSAGES, PASSES, Message, Work
from splitlib.runtime import pick_devices, timed
from splitlib.training import Trainer

T = TypeVar("T")


def stage_work(
    config: RunConfig, *, hub: Path | None = None, device: str = "auto", batches: int = 3, warmup: int = 1
) -> Work:
    """Return medians over the micro-batches of ``batches`` batches, as :func:`splitlib.pipeline.predict.predict` needs.

    The optimizer steps all stages at once here; its time is shared out by the stages' parameters. ``device`` is where
    all stages run, or one for each, such as ``cpu,cuda,cpu``; from one device to the next is part of decoding.

    Raises:
        SplitlibError: a setting is impossible, data or weights are missing, the model is not cut in three, or changes
            are coded, whose bytes depend on what was sent an epoch before.
    """
    if config.cut_count != 2:
        parts = config.cut_count + 1
        raise ConfigError(
            f"stage times need a head, a body and a tail; partition {config.partition!r} has {parts} parts"
        )
    return time_stages(prepare(config, hub, pick_devices(device, config.cut_count + 1)), batches=batches, warmup=warmup)


def kept_stage_work(
    config: RunConfig, *, hub: Path | None = None, device: str = "auto", batches: int = 3, fresh: bool = False
) -> Work:
    """Return :func:`stage_work` as its record has it; measure and keep it if there is none.

    A record of fewer ``batches`` or of other hardware does not count, nor any with ``fresh``.

    Raises:
        SplitlibError: as :func:`stage_work`, or the record is damaged.
    """
    kind, devices = "stages", list(map(str, pick_devices(device, config.cut_count + 1)))

    def measure() -> dict[str, Any]:
        return asdict(stage_work(config, hub=hub, device=device, batches=batches))

    kept = kept_times(kind, "", config, measure, repeats=batches, devices=devices, fresh=fresh).values
    with readable(timing_path(config, devices, kind=kind)):
        return Work(**{**kept, **{name: _message(kept[name]) for name in MESSAGES}})


def _message(kept: Mapping[str, Any] | None) -> Message | None:
    """Read a message; older records say of one that is not sent that it has no bytes."""
    return Message(**kept) if kept and kept["nbytes"] else None


def time_stages(trainer: Trainer, *, batches: int, warmup: int) -> Work:
    """As :func:`stage_work`, of an in-process engine; it trains on."""
    if trainer.config.coding == "change":
        raise ConfigError("stage times need coding 'tensor': a change's bytes depend on what was sent an epoch before")
    run = _Sequential(trainer)
    data = itertools.islice(itertools.cycle(list(itertools.islice(trainer.rest_of_epoch(), 4))), warmup + batches)
    for number, (inputs, labels) in enumerate(data):
        if number == warmup:
            run.seconds.clear()
            run.nbytes.clear()
        run.batch(inputs, labels)
    return run.work()


@dataclass
class _Sequential:
    """Trains in the plainest order there is, with a clock around everything."""

    trainer: Trainer
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    nbytes: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.stages = stages_of(self.trainer)
        assert isinstance(self.trainer.engine, Pipeline)
        self.channels: dict[str, Channel] = dict(zip(MESSAGES, self.trainer.engine.channels(), strict=True))
        self.returns = [boundary.returns for boundary in self.trainer.engine.boundaries()]

    def batch(self, inputs: tuple[Tensor, ...], labels: Tensor) -> None:
        """Take one step."""
        self.gradients(inputs, labels)
        self.timed("optimizer", self.trainer.updater.step)

    def gradients(self, inputs: tuple[Tensor, ...], labels: Tensor) -> None:
        """Add a batch's gradients, as the engine would."""
        trainer, (head, _, tail) = self.trainer, self.stages
        trainer.engine.train()
        trainer.updater.zero_grad()
        placed = [*(x.to(head.device) for x in inputs), labels.to(tail.device)]
        chunks = [x.chunk(trainer.config.chunks) for x in placed]
        for number, (*values, answers) in enumerate(zip(*chunks, strict=True)):
            self.micro_batch(number, tuple(values), answers, share=len(answers) / len(labels))

    def micro_batch(self, number: int, inputs: tuple[Tensor, ...], labels: Tensor, *, share: float) -> None:
        """Send one micro-batch there and back; its loss is its ``share`` of the batch's."""
        head, body, tail = self.stages
        trainer = self.trainer
        mask = inputs[1] if inputs[1:] else None
        self.place = trainer.engine.coding.place(trainer.steps_done, number, mask=mask, training=True)
        first, *beside = self.timed("head_forward", lambda: head(inputs, number))
        at_body, there = self.cross("activation_1", first, body.device), [x.to(body.device) for x in beside]
        second, *_ = self.timed("body_forward", lambda: body((at_body, *there), number))
        at_tail, beside = self.cross("activation_2", second, tail.device), [x.to(tail.device) for x in beside]
        loss = self.timed("tail_forward", lambda: batch_loss(tail((at_tail, *beside), number)[0], labels) * share)
        self.timed("tail_backward", trainer.updater.scale(loss).backward)
        for cut, message, received, sent, name in (
            (1, "gradient_2", at_tail, second, "body_backward"),
            (0, "gradient_1", at_body, first, "head_backward"),
        ):
            if self.returns[cut]:
                self.back(message, received, sent, name)

    def back(self, message: str, received: Tensor, sent: Tensor, name: str) -> None:
        """Send the gradient of what was received to where it came from, and go back from there."""
        assert received.grad is not None
        gradient = self.cross(message, received.grad, sent.device)
        self.timed(name, lambda: sent.backward(gradient.detach()))

    def cross(self, name: str, x: Tensor, device: torch.device) -> Tensor:
        """Return what arrives of ``x`` on ``device``, as a leaf that collects a gradient."""
        channel, tokens = self.channels[name], self.place.tokens
        place = replace(self.place, tokens=None if tokens is None else tokens.to(x.device))
        payload = self.timed(f"{name} encode", lambda: channel.send(x.detach(), place))
        self.nbytes[name].append(payload.nbytes)
        return self.timed(f"{name} decode", lambda: channel.receive(payload, place).to(device)).requires_grad_()

    def timed(self, name: str, run: Callable[[], T]) -> T:
        """Run, and note how long it took."""
        result, seconds = timed(run)
        self.seconds[name].append(seconds)
        return result

    def work(self) -> Work:
        """Return the medians."""
        times = defaultdict(float, {name: statistics.median(values) for name, values in self.seconds.items()})
        costs: dict[str, Any] = {
            name: Message(
                nbytes=round(statistics.mean(self.nbytes[name])),
                encode=times[f"{name} encode"],
                decode=times[f"{name} decode"],
            )
            if self.nbytes[name]
            else None
            for name in MESSAGES
        }
        costs |= {name: times[name] for name in PASSES.values()}
        server = _share(self.stages, self.stages[1])
        step = times["optimizer"]
        return Work(**costs, client_optimizer=(1 - server) * step, server_optimizer=server * step)


def _share(stages: Sequence[nn.Module], one: nn.Module) -> float:
    counts = [sum(p.numel() for p in stage.parameters() if p.requires_grad) for stage in stages]
    return sum(p.numel() for p in one.parameters() if p.requires_grad) / max(sum(counts), 1)


def codec_times(
    codecs: Mapping[str, Sequence[Compressor]], tensors: Mapping[str, Tensor], *, repeats: int, warmup: int = 2
) -> dict[str, dict[str, float]]:
    """Return what each set of ``codecs`` takes for all of ``tensors``: medians, measured in turn.

    Args:
        codecs: by label, one compressor for each cut; every tensor gets a copy of its own, as at a cut.
        tensors: as :func:`splitlib.capture.tensors_at_cuts` names them: ``activation 1``, ``gradient 2`` ...
        repeats: rounds that count.
        warmup: rounds before them, in which loops are compiled and bases turn to their tensors.

    Returns:
        For each label ``encode`` and ``decode`` in seconds, their sum ``seconds``, and ``compression_ratio``.
    """
    own = {(label, name): copy.deepcopy(_of_cut(each, name)) for label, each in codecs.items() for name in tensors}
    found: defaultdict[tuple[str, str], list[tuple[float, float, int]]] = defaultdict(list)
    for number in range(warmup + repeats):
        for (label, name), codec in own.items():
            once = _there_and_back(codec, tensors[name])
            if number >= warmup:
                found[label, name].append(once)
    return {label: _totals([found[label, name] for name in tensors], tensors) for label in codecs}


def _of_cut(codecs: Sequence[Compressor], name: str) -> Compressor:
    return codecs[int(name.rsplit(" ", 1)[1]) - 1]


def _there_and_back(codec: Compressor, x: Tensor) -> tuple[float, float, int]:
    """Return the seconds of encoding and of decoding, and the payload's bytes."""
    payload, encoding = timed(codec.encode, x)
    _, decoding = timed(decode, payload)
    return encoding, decoding, payload.nbytes


def _totals(runs: Sequence[list[tuple[float, float, int]]], tensors: Mapping[str, Tensor]) -> dict[str, float]:
    encode, decoding, nbytes = (
        sum(statistics.median(once[column] for once in each) for each in runs) for column in range(3)
    )
    whole = sum(x.numel() * x.element_size() for x in tensors.values())
    return {"encode": encode, "decode": decoding, "seconds": encode + decoding, "compression_ratio": nbytes / whole}


def seconds_in_turn(runs: Mapping[str, Callable[[], object]], *, repeats: int, warmup: int = 1) -> dict[str, float]:
    """Return the median seconds of each of ``runs``, measured in turn."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for number, (label, run) in itertools.product(range(warmup + repeats), runs.items()):
        _, seconds = timed(run)
        if number >= warmup:
            found[label].append(seconds)
    return {label: statistics.median(each) for label, each in found.items()}
