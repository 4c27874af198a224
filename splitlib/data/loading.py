"""From a config to its data: the rows of a task, selected, fingerprinted and turned into tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import torch
from torch import Tensor
from torch.utils.data import Dataset

from splitlib.config import RunConfig
from splitlib.data.embedded import load_embedded
from splitlib.data.hub import describe
from splitlib.data.real import load_real
from splitlib.data.tasks import Task, get_task
from splitlib.errors import ConfigError

if TYPE_CHECKING:
    from splitlib.data import text, vision
    from splitlib.data.resident import ResidentImages

# Which samples a smaller run takes does not depend on its seed: seeds compare on the same data.
SELECTION_SEED = 0
# Rows hashed at a time: their images have to fit in memory.
HASHED_ROWS = 1000
CPU = torch.device("cpu")

Sample = tuple[tuple[Tensor, ...], int]
Rows = tuple[datasets.Dataset, datasets.Dataset]


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskData:
    """What a run trains and evaluates on."""

    label: str
    """What every title, table row and record calls the data; never a path."""
    metric: str
    """``"accuracy"`` or ``"matthews"``."""
    num_labels: int
    """Classes the model has to tell apart."""
    fingerprint: str
    """Twelve hexadecimal digits that name the content itself, wherever it was read from."""
    train: Dataset[Sample]
    """``((inputs, ...), label)`` by index; its augmentation draws from torch's global generator."""
    eval: Dataset[Sample]
    """``((inputs, ...), label)`` by index."""
    resident: ResidentImages | None = None
    """The same samples on the training device, where the config has ``images="resident"``: batches come from there."""


def load_task(config: RunConfig, *, hub: Path | None = None, device: torch.device = CPU) -> TaskData:
    """Load the data of ``config``: embedded, from a mirror (``hub`` or ``$SPLITLIB_HUB``), or from the hub.

    ``device`` is where resident images go; all other data stays with the CPU.

    Raises:
        ConfigError: more samples are asked for than there are, a batch holds more than all of them, or the images
            cannot be resident.
        DataError: the data is missing or unreadable, or is not the task's; the message says how to get it.

    >>> data = load_task(RunConfig(task="rte", model="roberta_tiny", weights="random", max_length=24))
    >>> data.label
    'embedded entailment corpus standing in for RTE (1000/300)'
    >>> (input_ids, attention_mask), label = data.train[0]
    >>> input_ids.shape
    torch.Size([24])
    """
    task = get_task(config.task)
    rows = _select(config, task, load_embedded(task) if config.data == "embedded" else load_real(task, hub))
    check_batch_size(config.batch_size, len(rows[0]))
    train, evaluation = _images(config, task, rows) if task.kind == "vision" else _sentences(config, task, rows, hub)
    fingerprint = _fingerprint(task, rows)
    return TaskData(
        label=_label(config, task, rows, hub),
        metric=task.metric,
        num_labels=len(rows[0].features[task.label].names),
        fingerprint=fingerprint,
        train=train,
        eval=evaluation,
        resident=_resident(config, train, evaluation, fingerprint, device) if config.images == "resident" else None,
    )


def check_batch_size(batch_size: int, samples: int) -> None:
    """Refuse a batch larger than the training set: incomplete batches are dropped, so no step would be left."""
    if batch_size > samples:
        raise ConfigError(f"batch_size {batch_size} is larger than the training set of {samples} samples")


def _select(config: RunConfig, task: Task, rows: Rows) -> Rows:
    train, evaluation = rows
    return (
        _first(train, config.train_samples, f"train_samples of {task.title}"),
        _first(evaluation, config.eval_samples, f"eval_samples of {task.title}"),
    )


def _first(rows: datasets.Dataset, count: int | None, setting: str) -> datasets.Dataset:
    """Take the first ``count`` rows of a shuffle that is the same for every run."""
    if count is None:
        return rows
    if count > len(rows):
        raise ConfigError(f"{setting}: {count} asked for, but there are {len(rows)}")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SELECTION_SEED))
    return rows.select(order[:count].tolist())


def _images(config: RunConfig, task: Task, rows: Rows) -> tuple[vision.Images, vision.Images]:
    from splitlib.data import vision

    assert config.image_size is not None
    columns = {"image": task.inputs[0], "label": task.label}
    augment = vision.train_transform(config.image_size, flip=config.data == "real")
    return (
        vision.Images(rows[0], **columns, transform=augment),
        vision.Images(rows[1], **columns, transform=vision.eval_transform(config.image_size)),
    )


def _resident(config: RunConfig, train: Any, evaluation: Any, fingerprint: str, device: torch.device) -> ResidentImages:
    from splitlib.data.resident import load_resident

    assert config.image_size is not None
    flip = config.data == "real"
    return load_resident(
        train, evaluation, fingerprint=fingerprint, image_size=config.image_size, flip=flip, device=device
    )


def _sentences(config: RunConfig, task: Task, rows: Rows, hub: Path | None) -> tuple[text.Sentences, text.Sentences]:
    from splitlib.data import text

    assert config.max_length is not None and config.model is not None
    tokenizer = text.tokenizer_for(config.model, config.weights, config.data, hub)
    columns: dict[str, Any] = {"sentences": task.inputs, "label": task.label}
    train, evaluation = (
        text.Sentences(split, **columns, tokenizer=tokenizer, max_length=config.max_length) for split in rows
    )
    return train, evaluation


def _label(config: RunConfig, task: Task, rows: Rows, hub: Path | None) -> str:
    sizes = "/".join(str(len(split)) for split in rows)
    if config.data == "embedded":
        return f"{task.stand_in} standing in for {task.title} ({sizes})"
    return f"{task.title} (real, {task.repo_id} from {describe(hub)}, {sizes})"


def _fingerprint(task: Task, rows: Rows) -> str:
    """Hash encoded images or sentences, and labels, row by row in their order."""
    digest = hashlib.sha256()
    for split in rows:
        digest.update(f"{len(split)} rows\n".encode())
        for *inputs, label in _stored(task, split):
            for value in inputs:
                digest.update(f"{len(value)} bytes\n".encode() + value)
            digest.update(f"{label}\n".encode())
    return digest.hexdigest()[:12]


def _stored(task: Task, split: datasets.Dataset) -> Iterator[tuple[Any, ...]]:
    """Yield each row's inputs as stored, in bytes, and its label."""
    columns = [*task.inputs, task.label]
    split = split.select_columns(columns)
    if task.kind == "vision":
        split = split.cast_column(task.inputs[0], datasets.Image(decode=False))
    for batch in split.iter(HASHED_ROWS):
        for *inputs, label in zip(*(batch[column] for column in columns), strict=True):
            yield *(value["bytes"] if task.kind == "vision" else value.encode() for value in inputs), label
