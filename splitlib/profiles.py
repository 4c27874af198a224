"""The four sizes a study runs at, and the documents' own settings they shrink.

A notebook states the settings of its document; ``profile.scale(config)`` turns them into what is run. The ``paper``
profile changes nothing but the data's source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from splitlib.config import RunConfig, task_kind
from splitlib.errors import ConfigError

# The documents' settings by task: 000 §2.1 and 003 §1.1 (CIFAR-10), 001 §2.1 (RTE), 002 §1.1 and 003 §2.1 (CoLA).
# 001 §2.2 gives none for CIFAR-100 and Food-101: they take CIFAR-10's ablation settings from 001 §2.1.
DOCUMENT_SETTINGS: Mapping[str, RunConfig] = {
    "cifar10": RunConfig(
        task="cifar10", epochs=40, batch_size=64, optimizer="sgd", lr=0.005, momentum=0.1, scheduler="cosine", chunks=8
    ),
    "cifar100": RunConfig(
        task="cifar100", epochs=40, batch_size=256, optimizer="sgd", lr=0.01, momentum=0.1, scheduler="cosine", chunks=8
    ),
    "food101": RunConfig(
        task="food101", epochs=40, batch_size=256, optimizer="sgd", lr=0.01, momentum=0.1, scheduler="cosine", chunks=8
    ),
    "cola": RunConfig(task="cola", epochs=20, batch_size=32, optimizer="adamw", lr=2e-5, chunks=4),
    "rte": RunConfig(task="rte", epochs=20, batch_size=32, optimizer="adamw", lr=2e-5, chunks=4),
}


def document_settings(task: str) -> RunConfig:
    """Return the settings of a task's document; an unknown task raises ConfigError."""
    task_kind(task)
    return DOCUMENT_SETTINGS[task]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How far a document's settings are shrunk, and on which data they run."""

    name: str
    """What ``--profile`` calls it."""
    summary: str
    """One line for ``--help`` and tables."""
    data: str
    """``"embedded"`` or ``"real"``."""
    seeds: int = 1
    """How many seeds each row gets, counted from the config's own."""
    epoch_scale: float = 1.0
    """Epochs are multiplied by this and rounded up, ..."""
    max_epochs: int | None = None
    """... then capped by this."""
    mixed_precision: str = "fp16"
    """What the documents' mixed precision becomes: they trained in fp16 on GPUs, which a CPU cannot."""
    lr_scale: Mapping[str, float] = field(default_factory=dict)
    """By kind of task: smaller models, and those started at random, need larger steps than roberta-base."""
    replaces: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings that replace a study's, by kind of task or by task; the task's own win."""

    def scale(self, config: RunConfig, **overrides: Any) -> RunConfig:
        """Return ``config`` as this profile runs it; ``overrides`` win over the profile.

        A batch never outgrows the training samples, and micro-batches never outnumber the batch.

        >>> get_profile("paper").scale(DOCUMENT_SETTINGS["rte"]).epochs
        20
        """
        epochs = math.ceil(config.epochs * self.epoch_scale)
        changes: dict[str, Any] = {
            "data": self.data,
            "epochs": min(epochs, self.max_epochs) if self.max_epochs else epochs,
            "lr": config.lr * self.lr_scale.get(config.kind, 1.0),
            "precision": self.mixed_precision if config.precision == "fp16" else config.precision,
            **self.replaces.get(config.kind, {}),
            **self.replaces.get(config.task, {}),
        }
        changes.update(overrides)
        batch = changes.get("batch_size", config.batch_size)
        samples = changes.get("train_samples", config.train_samples)
        if samples and "batch_size" not in overrides:
            batch = min(batch, samples)
        changes["batch_size"] = batch
        changes.setdefault("chunks", max(1, min(config.chunks, batch)))  # of no batch, an error names the batch
        return config.replace(**changes)


TINY_VISION = {"model": "mobilenet_v2_tiny", "weights": "random", "image_size": 32}
TINY_TEXT = {"model": "roberta_tiny", "weights": "random", "max_length": 18}  # holds every embedded sentence

PROFILES: Mapping[str, Profile] = {
    "smoke": Profile(
        name="smoke",
        summary="embedded data, one short epoch: proves that everything runs",
        data="embedded",
        epoch_scale=0.0125,
        max_epochs=1,
        mixed_precision="fp32",
        lr_scale={"vision": 10.0, "text": 50.0},
        replaces={
            "vision": {**TINY_VISION, "batch_size": 16, "train_samples": 64, "eval_samples": 64},
            "text": {**TINY_TEXT, "train_samples": 64, "eval_samples": 64},
        },
    ),
    "quick": Profile(
        name="quick",
        summary="embedded data, small models: the whole workbook in minutes",
        data="embedded",
        seeds=2,
        epoch_scale=0.2,
        max_epochs=10,
        mixed_precision="fp32",
        lr_scale={"vision": 10.0, "text": 50.0},
        replaces={"vision": {**TINY_VISION, "batch_size": 32}, "text": TINY_TEXT},
    ),
    "real": Profile(
        name="real",
        summary="real data and pretrained weights, sized for a laptop",
        data="real",
        epoch_scale=0.15,
        mixed_precision="bf16",
        lr_scale={"text": 5.0},
        replaces={
            "vision": {"image_size": 64, "train_samples": 5000, "eval_samples": 2000},
            "text": {"model": "sentence-transformers/all-MiniLM-L6-v2"},
            "cola": {"max_length": 32, "train_samples": 4000},
        },
    ),
    "paper": Profile(
        name="paper",
        summary="each document's exact settings: real data at full size, for a GPU",
        data="real",
        seeds=3,
    ),
}


def get_profile(name: str) -> Profile:
    """Return a profile by name; an unknown name raises ConfigError."""
    if name not in PROFILES:
        raise ConfigError(f"unknown profile {name!r}; choose from {', '.join(PROFILES)}")
    return PROFILES[name]
