"""Measuring what layers and compressors cost: one micro-batch after the other, each layer on its own, on real data."""

from __future__ import annotations

import datetime
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from splitlib.config import RunConfig
from splitlib.experiment import prepare
from splitlib.measuring.batches import stages_of, synchronize
from splitlib.metering import count_macs
from splitlib.partition import Unit, cuts, units
from splitlib.pipeline.engine import batch_loss
from splitlib.pipeline.remote.wire import ACTIVATION_1, Frame, decode_frame, encode_frame
from splitlib.pipeline.stage import Clock, Stage
from splitlib.planner.candidates import codec, named_partitions
from splitlib.planner.costs import (
    ACTIVATION,
    CodecCost,
    Costs,
    Layer,
    LayerTimes,
    codec_key,
    costs_path,
    depends_on,
    read_costs,
    save_costs,
)
from splitlib.progress import Progress
from splitlib.runtime import environment

T = TypeVar("T")
Values = tuple[Tensor, ...]
REPEATS, WARMUP = 5, 2


@dataclass(frozen=True, order=True)
class Wanted:
    """One compressor on one tensor."""

    size: int
    """Samples in a micro-batch."""
    direction: str
    cut: int
    """Units before it."""
    spec: str

    @property
    def key(self) -> str:
        """Its name among the costs."""
        return codec_key(self.spec, self.direction, self.cut, self.size)


def measured_costs(
    config: RunConfig,
    *,
    sizes: Collection[int],
    wanted: Callable[[Costs], Collection[Wanted]],
    hub: Path | None,
    device: torch.device,
    fresh: bool = False,
    repeats: int = REPEATS,
) -> Costs:
    """Return the costs of ``config`` on ``device``: from the file of an earlier call, with what it lacks measured.

    What was measured is kept after each size of micro-batch, so a call that is stopped loses little.

    Args:
        config: its partition, compressors and number of micro-batches do not matter here.
        sizes: of micro-batches, in samples.
        wanted: the compressors to measure, once the layers are known.
        hub: a local mirror of the hub.
        device: where everything runs.
        fresh: measure all of it again.
        repeats: micro-batches, and encodings, in each median.

    Raises:
        SplitlibError: a setting is impossible, data or weights are missing, or the file is damaged.
    """
    path = costs_path(config, device)
    costs = read_costs(path, config) if path.exists() and not fresh else None
    if costs is not None and not _missing(costs, sizes, wanted(costs)):
        return costs
    bench = Bench(config, hub, device)
    costs = costs or bench.layers()
    missing = _missing(costs, sizes, wanted(costs))
    passes = {size: 0 if size in costs.sizes else repeats for size in missing}
    steps = sum(len(each) + (passes[size] + WARMUP if passes[size] else 1) for size, each in missing.items())
    with Progress(f"planner: layers and compressors on {device}", steps) as progress:
        for size, compressors in sorted(missing.items(), reverse=True):
            times, tensors = bench.passes(size, passes[size], progress)
            costs = costs.adding(sizes=times, codecs=dict(bench.codecs(compressors, tensors, repeats, progress)))
            save_costs(costs, path)
    return costs


def _missing(costs: Costs, sizes: Collection[int], wanted: Collection[Wanted]) -> dict[int, list[Wanted]]:
    """Return what has to be measured, by size of micro-batch; a size without its layers' times has an entry too."""
    compressors = {size: [w for w in wanted if w.size == size and w.key not in costs.codecs] for size in sizes}
    return {size: each for size, each in compressors.items() if each or size not in costs.sizes}


def uncut(config: RunConfig) -> RunConfig:
    """Return ``config`` as one model in one process, with nothing between its layers."""
    return config.replace(
        partition="none", cuts="", stages=3, insert="none", insert_options={}, chunks=1,
        compressor="none", compressor_options={}, gradient_compressor="same", gradient_options={},
        engine="in_process", schedule="gpipe", replicas=1, recompute="never", batch_norm="micro_batch",
        micro_batch_loss="mean",
    )  # fmt: skip


