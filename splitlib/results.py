"""Result records: one JSON file for each config, named by its key.

A record holds the config, what was measured, and what it was measured on. Figures and tables are made from records
alone, so every one of them can be redrawn without training.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from splitlib.config import KEY_DIGITS, RunConfig, size_text
from splitlib.errors import ConfigError, RecordError
from splitlib.files import file_stem, write_text
from splitlib.runtime import either, results_dir
from splitlib.training import EpochResult

TIMING_PREFIX = "timing-"
"""What the names of :mod:`splitlib.measuring.records`' files start with."""
_RECORD_NAME = re.compile(rf".*-[0-9a-f]{{{KEY_DIGITS}}}\.json")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What one run gave, and on what."""

    config: RunConfig
    data_label: str
    """Which data was used, in words: goes into titles and table rows."""
    data_fingerprint: str
    """Hash of the samples themselves."""
    metric: str
    """The task's own metric: ``accuracy`` or ``matthews``."""
    history: tuple[EpochResult, ...]
    diverged: bool
    """The loss stopped being a number and training ended early."""
    activation_bytes: int
    gradient_bytes: int
    uncompressed_bytes: int
    train_seconds: float
    """Time inside training steps: no evaluation, no loading."""
    samples_seen: int
    parameters: int
    weights_norm: float | None = None
    """L2 norm of what training started from: tells other weights of one name apart. None in records made before it."""
    environment: dict[str, Any]
    splitlib_version: str
    created: str
    """UTC date and time, ISO 8601."""

    @property
    def last(self) -> EpochResult:
        """The final epoch."""
        return self.history[-1]

    @property
    def best(self) -> EpochResult:
        """The epoch with the highest metric, the earliest of equals."""
        return max(self.history, key=lambda epoch: getattr(epoch, self.metric))

    @property
    def collapsed(self) -> bool:
        """True when the trained model predicts one class whatever it sees; one that diverged predicts nothing."""
        return self.last.predicted_classes == 1 and not self.diverged

    @property
    def compression_ratio(self) -> float:
        """Measured bytes over uncompressed bytes at the cuts; 1 without a cut."""
        sent = self.activation_bytes + self.gradient_bytes
        return sent / self.uncompressed_bytes if self.uncompressed_bytes else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["config"] = self.config.to_dict()
        values["history"] = [asdict(epoch) for epoch in self.history]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunRecord:
        """Rebuild a record from :meth:`to_dict`'s output."""
        history = tuple(EpochResult(**epoch) for epoch in values["history"])
        if not history:
            raise ValueError("it has no epoch")
        return cls(**{**values, "config": RunConfig.from_dict(values["config"]), "history": history})

    def row(self) -> dict[str, Any]:
        """Return the record as one flat table row: config, data, hardware, metrics in per cent."""
        best, last = self.best, self.last
        return {
            **self.config.to_dict(),
            "key": self.config.key,
            "data_label": self.data_label,
            "data_fingerprint": self.data_fingerprint,
            "weights_norm": self.weights_norm,
            "hardware": self.environment["hardware"],
            "size_text": size_text(self.config),
            "metric": self.metric,
            "best_percent": 100 * getattr(best, self.metric),
            "last_percent": 100 * getattr(last, self.metric),
            "best_epoch": best.epoch,
            "best_accuracy_percent": 100 * max(epoch.accuracy for epoch in self.history),
            "last_accuracy_percent": 100 * last.accuracy,
            "last_train_loss": last.train_loss,
            "collapsed": self.collapsed,
            "diverged": self.diverged,
            "compression_ratio": self.compression_ratio,
            "samples_per_second": self.samples_seen / self.train_seconds if self.train_seconds else float("nan"),
        }


def hardware_of(runs: Mapping[str, Sequence[RunRecord]]) -> str:
    """Return what a title calls the hardware of all rows' runs."""
    return either(record.environment["hardware"] for records in runs.values() for record in records)


def record_path(config: RunConfig) -> Path:
    """Return where the record of ``config`` lies, whether it exists or not: words for people, the key for us."""
    at_cut = [config.compressor] if config.insert == "none" else [config.insert, config.compressor]
    words = [config.task, config.data, config.model_name, str(config.partition), *at_cut]
    return results_dir() / f"{file_stem(words)}-{config.key}.json"


def load_record(config: RunConfig) -> RunRecord | None:
    """Return the record of ``config``, or None if it was never run.

    Raises:
        RecordError: the file is there but cannot be read, or holds another config's record.
    """
    path = record_path(config)
    return read_record(path) if path.exists() else None


def read_record(path: Path) -> RunRecord:
    """Read one record file; raise RecordError with the remedy if it is damaged."""
    try:
        record = RunRecord.from_dict(json.loads(path.read_text(encoding="utf-8")))
        record.row()  # what a table would miss is found here
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RecordError(f"{path} is not a readable record ({error}); delete it, or run again with --fresh") from error
    if not path.stem.endswith(record.config.key):
        raise RecordError(
            f"{path} holds the record of config {record.config.key}; delete it, or run again with --fresh"
        )
    return record


def save_record(record: RunRecord) -> Path:
    """Write the record, whole or not at all, and return its path."""
    path = record_path(record.config)
    text = json.dumps(record.to_dict(), indent=1, allow_nan=True) + "\n"
    write_text(path, text)
    return path


def all_records() -> list[RunRecord]:
    """Return every run's record, ordered by file name; timings and others' files in the same folder are none."""
    return [read_record(path) for path in record_paths()]


def record_paths() -> list[Path]:
    """Return where every run's record lies, ordered by file name; a file that is named otherwise is none.

    Raises:
        ConfigError: the folder cannot be read.
    """
    folder = results_dir()
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        remedy = "name another with $SPLITLIB_RESULTS"
        raise ConfigError(f"cannot read the folder {folder}: {error.strerror}; {remedy}") from error
    return [folder / name for name in names if _RECORD_NAME.fullmatch(name) and not name.startswith(TIMING_PREFIX)]


def find_record(start: str) -> RunRecord:
    """Return the record whose key begins with ``start``.

    Raises:
        ConfigError: no key begins so, or several do.
        RecordError: its file cannot be read.
    """
    found = {path.stem[-KEY_DIGITS:]: path for path in record_paths() if path.stem[-KEY_DIGITS:].startswith(start)}
    if not found:
        remedy = "python -m splitlib records lists those there are"
        raise ConfigError(f"no record in {results_dir()} has a key that begins with {start!r}; {remedy}")
    if len(found) > 1:
        first = ", ".join(sorted(found)[:4]) + (", ..." if len(found) > 4 else "")
        raise ConfigError(f"the keys of {len(found)} records begin with {start!r} ({first}); give more digits")
    return read_record(*found.values())


def to_frame(records: Iterable[RunRecord]) -> pd.DataFrame:
    """Return one row for each record: see :meth:`RunRecord.row`."""
    return pd.DataFrame([record.row() for record in records])
