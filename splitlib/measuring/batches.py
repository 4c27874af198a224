"""Time per batch, measured: any engine, after a warm-up, several configs in turn so that their ratios mean something.

What a batch takes is what a training step takes, gradients and optimizer, with its data at hand. Medians are what
tables show, with the middle half and n beside them: a machine that does other things now and then shows in neither.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

import torch

from splitlib.config import RunConfig
from splitlib.errors import ConfigError
from splitlib.experiment import prepare
from splitlib.measuring.records import BatchTiming, counts_here, load_together, save_timing
from splitlib.measuring.spans import bytes_by_tensor, computation_seconds, peak_receive, peak_send
from splitlib.pipeline.remote.client import Line
from splitlib.pipeline.remote.link import Link
from splitlib.pipeline.stage import Stage
from splitlib.progress import Progress
from splitlib.runtime import pick_device, provenance, timed
from splitlib.tally import check_may_measure
from splitlib.timeline import Span
from splitlib.training import Trainer

KEPT_BATCHES = 4  # steps go round these, so that loading data is no part of the time
Opened = Callable[[RunConfig], AbstractContextManager[Trainer]]


def measure_in_turn(
    configs: Mapping[str, RunConfig],
    *,
    devices: Sequence[str] = ("auto",),
    hub: Path | None = None,
    batches: int = 10,
    warmup: int = 3,
    link: str = "",
    opened: Opened | None = None,
    visits: int = 0,
    fresh: bool = False,
) -> dict[str, BatchTiming]:
    """Return the timings of ``configs``, from disk or new.

    Those on disk count if they were measured together, long enough, and on this hardware (or only records are shown).
    Each round takes one batch of every config, so that whatever else the machine does meets all of them; with
    ``visits`` a round is a visit.

    Args:
        configs: what to time, by label.
        devices: ``auto``, ``cpu``, ``cuda:N``: one for all stages, or one for each (an unsplit model takes the first).
        hub: a local mirror of the hub.
        batches: how many count, at least.
        warmup: batches before them, of each config.
        link: between client and server, in words; part of the record's name.
        opened: makes the trainer of a config, ready to step, for the length of a ``with``; by default in this process.
        visits: for trainers that cannot be open at once, such as clients of one server, or too many for the memory:
            each config is opened so many times, with a warm-up each time, and takes its share of the batches. 0: all
            are open, a batch each in turn.
        fresh: measure although timings exist.

    Raises:
        SplitlibError: a setting is impossible, data or weights are missing, or a timing on disk is damaged.
    """
    if visits < 0 or visits > batches:
        raise ConfigError(f"visits must be from 0 to the number of batches, {batches}, not {visits}")
    if batches < 1 or warmup < 0:
        raise ConfigError(f"batches must be at least 1 and warmup at least 0, not {batches} and {warmup}")
    changing = [name for name, config in configs.items() if config.coding == "change"]
    if changing:
        raise ConfigError(
            f"{changing[0]!r} codes changes, whose bytes depend on what was sent an epoch before: train it"
        )
    placed = tuple(str(pick_device(name)) for name in devices)
    kept = None if fresh else load_together(list(configs.values()), placed, link, batches)
    if kept is None or not counts_here(kept[0].environment, placed):
        check_may_measure(f"the time per batch of {', '.join(configs)}, taken in turn,")
        opened = opened or _in_process(hub, placed)
        if visits:
            watches = _visit_in_turn(list(configs.values()), opened, batches, warmup, visits)
        else:
            watches = _step_in_turn(list(configs.values()), opened, batches, warmup)
        together = uuid.uuid4().hex
        kept = [watch.timing(warmup, placed, link, together) for watch in watches]
        for timing in kept:
            save_timing(timing)
    return dict(zip(configs, kept, strict=True))


def _in_process(hub: Path | None, devices: Sequence[str]) -> Opened:
    placed = [torch.device(name) for name in devices]
    return lambda config: nullcontext(prepare(config, hub, placed if len(placed) > 1 else placed[0]))


def over_link(dial: Callable[[], Line], link: Link, *, hub: Path | None = None, device: str = "cpu") -> Opened:
    """Return how to open a config as the client of the server that ``dial`` connects to, over ``link``.

    A server serves one client at a time: give ``visits`` to :func:`measure_in_turn`.
    """

    @contextmanager
    def opened(config: RunConfig) -> Iterator[Trainer]:
        with prepare(config, hub, pick_device(device), server=dial, link=link).opened() as trainer:
            yield trainer

    return opened


def _step_in_turn(configs: Sequence[RunConfig], opened: Opened, batches: int, warmup: int) -> list[_Watch]:
    with ExitStack() as stack:
        watches = [_Watch() for _ in configs]
        for watch, config in zip(watches, configs, strict=True):
            watch.visit(stack.enter_context(opened(config)))
        with Progress("time per batch", (warmup + batches) * len(watches)) as progress:
            for number, watch in itertools.product(range(warmup + batches), watches):
                watch.step(counts=number >= warmup)
                progress.advance()
        return watches


def _visit_in_turn(
    configs: Sequence[RunConfig], opened: Opened, batches: int, warmup: int, visits: int
) -> list[_Watch]:
    watches = [_Watch() for _ in configs]
    shares = [batches // visits + (number < batches % visits) for number in range(visits)]
    with Progress("time per batch", len(configs) * (visits * warmup + batches)) as progress:
        for share, (watch, config) in itertools.product(shares, list(zip(watches, configs, strict=True))):
            _visit(watch, config, opened, warmup, share, progress)
            gc.collect()  # a trainer is full of cycles, and the next one wants its memory
    return watches


def _visit(watch: _Watch, config: RunConfig, opened: Opened, warmup: int, share: int, progress: Progress) -> None:
    with opened(config) as trainer:
        watch.visit(trainer)
        for number in range(warmup + share):
            watch.step(counts=number >= warmup)
            progress.advance()
        watch.leave()


def stages_of(trainer: Trainer) -> list[Stage]:
    """Return the stages in this process, in order."""
    return sorted((m for m in trainer.engine.modules() if isinstance(m, Stage)), key=lambda stage: stage.index)


class _Watch:
    """Steps a trainer through its first batches again and again, and notes what each step took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.spans: list[list[Span]] = []
        self.traffic: list[tuple[int, int]] = []

    def visit(self, trainer: Trainer) -> None:
        """Begin, or go on with another trainer of the same config."""
        self.trainer: Trainer | None = trainer
        self.config, self.data_label = trainer.config, trainer.data.label
        self.batches = itertools.cycle(list(itertools.islice(trainer.rest_of_epoch(), KEPT_BATCHES)))

    def leave(self) -> None:
        """Let go of the trainer, so that one at a time is in memory."""
        self.trainer, self.batches = None, itertools.cycle(())

    def step(self, *, counts: bool) -> None:
        """Take one step, and note it if it ``counts``."""
        trainer = self.trainer
        assert trainer is not None, "a visit comes before a step"
        traffic = trainer.engine.traffic
        before = traffic.sent_bytes, traffic.uncompressed_bytes
        inputs, labels = next(self.batches)
        _, seconds = timed(trainer.step, inputs, labels)
        trainer.state.step += 1  # dropout and the other side count the steps
        spans = trainer.engine.take_spans()
        if not counts:
            return
        self.seconds.append(seconds)
        self.spans.append(spans)
        self.traffic.append((traffic.sent_bytes - before[0], traffic.uncompressed_bytes - before[1]))

    def timing(self, warmup: int, devices: tuple[str, ...], link: str, together: str) -> BatchTiming:
        """Return what was noted."""
        spans = self.spans
        middle = statistics.median(self.seconds)
        typical = min(range(len(spans)), key=lambda number: abs(self.seconds[number] - middle))
        payload, uncompressed = (round(statistics.mean(each)) for each in zip(*self.traffic, strict=True))
        return BatchTiming(
            config=self.config,
            devices=devices,
            link=link,
            data_label=self.data_label,
            together=together,
            warmup=warmup,
            seconds=tuple(self.seconds),
            computation=tuple(computation_seconds(each) for each in spans if each),
            payload_bytes=payload,
            uncompressed_bytes=uncompressed,
            tensor_bytes=bytes_by_tensor(spans[-1]),
            peak_send=max((peak_send(each) for each in spans if each), default=float("nan")),
            peak_receive=max((peak_receive(each) for each in spans if each), default=float("nan")),
            spans=tuple(spans[typical]),
            **provenance(*map(torch.device, devices)),
        )
