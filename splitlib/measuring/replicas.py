"""What one process of a breakdown does: ``python -m splitlib.measuring.replicas``, the job as JSON, the file to write.

:func:`splitlib.measuring.breakdown.measure` starts as many as there are replicas.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from splitlib.compressors import make_compressor
from splitlib.config import RunConfig
from splitlib.files import write_text
from splitlib.measuring.breakdown import PARTS, PIPELINE, Breakdown, Case, Measurement, provenance_with
from splitlib.models.build import build_reference
from splitlib.optimization import make_optimizer
from splitlib.partition import split
from splitlib.pipeline.data_parallel import DataParallel, Group, joined
from splitlib.pipeline.engine import Engine, batch_loss
from splitlib.pipeline.inprocess import build_pipeline
from splitlib.pipeline.processes import MEETING, leave
from splitlib.pipeline.remote.launch import end_with_parent
from splitlib.runtime import synchronize

NUM_LABELS = {"vision": 10, "text": 2}  # CIFAR-10, RTE
_OPTIMIZERS = {
    "sgd": RunConfig(task="cifar10", optimizer="sgd", lr=0.005, momentum=0.1),  # 003 §1.1
    "adamw": RunConfig(task="rte", optimizer="adamw", lr=2e-5),  # 001 §2.1
}


def main(job: str, path: str) -> None:
    """Be one of the replicas; the first writes the measurement."""
    if MEETING in os.environ:
        end_with_parent()
    values = json.loads(job)
    cases, devices = [Case(**case) for case in values["cases"]], values["devices"]
    with joined(len(devices), ",".join(devices)) as group:
        placed = [torch.device(name) for name in devices]
        breakdowns: list[Breakdown] = []
        for _, alike in itertools.groupby(cases, key=lambda case: case.model):
            benches = _benches(list(alike), group, placed, values["threads"])
            for turn in range(values["warmup"] + values["batches"]):
                for bench in benches:
                    bench.batch(counts=turn >= values["warmup"])
            breakdowns += [Breakdown(case=bench.case, seconds=bench.seconds) for bench in benches]
        if group.rank == 0:
            made = Measurement(
                devices=tuple(devices),
                threads=values["threads"],
                breakdowns=tuple(breakdowns),
                **provenance_with(devices, values["threads"]),
            )
            write_text(Path(path), json.dumps(asdict(made), indent=1) + "\n")


def _benches(cases: Sequence[Case], group: Group, devices: Sequence[torch.device], threads: int) -> list[_Bench]:
    """Return what times each case of one model; all replicas of it are one."""
    torch.manual_seed(0)
    model = build_reference(cases[0].model, NUM_LABELS[cases[0].kind])
    replica: DataParallel | None = None
    benches = []
    for case in cases:
        if case.parallelism == PIPELINE:
            benches.append(_Bench(case, _pipeline(case, model, devices) if group.rank == 0 else None, group, threads))
        else:
            replica = replica or DataParallel(split(copy.deepcopy(model), "none").parts[0], group)
            benches.append(_Bench(case, replica, group, threads // group.size))
    return benches


def _pipeline(case: Case, model: nn.Module, devices: Sequence[torch.device]) -> Engine:
    parts = split(copy.deepcopy(model), case.partition).parts
    placed = [devices[stage % len(devices)] for stage in range(len(parts))]
    codec = make_compressor("none")
    return build_pipeline(parts, devices=placed, chunks=case.chunks, activations=codec, gradients=codec)


class _Bench:
    """Times one case, a batch at a time. An engine that is None waits while the first replica works."""

    def __init__(self, case: Case, engine: Engine | None, group: Group, threads: int) -> None:
        self.case, self.engine, self.group, self.threads = case, engine, group, threads
        self.seconds: dict[str, list[float]] = {name: [] for name in PARTS}
        self.inputs, self.labels = _example(case)
        if engine is not None:
            engine.train()
            self.optimizer = make_optimizer(engine, _OPTIMIZERS[case.optimizer])

    def batch(self, *, counts: bool) -> None:
        """Train on one batch, and note its times if it counts."""
        times = dict.fromkeys(PARTS, 0.0)
        if self.engine is not None:
            torch.set_num_threads(self.threads)
            if isinstance(self.engine, DataParallel):
                alone = self._step(self.engine, times={}, exchange=False)
                dist.barrier()
                both = self._step(self.engine, times=times, exchange=True)
                times.update(backward=alone, all_reduce=both - alone)
            else:
                times["backward"] = self._step(self.engine, times=times, exchange=True)
        dist.barrier()
        if counts:
            for name in PARTS:
                self.seconds[name].append(times[name])

    def _step(self, engine: Engine, *, times: dict[str, float], exchange: bool) -> float:
        """Return the time of the backward pass; without an exchange no step follows it."""
        clock = _Stopwatch()
        parallel = isinstance(engine, DataParallel)
        share: Callable[[Tensor], Tensor] = self.group.share if parallel else lambda x: x.to(engine.device)
        with engine.replica.no_sync() if isinstance(engine, DataParallel) and not exchange else nullcontext():
            inputs, labels = tuple(map(share, self.inputs)) if parallel else self.inputs, share(self.labels)
            times["transfer"] = clock.lap()
            loss = batch_loss(engine(*inputs), labels)
            times["forward"] = clock.lap()
            loss.backward()
            backward = clock.lap()
        if exchange:
            self.optimizer.step()
            times["optimizer"] = clock.lap()
        self.optimizer.zero_grad(set_to_none=True)
        return backward


class _Stopwatch:
    """Reads the clock after every GPU has done what it was told."""

    def __init__(self) -> None:
        self.last = _now()

    def lap(self) -> float:
        """Return the seconds since the last call."""
        before, self.last = self.last, _now()
        return self.last - before


def _now() -> float:
    synchronize()
    return time.perf_counter()


def _example(case: Case) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return random inputs and labels of a whole batch; their values do not matter for the time."""
    labels = torch.arange(case.batch_size) % NUM_LABELS[case.kind]
    if case.kind == "vision":
        return (torch.randn(case.batch_size, 3, case.size, case.size),), labels
    ids = torch.randint(4, 50, (case.batch_size, case.size))
    return (ids, torch.ones_like(ids)), labels


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave(0)
