"""Data of the five tasks: real, from the Hugging Face hub or a local mirror of it, or embedded, without a download."""

from splitlib.data.batches import eval_batches, train_batches
from splitlib.data.hub import locate, resolve_hub
from splitlib.data.loading import TaskData, load_task

__all__ = ["TaskData", "eval_batches", "load_task", "locate", "resolve_hub", "train_batches"]
