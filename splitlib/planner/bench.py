"""Measuring what layers and compressors cost: one micro-batch after the other, each layer on its own, on real data."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splitlib.compressors import BEFORE
from splitlib.config import RunConfig
from splitlib.data import train_batches
from splitlib.experiment import prepare
from splitlib.files import check_writable
from splitlib.measuring.batches import stages_of
from splitlib.models.units import Unit, Values, units
from splitlib.partition import cuts, unit_macs
from splitlib.pipeline.remote.wire import ACTIVATION_1, Frame, encode_frame
from splitlib.pipeline.stage import CurrentStep, Stage
from splitlib.planner.candidates import codec, named_partitions
from splitlib.planner.codecs import WARMUP, in_turn
from splitlib.planner.costs import (
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
from splitlib.planner.passes import Pass, Tensors
from splitlib.progress import Progress
from splitlib.runtime import provenance, timed
from splitlib.tally import check_may_measure

REPEATS = 5


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
    check_may_measure(f"what layers and compressors of {config.model} cost on {device}")
    check_writable(path.parent, "$SPLITLIB_RESULTS")
    bench = Bench(config, hub, device)
    costs = costs or bench.layers()
    missing = _missing(costs, sizes, wanted(costs))
    passes = {size: 0 if size in costs.sizes else repeats for size in missing}
    steps = sum(len(each) + _pass_count(passes[size]) for size, each in missing.items())
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


def _pass_count(repeats: int) -> int:
    """Return how many micro-batches go through the layers: as many as are timed, or as compressors need."""
    return max(WARMUP + repeats if repeats else 0, BEFORE + 1)


def uncut(config: RunConfig) -> RunConfig:
    """Return ``config`` as one model in one process, with nothing between its layers."""
    return config.uncompressed(
        partition="none", cuts="", stages=3, insert="none", insert_options={}, chunks=1,
        engine="in_process", schedule="gpipe", replicas=1, recompute="never", micro_batch_loss="mean",
    )  # fmt: skip


class Bench:
    """A model taken apart into its layers, and its data."""

    def __init__(self, config: RunConfig, hub: Path | None, device: torch.device) -> None:
        self.config, self.device = config, device
        self.trainer = prepare(uncut(config), hub, device)
        whole: Any = stages_of(self.trainer)[0].layers
        self.model = whole.model
        self.units: list[Unit] = units(self.model)
        current = CurrentStep(config.seed)
        self.stages = [Stage(unit, k, current, config.precision, device).train() for k, unit in enumerate(self.units)]

    def micro_batches(self, size: int) -> Iterator[tuple[Values, Tensor]]:
        """Yield inputs and labels of ``size`` samples in the order of training, epoch after epoch.

        What is left of a batch when it is cut into such sizes is left out.
        """
        for epoch in count():
            batches = train_batches(
                self.trainer.data, batch_size=self.config.batch_size, seed=self.config.seed, epoch=epoch
            )
            for inputs, labels in batches:
                pieces = [x.to(self.device).split(size) for x in (*inputs, labels)]
                for *values, answers in zip(*pieces, strict=True):
                    if len(answers) == size:
                        yield tuple(values), answers

    def layers(self) -> Costs:
        """Return what does not depend on the micro-batch; no times of layers and no compressors yet."""
        macs = unit_macs(self.model, next(self.micro_batches(1))[0])
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
            **provenance(self.device),
        )

    def _optimizer_seconds(self) -> float:
        """Return the median time of a step over gradients of zero, which leave the weights as they are or nearly so."""
        updater = self.trainer.updater
        saved = [p.detach().clone() for p in self.model.parameters()]
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        seconds = [timed(updater.optimizer.step)[1] for _ in range(WARMUP + REPEATS)]
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), saved, strict=True):
                parameter.copy_(value)
        updater.zero_grad()
        return statistics.median(seconds[WARMUP:])

    def passes(self, size: int, repeats: int, progress: Progress) -> tuple[dict[int, LayerTimes], list[Tensors]]:
        """Return the layers' times for micro-batches of ``size`` samples, and what the first ones send over all cuts.

        The tensors are those of :data:`BEFORE` micro-batches and of the one after them, in the order of training.
        Without ``repeats`` there are only these.
        """
        runs: list[Pass] = []
        tensors: list[Tensors] = []
        for inputs, labels in islice(self.micro_batches(size), _pass_count(repeats)):
            run = Pass(self.stages)
            run.forward(inputs, labels, share=size / self.config.batch_size)
            run.backward(self.trainer.updater.scale)
            self.trainer.updater.zero_grad()
            if len(tensors) <= BEFORE:
                tensors.append(Tensors(run.outputs, [leaf.grad for leaf in run.leaves], inputs[1:]))
            runs.append(replace(run, leaves=[], outputs=[]))
            progress.advance()
        return ({size: self._times(runs[WARMUP:], tensors[0])} if repeats else {}), tensors

    def _times(self, runs: Sequence[Pass], tensors: Tensors) -> LayerTimes:
        first, *_ = tensors.outputs
        frame, _ = encode_frame(codec("none").encode, first, Frame(kind=ACTIVATION_1), tensors.beside)
        return LayerTimes(
            forward=tuple(map(statistics.median, zip(*(run.forward_seconds for run in runs), strict=True))),
            backward=tuple(map(statistics.median, zip(*(run.backward_seconds for run in runs), strict=True))),
            nbytes=tuple(x.numel() * x.element_size() for x in tensors.outputs),
            beside_nbytes=frame.beside_nbytes,
            repeats=len(runs),
        )

    def codecs(
        self, wanted: Sequence[Wanted], tensors: Sequence[Tensors], repeats: int, progress: Progress
    ) -> Iterator[tuple[str, CodecCost]]:
        """Yield name and costs of each of the compressors on the last micro-batch, after those before it.

        Those on one tensor are measured in turn.
        """
        places = dict.fromkeys((each.direction, each.cut) for each in wanted)
        for direction, cut in places:
            here = [each for each in wanted if (each.direction, each.cut) == (direction, cut)]
            crossed = [x for each in tensors if (x := each.at(direction, cut)) is not None]
            if not crossed:  # nothing before this cut trains, so no gradient crosses it
                found = [CodecCost(nbytes=0, encode=0.0, decode=0.0, error=0.0)] * len(here)
            else:
                found = in_turn([each.spec for each in here], crossed[-1], repeats, crossed[:-1])
            for each, cost in zip(here, found, strict=True):
                progress.advance()
                yield each.key, cost


def _name(unit: Unit) -> str:
    """Return what to call a layer: its own class, behind the one that passes other tensors on."""
    layer = getattr(unit, "layer", unit)
    return type(layer).__name__.strip("_")