class Bench:
    """A model taken apart into its layers, and one batch of its data."""

    def __init__(self, config: RunConfig, hub: Path | None, device: torch.device) -> None:
        self.config, self.device = config, device
        self.trainer = prepare(uncut(config), hub, device)
        whole: Any = stages_of(self.trainer)[0].layers
        self.model = whole.model
        self.units: list[Unit] = units(self.model)
        clock = Clock(config.seed)
        self.stages = [Stage(unit, k, clock, config.precision, device).train() for k, unit in enumerate(self.units)]
        self.batch: tuple[Values, Tensor] = next(iter(self.trainer.rest_of_epoch()))

    def layers(self) -> Costs:
        """Return what does not depend on the micro-batch; no times of layers and no compressors yet."""
        macs = self._macs()
        layers = [
            Layer(name=_name(unit), macs=each, parameters=sum(p.numel() for p in unit.parameters() if p.requires_grad))
            for unit, each in zip(self.units, macs, strict=True)
        ]
        named = {}
        for name in named_partitions(self.config.kind):
            first, second = cuts(self.model, name)
            named[name] = (first, second)
        return Costs(
            depends_on=depends_on(self.config),
            device=str(self.device),
            data_label=self.trainer.data.label,
            data_fingerprint=self.trainer.data.fingerprint,
            layers=tuple(layers),
            named_cuts=named,
            optimizer=self._optimizer_seconds(),
            environment=environment(self.device),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )

    def _macs(self) -> list[int]:
        """Return the MACs of each layer for the first sample."""
        values = tuple(x[:1].to(self.device) for x in self.batch[0])
        found = []
        for unit in self.units:
            found.append(count_macs(unit, values).total)
            with torch.no_grad():
                values = unit.eval()(values)
            unit.train()
        return found

    def _optimizer_seconds(self) -> float:
        """Return the median time of a step over gradients of zero, which leave the weights as they are or nearly so."""
        updater = self.trainer.updater
        saved = [p.detach().clone() for p in self.model.parameters()]
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        seconds = [_timed(updater.optimizer.step)[1] for _ in range(WARMUP + REPEATS)]
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), saved, strict=True):
                parameter.copy_(value)
        updater.zero_grad()
        return statistics.median(seconds[WARMUP:])

    def passes(self, size: int, repeats: int, progress: Progress) -> tuple[dict[int, LayerTimes], Tensors]:
        """Return the layers' times for micro-batches of ``size`` samples, and the first one's tensors at all cuts.

        Without ``repeats`` there are only the tensors.
        """
        inputs, labels = self.batch
        chunk = tuple(x[:size].to(self.device) for x in inputs)
        runs: list[_Pass] = []
        tensors: Tensors | None = None
        for _ in range(WARMUP + repeats if repeats else 1):
            run = _Pass(self.stages)
            run.forward(chunk, labels[:size].to(self.device), share=size / len(labels))
            run.backward(self.trainer.updater.scale)
            self.trainer.updater.zero_grad()
            tensors = tensors or Tensors(run.outputs, [leaf.grad for leaf in run.leaves], chunk[1:])
            runs.append(replace(run, leaves=[], outputs=[]))
            progress.advance()
        assert tensors is not None
        return ({size: self._times(runs[WARMUP:], tensors)} if repeats else {}), tensors

    def _times(self, runs: Sequence[_Pass], tensors: Tensors) -> LayerTimes:
        first, *_ = tensors.outputs
        frame, _ = encode_frame(codec("none"), first, Frame(kind=ACTIVATION_1), tensors.beside)
        return LayerTimes(
            forward=tuple(map(statistics.median, zip(*(run.forward_seconds for run in runs), strict=True))),
            backward=tuple(map(statistics.median, zip(*(run.backward_seconds for run in runs), strict=True))),
            nbytes=tuple(x.numel() * x.element_size() for x in tensors.outputs),
            beside_nbytes=frame.beside_nbytes,
            repeats=len(runs),
        )

    def codecs(
        self, wanted: Sequence[Wanted], tensors: Tensors, repeats: int, progress: Progress
    ) -> Iterator[tuple[str, CodecCost]]:
        """Yield name and costs of each of the compressors; those on one tensor are measured in turn."""
        places = dict.fromkeys((each.direction, each.cut) for each in wanted)
        for direction, cut in places:
            here = [each for each in wanted if (each.direction, each.cut) == (direction, cut)]
            x = tensors.at(direction, cut)
            if x is None:  # nothing before this cut trains, so no gradient crosses it
                found = [CodecCost(nbytes=0, encode=0.0, decode=0.0, error=0.0)] * len(here)
            else:
                beside = tensors.beside if direction == ACTIVATION else ()
                found = in_turn([each.spec for each in here], x, beside, repeats)
            for each, cost in zip(here, found, strict=True):
                progress.advance()
                yield each.key, cost


