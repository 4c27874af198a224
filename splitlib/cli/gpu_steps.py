"""What ``gpu`` does, step by step. Each leaves a table in the study's folder and is not repeated where that lies."""

from __future__ import annotations

import importlib
import itertools
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.std import tqdm

from splitlib.config import RunConfig
from splitlib.errors import ConfigError
from splitlib.experiment import run
from splitlib.files import write_atomically, write_text
from splitlib.gpu_rows import timed_rows, trained_rows
from splitlib.measuring.batches import measure_in_turn
from splitlib.measuring.gradients import compare_gradients
from splitlib.measuring.records import timing_path
from splitlib.profiles import Profile
from splitlib.progress import Progress
from splitlib.results import load_record, record_path
from splitlib.runtime import hardware, results_dir

ESTIMATE_STEPS = 20
SMALL_TENSOR = "activation [8,1280,7,7]"
# Batches timed of each row, warm-up, and seconds for each codec; smoke proves that all of it runs.
_EFFORT = {"paper": (10, 3, 1.0), "smoke": (2, 1, 0.02)}


class TimeIsUp(Exception):
    """The study has used its minutes; everything is saved."""


@dataclass
class TimeLimit:
    """How long the study may take, and whether it has said how long it will."""

    ends: float = float("inf")
    """By :func:`time.monotonic`."""
    estimated: bool = False

    @property
    def over(self) -> bool:
        """Whether the minutes are used up."""
        return time.monotonic() >= self.ends


@dataclass(frozen=True, kw_only=True)
class Study:
    """One call of ``gpu``."""

    profile: Profile
    device: torch.device
    hub: Path | None
    out: Path
    rows: Mapping[str, RunConfig]
    """Those to train, by label, as the profile runs them."""
    seeds: int
    epochs: int | None
    """Of each run, where it is not the profile's."""
    limit: TimeLimit

    @property
    def split_devices(self) -> tuple[str, ...]:
        """Of head, body and tail where the cores are the client."""
        return ("cpu",) if self.device.type == "cpu" else ("cpu", str(self.device), "cpu")

    @property
    def checkpoints(self) -> Path:
        """The folder of unfinished runs."""
        return self.out / "checkpoints"

    def runs(self) -> Iterator[tuple[str, RunConfig]]:
        """Yield every run's label and config: all rows with the first seed, then with the next."""
        for seed in range(self.seeds):
            yield from ((label, config.replace(seed=config.seed + seed)) for label, config in self.rows.items())

    def table(self, step: str, suffix: str = ".csv") -> Path:
        """Return where a step's table lies."""
        return self.out / f"{self.profile.name}-{self.device.type}-{step}{suffix}"

    def keep(self, path: Path) -> None:
        """Copy a record into the folder."""
        _copy(path, self.out / "results" / path.name)

    def fetch(self) -> None:
        """Copy the folder's records to ``results/`` where they are missing there."""
        for path in (self.out / "results").glob("*.json"):
            if not (results_dir() / path.name).exists():
                _copy(path, results_dir() / path.name)


def _copy(source: Path, target: Path) -> None:
    write_atomically(target, lambda temporary: shutil.copyfile(source, temporary))


def torchgpipe(study: Study) -> None:
    """Compare torchgpipe's gradients on the device, all stages there, with accumulation on the unsplit model."""
    config, path = study.rows[next(iter(study.rows))], study.table("torchgpipe")
    if not path.exists():
        plain = config.replace(partition="first_last", compressor="none", compressor_options={})
        found = compare_gradients(plain, devices=[study.device] * (plain.cut_count + 1), hub=study.hub)
        about = {"hardware": hardware(study.device), "chunks": plain.chunks, "image_size": plain.image_size}
        values = {name: getattr(found, name) for name in ("difference", "largest", "loss", "unsplit_loss", "equal")}
        write_text(path, pd.DataFrame([about | values]).to_csv(index=False))
    print(path.read_text(encoding="utf-8"), flush=True)


def compressors(study: Study) -> None:
    """Time the compressors on the device beside the textbook version and plain uniform quantization."""
    path = study.table("compressors", ".md")
    if not path.exists():
        names = [SMALL_TENSOR] if study.profile.name == "smoke" else []
        write_text(path, _benchmarks().speeds(study.device, budget=_EFFORT[study.profile.name][2], names=names))
    print(path.read_text(encoding="utf-8"), flush=True)


