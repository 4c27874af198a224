"""How far the committed runs are from the documents' own, as a table for the README."""

from __future__ import annotations

from splitlib import frontier
from splitlib.config import RunConfig, size_text
from splitlib.data.tasks import get_task
from splitlib.profiles import DOCUMENT_SETTINGS, Profile, get_profile

TASKS = ("cola", "rte", "cifar10")


def size_table(profile: str) -> str:
    """Return model, samples, sizes and optimizer in the documents and at ``profile``, a row for each task."""
    scale = get_profile(profile)
    rows = [
        f"| {get_task(task).title} | {_size(DOCUMENT_SETTINGS[task])} | {_size(_here(scale, task))} |" for task in TASKS
    ]
    return "\n".join(["| | documents | here |", "|---|---|---|", *rows])


def _here(profile: Profile, task: str) -> RunConfig:
    return profile.scale(DOCUMENT_SETTINGS[task], **frontier.sizes(profile.name, task))


def _size(config: RunConfig) -> str:
    samples = f"{config.train_samples:,}" if config.train_samples else "all"
    steps = f"{config.optimizer} at {config.lr:g}"
    return f"{config.model_name}, {samples} training samples, {size_text(config)}, {steps}"