@dataclass(frozen=True)
class Tensors:
    """What one micro-batch sends over each possible cut."""

    outputs: Sequence[Tensor]
    """Of each layer."""
    gradients: Sequence[Tensor | None]
    """Of each layer's input."""
    beside: Values

    def at(self, direction: str, cut: int) -> Tensor | None:
        """Return the tensor at the cut after ``cut`` layers; None for a gradient that nothing needs."""
        return self.outputs[cut - 1] if direction == ACTIVATION else self.gradients[cut]


@dataclass
class _Pass:
    """One micro-batch through all layers and back, each cut off from the next as at a cut."""

    stages: Sequence[Stage]
    leaves: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    forward_seconds: list[float] = field(default_factory=list)
    backward_seconds: list[float] = field(default_factory=list)

    def forward(self, inputs: Values, labels: Tensor, *, share: float) -> None:
        """Go forward; the last layer's time has the loss in it, which is ``share`` of the batch's."""
        values, needed = inputs, False
        for number, stage in enumerate(self.stages):
            leaf = values[0].detach().requires_grad_(needed)
            last = number == len(self.stages) - 1
            made, seconds = _timed(self._run, stage, (leaf, *values[1:]), labels if last else None, share)
            self.leaves.append(leaf)
            self.outputs.append(made[0])
            self.forward_seconds.append(seconds)
            values, needed = made, made[0].requires_grad

    def _run(self, stage: Stage, values: Values, labels: Tensor | None, share: float) -> Values:
        made: Values = stage(values, 0)
        return made if labels is None else (batch_loss(made[0], labels) * share,)

    def backward(self, scale: Callable[[Tensor], Tensor]) -> None:
        """Go back as far as anything trains."""
        upstream: Tensor | None = None
        seconds = []
        for output, leaf in zip(reversed(self.outputs), reversed(self.leaves), strict=True):
            if not output.requires_grad:
                seconds.append(0.0)
                continue
            target = scale(output) if upstream is None else output
            seconds.append(_timed(target.backward, upstream)[1])
            upstream = leaf.grad
        self.backward_seconds = seconds[::-1]


def in_turn(specs: Sequence[str], x: Tensor, beside: Values, repeats: int) -> list[CodecCost]:
    """Return the costs of compressors on one tensor, as an engine would send it, measured in turn."""
    codecs = [codec(spec) for spec in specs]
    encode: list[list[float]] = [[] for _ in codecs]
    decode: list[list[float]] = [[] for _ in codecs]
    nbytes, errors = [0] * len(codecs), [0.0] * len(codecs)
    for number in range(WARMUP + repeats):
        for place, each in enumerate(codecs):
            (frame, message), seconds = _timed(encode_frame, each, x.detach(), Frame(kind=ACTIVATION_1), beside)
            (back, _), later = _timed(decode_frame, frame, message, x.device)
            if number >= WARMUP:
                encode[place].append(seconds)
                decode[place].append(later)
            nbytes[place], errors[place] = message.numel(), relative_error(back, x)
    medians = ([statistics.median(each) for each in column] for column in (encode, decode))
    return [
        CodecCost(nbytes=n, encode=e, decode=d, error=error)
        for n, e, d, error in zip(nbytes, *medians, errors, strict=True)
    ]


def relative_error(back: Tensor, x: Tensor) -> float:
    """Return the mean squared error over the variance (over the mean square where all values are the same).

    Tensors with inf or NaN travel as they are, so these values count as exact.

    >>> relative_error(torch.tensor([0.0, 0.0]), torch.tensor([-1.0, 1.0]))
    1.0
    """
    x = x.detach().double()
    squared = (back.double() - x).nan_to_num(0.0, 0.0, 0.0).square().mean().item()
    spread = x.var(correction=0).item() or x.square().mean().item()
    return squared / spread if squared else 0.0


def _timed(run: Callable[..., T], *arguments: Any) -> tuple[T, float]:
    """Return what ``run`` returns, and how long it took."""
    synchronize()
    start = time.perf_counter()
    result = run(*arguments)
    synchronize()
    return result, time.perf_counter() - start


def _name(unit: Unit) -> str:
    """Return what to call a layer: its own class, behind the one that passes other tensors on."""
    layer = getattr(unit, "layer", unit)
    return type(layer).__name__.strip("_")