def _benchmarks() -> Any:
    try:
        return importlib.import_module("benchmarks.compressors")
    except ImportError as error:
        raise ConfigError(
            f"the compressors' speeds are measured by benchmarks/, which cannot be imported ({error}): run "
            "'python -m splitlib gpu' in the repository's root, or leave the step out with --only"
        ) from error


def split(study: Study) -> None:
    """Time a batch of the rows of 003 §1.2 in turn, head and tail on the CPU and the body on the GPU."""
    batches, warmup, _ = _EFFORT[study.profile.name]
    configs = {label: study.profile.scale(config) for label, config in timed_rows().items()}
    found = measure_in_turn(configs, devices=study.split_devices, hub=study.hub, batches=batches, warmup=warmup)
    for timing in found.values():
        study.keep(timing_path(timing.config, timing.devices, timing.link))
    table = pd.DataFrame([{"row_label": label} | timing.row() for label, timing in found.items()])
    write_text(study.table("split"), table.to_csv(index=False))
    shown = ["row_label", "first_quartile_s", "time_per_batch_s", "third_quartile_s", "batches", "compression_ratio"]
    print(f"{table['data_label'][0]}, {table['hardware'][0]}, devices {table['devices'][0]}")
    print(table[shown].to_string(index=False), flush=True)


def train(study: Study) -> None:
    """Train every row that has no record, with each seed; a run that was stopped goes on from its checkpoint.

    Raises:
        TimeIsUp: before the last row was trained.
    """
    for label, config in study.runs():
        if study.limit.over and load_record(config) is None:
            raise TimeIsUp
        try:
            record = run(
                config,
                hub=study.hub,
                device=str(study.device),
                progress=partial(_Watched, study),
                checkpoints=study.checkpoints,
            )
        except KeyboardInterrupt:
            if study.limit.over:
                raise TimeIsUp from None
            raise
        study.keep(record_path(config))
        write_text(study.table("train"), pd.DataFrame(_trained(study)).to_csv(index=False))
        best = 100 * record.best.accuracy
        print(
            f"{label}, seed {config.seed}: {best:.2f} % at best, {record.compression_ratio:.4f} of the bytes",
            flush=True,
        )


def scaled_rows(profile: Profile, epochs: int | None) -> dict[str, RunConfig]:
    """Return all rows to train as the profile runs them, in so many ``epochs`` if they are given."""
    changes = {} if epochs is None else {"epochs": epochs}
    return {label: profile.scale(config, **changes) for label, config in trained_rows().items()}


def _trained(study: Study) -> Iterator[dict[str, Any]]:
    """Yield a table row for every record there is, of all rows, seed by seed until one has none."""
    rows = scaled_rows(study.profile, study.epochs)
    for seed in itertools.count():
        records = {label: load_record(config.replace(seed=config.seed + seed)) for label, config in rows.items()}
        found = [{"row_label": label} | record.row() for label, record in records.items() if record is not None]
        if not found:
            return
        yield from found


def waiting(study: Study) -> list[tuple[str, RunConfig]]:
    """Return the runs that have no record."""
    return [(label, config) for label, config in study.runs() if load_record(config) is None]


class _Watched(Progress):
    """Stops a run when time is up, and says once, after the first steps, how long all will take."""

    def __init__(self, study: Study, title: str, total: int, done: int = 0) -> None:
        super().__init__(title, total, done)
        self.study, self.taken, self.warm = study, 0, 0.0

    def advance(self, steps: int = 1, **numbers: float) -> None:
        """Count, look whether time is up, and tell the estimate when there is one."""
        super().advance(steps, **numbers)
        self.taken += steps
        self.stopped = self.study.limit.over
        if self.taken == 1:
            self.warm = time.monotonic()  # the first step also loads kernels
        if self.taken == max(2, min(ESTIMATE_STEPS, self.total // 2)) and not self.study.limit.estimated:
            self.study.limit.estimated = True
            self._estimate((time.monotonic() - self.warm) / (self.taken - 1))

    def _estimate(self, step: float) -> None:
        runs, this = len(waiting(self.study)), step * (self.total - self.done)
        rest = this + (runs - 1) * step * self.total
        tqdm.write(
            f"{step:.3f} s a step: {this / 60:.1f} min for this run, {rest / 60:.1f} for {runs} if all are alike"
        )
