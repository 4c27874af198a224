"""Where the time of a data-parallel batch goes, as 004 asks, and a pipeline's batch beside it, in one run.

A batch is timed on the first replica, after all have met. Its parts add up to the whole:

* ``transfer``: inputs and labels from the host's memory to the device. On a CPU there is nothing to move.
* ``forward``: to the loss.
* ``backward``: the gradients of this replica's share, as the same batch takes right before without any exchange
  (``no_sync``).
* ``all_reduce``: what the exchange adds to that: the backward pass with it, less the one without. Most of the exchange
  hides behind the backward pass, which starts it as soon as a bucket of gradients is complete; this is the rest, and
  waiting for the slowest replica.
* ``optimizer``: the update of all weights.

004 has no definition; its parts leave out the forward pass. GPUs are waited for before each reading of the clock.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from splitlib.compressors import make_compressor
from splitlib.config import RunConfig
from splitlib.files import write_text
from splitlib.measuring.records import readable
from splitlib.models.build import build_reference
from splitlib.optimization import make_optimizer
from splitlib.partition import split
from splitlib.pipeline.data_parallel import DataParallel, Group, joined, replica_devices
from splitlib.pipeline.engine import Engine, batch_loss
from splitlib.pipeline.inprocess import build_pipeline
from splitlib.pipeline.processes import MEETING, leave, run_together
from splitlib.pipeline.remote.launch import end_with_parent
from splitlib.results import TIMING_PREFIX
from splitlib.runtime import provenance, results_dir, synchronize
from splitlib.tally import check_may_measure, only_records

PREFIX = f"{TIMING_PREFIX}breakdown-"
PARTS = ("transfer", "forward", "backward", "all_reduce", "optimizer")
DATA_PARALLEL, PIPELINE = "data_parallel", "pipeline"
NUM_LABELS = {"vision": 10, "text": 2}  # CIFAR-10, RTE
_OPTIMIZERS = {
    "sgd": RunConfig(task="cifar10", optimizer="sgd", lr=0.005, momentum=0.1),  # 003 §1.1
    "adamw": RunConfig(task="rte", optimizer="adamw", lr=2e-5),  # 001 §2.1
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is timed."""

    model: str
    """One of :data:`~splitlib.models.build.REFERENCE_MODELS`."""
    batch_size: int
    """Of the whole batch."""
    size: int
    """Pixels a side, or tokens."""
    optimizer: str = "sgd"
    parallelism: str = DATA_PARALLEL
    """Or ``pipeline``, in one process over the same devices, its head and tail on the first of two."""
    partition: str = "none"
    chunks: int = 1

    @property
    def kind(self) -> str:
        """``text`` or ``vision``."""
        return "text" if self.model.startswith("roberta") else "vision"


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """The times of one case, in seconds, one value a batch and part."""

    case: Case
    seconds: Mapping[str, Sequence[float]]

    @property
    def totals(self) -> list[float]:
        """Time per batch."""
        return [sum(parts) for parts in zip(*(self.seconds[name] for name in PARTS), strict=True)]

    def row(self) -> dict[str, Any]:
        """Return medians as one flat table row, with n and the middle half of the time per batch."""
        totals = self.totals
        low, middle, high = statistics.quantiles(totals, n=4, method="inclusive") if len(totals) > 1 else totals * 3
        return {
            **asdict(self.case),
            **{f"{name}_s": statistics.median(self.seconds[name]) for name in PARTS},
            "time_per_batch_s": middle,
            "first_quartile_s": low,
            "third_quartile_s": high,
            "batches": len(totals),
            "throughput_per_s": self.case.batch_size / middle,
        }


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Cases timed in one run, and on what."""

    devices: tuple[str, ...]
    threads: int
    """Of torch, in all replicas together, and in the pipeline's one process."""
    breakdowns: tuple[Breakdown, ...]
    environment: Mapping[str, Any]
    splitlib_version: str
    created: str
    """UTC date and time, ISO 8601."""

    def rows(self) -> list[dict[str, Any]]:
        """Return one table row a case."""
        return [breakdown.row() for breakdown in self.breakdowns]


def measure(
    cases: Sequence[Case],
    *,
    device: str = "auto",
    replicas: int = 2,
    batches: int = 8,
    warmup: int = 2,
    beside: str = "any",
    fresh: bool = False,
) -> Measurement:
    """Time ``cases`` with ``replicas`` processes, or return what this machine took for them before.

    Cases of one model that stand together are timed in turn, batch by batch, so that their ratios mean something.
    Where only records are shown, the latest of any machine will do: it says which.

    Args:
        cases: what to time.
        device: as :func:`~splitlib.pipeline.data_parallel.replica_devices` takes it.
        replicas: processes, and devices of the pipelines.
        batches: how many count.
        warmup: batches of each case before them.
        beside: ``embedded`` or ``real``, the data of the study that this belongs to, for the record's name: inputs are
            random, but what stands beside embedded data has its small sizes, and is not committed.
        fresh: time again although the results are there.

    Raises:
        SplitlibError: a device is missing, or a process failed.
    """
    devices = tuple(map(str, replica_devices(device, replicas)))
    threads = max(os.cpu_count() or 1, replicas)
    job = {
        "cases": [asdict(case) for case in cases], "devices": devices, "threads": threads,
        "batches": batches, "warmup": warmup,
    }  # fmt: skip
    found = _provenance(devices, threads)["environment"]
    path = _path(beside, json.dumps([job, found["hardware"], found["versions"]["torch"]], sort_keys=True))
    if only_records():
        path = _latest(cases, batches) or path
    if fresh or not path.exists():
        check_may_measure(f"the time per batch of {len(cases)} cases with {replicas} replicas")
        path.parent.mkdir(parents=True, exist_ok=True)
        command = ["-m", "splitlib.measuring.breakdown", json.dumps(job), str(path)]
        run_together(command, replicas, threads=threads // replicas)
    return read(path)


def _provenance(devices: Sequence[str], threads: int) -> dict[str, Any]:
    """Return what a record says of itself, on this machine with the threads of all replicas together."""
    own = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return provenance(*map(torch.device, devices))
    finally:
        torch.set_num_threads(own)


def _path(beside: str, identity: str) -> Path:
    return results_dir() / f"{PREFIX}{beside}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.json"


def _latest(cases: Sequence[Case], batches: int) -> Path | None:
    """Return the latest measurement of just these cases with so many batches, whatever it was made on."""
    found = {path: read(path) for path in results_dir().glob(f"{PREFIX}*.json")}
    alike = [
        path
        for path, made in found.items()
        if [one.case for one in made.breakdowns] == list(cases)
        and all(len(one.totals) == batches for one in made.breakdowns)
    ]
    return max(alike, key=lambda path: found[path].created, default=None)


def read(path: Path) -> Measurement:
    """Read a measurement; raise RecordError with the remedy if it is damaged."""
    with readable(path):
        values = json.loads(path.read_text(encoding="utf-8"))
        breakdowns = tuple(Breakdown(case=Case(**b["case"]), seconds=b["seconds"]) for b in values["breakdowns"])
        return Measurement(**{**values, "devices": tuple(values["devices"]), "breakdowns": breakdowns})


# --- In each process -------------------------------------------------------------------------------------------------


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
                **_provenance(devices, values["threads"]),
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
