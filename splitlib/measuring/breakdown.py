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

import hashlib
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from splitlib.measuring.records import readable
from splitlib.pipeline.data_parallel import replica_devices
from splitlib.pipeline.processes import run_together
from splitlib.results import TIMING_PREFIX
from splitlib.runtime import provenance, results_dir
from splitlib.tally import check_may_measure, only_records

PREFIX = f"{TIMING_PREFIX}breakdown-"
PARTS = ("transfer", "forward", "backward", "all_reduce", "optimizer")
DATA_PARALLEL, PIPELINE = "data_parallel", "pipeline"


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
    found = provenance_with(devices, threads)["environment"]
    path = _path(beside, json.dumps([job, found["hardware"], found["versions"]["torch"]], sort_keys=True))
    if only_records():
        path = _latest(cases, batches) or path
    if fresh or not path.exists():
        check_may_measure(f"the time per batch of {len(cases)} cases with {replicas} replicas")
        path.parent.mkdir(parents=True, exist_ok=True)
        command = ["-m", "splitlib.measuring.replicas", json.dumps(job), str(path)]
        run_together(command, replicas, threads=threads // replicas)
    return read(path)


def provenance_with(devices: Sequence[str], threads: int) -> dict[str, Any]:
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
