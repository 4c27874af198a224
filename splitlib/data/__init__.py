"""Data of the five tasks: real, from the Hugging Face hub or a local mirror of it, or embedded, without a download."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splitlib.data.batches import eval_batches, train_batches
    from splitlib.data.hub import locate, resolve_hub
    from splitlib.data.loading import TaskData, load_task

__all__ = ["TaskData", "eval_batches", "load_task", "locate", "resolve_hub", "train_batches"]

# Looked up on first use: a server looks for weights in a mirror and never loads data.
_HOMES = {
    "batches": ("eval_batches", "train_batches"),
    "hub": ("locate", "resolve_hub"),
    "loading": ("TaskData", "load_task"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"splitlib.data.{module}"), name)
    raise AttributeError(f"module 'splitlib.data' has no attribute {name!r}")
