"""The real datasets through ``datasets.load_dataset``, refused unless they are what their task says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets

from splitlib.data.hub import describe, locate, reason
from splitlib.data.tasks import Task
from splitlib.errors import DataError

HOLDS: dict[str, Callable[[Any], bool]] = {
    "images": lambda feature: isinstance(feature, datasets.Image),
    "text": lambda feature: isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string"),
    "named classes": lambda feature: isinstance(feature, datasets.ClassLabel),
}


def load_real(task: Task, hub: Path | None = None) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Return the training and evaluation rows of ``task`` from a mirror or the hub.

    Raises:
        DataError: the dataset is missing, unreadable, or has other columns or classes than the task's.
    """
    source = locate(task.repo_id, "datasets", hub)
    verbosity = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # the error below says it in one line
    try:
        train, evaluation = datasets.load_dataset(
            source, task.config_name, split=[task.train_split, task.eval_split], cache_dir=_cache_of(source)
        )
    except Exception as error:  # datasets raises whatever the reader of a file's format meets
        raise DataError(
            f"{task.title} ({task.repo_id}, {task.config_name}) cannot be read from {describe(hub)} ({reason(error)}); "
            "fetch it again, or use --data embedded"
        ) from error
    finally:
        datasets.logging.set_verbosity(verbosity)
    for rows in (train, evaluation):
        _check_columns(task, rows)
        _check_values(task, rows)
    return train, evaluation


def _cache_of(source: str) -> Path:
    """Return the folder for ``datasets``' converted copies: one of its own for each state of each mirror.

    For a folder whose README names its configurations, ``datasets`` keys the copies by that README alone: it would go
    on serving the old rows after a file has changed, and one mirror's rows for another's.
    """
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    folder = Path(source)
    if not folder.is_dir():
        return cache
    files = ((path, path.stat()) for path in sorted(folder.rglob("*.*")) if path.suffix in (".parquet", ".md"))
    state = [(str(path.resolve()), stat.st_size, stat.st_mtime_ns) for path, stat in files]
    return cache / f"mirror-{hashlib.sha256(repr(state).encode()).hexdigest()[:12]}"


def _check_columns(task: Task, rows: datasets.Dataset) -> None:
    inputs = "images" if task.kind == "vision" else "text"
    for column, content in {**dict.fromkeys(task.inputs, inputs), task.label: "named classes"}.items():
        if column not in rows.features:
            raise DataError(f"{task.repo_id} has no column {column!r}, only {', '.join(rows.column_names)}")
        if not HOLDS[content](rows.features[column]):
            raise DataError(f"{task.repo_id}: column {column!r} should hold {content}, not {rows.features[column]}")
    classes = rows.features[task.label].num_classes
    if classes != task.num_labels:
        raise DataError(f"{task.repo_id} has {classes} classes; {task.title} has {task.num_labels}")


def _check_values(task: Task, rows: datasets.Dataset) -> None:
    labels = set(rows.data.column(task.label).unique().to_pylist())
    if not labels <= set(range(task.num_labels)):
        raise DataError(f"{task.repo_id}: some rows of the {rows.split} split have no label")
    if any(rows.data.column(column).null_count for column in task.inputs):
        raise DataError(f"{task.repo_id}: some rows of the {rows.split} split are empty")
