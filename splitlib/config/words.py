"""A config in words, for titles, tables and progress lines."""

from __future__ import annotations

from collections.abc import Mapping

from splitlib.config.choices import Scalar
from splitlib.config.run import RunConfig


def input_text(config: RunConfig) -> str:
    """Return how large an input is.

    >>> input_text(RunConfig(task="cifar10", image_size=64)), input_text(RunConfig(task="rte", max_length=128))
    ('64 px', '128 tokens')
    """
    return f"{config.image_size} px" if config.kind == "vision" else f"{config.max_length} tokens"


def size_text(config: RunConfig, *, trained: bool = True) -> str:
    """Return how large the inputs, the batches and the training are, for titles; of what is only timed, no training.

    >>> size_text(RunConfig(task="cifar10", image_size=64, batch_size=256, chunks=8, epochs=6))
    '64 px, 6 epochs, batch 256 in 8'
    """
    batch = f"batch {config.batch_size}" + (f" in {config.chunks}" if config.chunks > 1 else "")
    return ", ".join([input_text(config), *([f"{config.epochs} epochs"] if trained else []), batch])


def run_title(config: RunConfig) -> str:
    """Return a short name for progress lines: task, data, model, partition, what is at the cuts, seed."""
    cut = "unsplit" if config.partition == "none" else f"{config.partition}, {cut_text(config)}"
    return f"{config.task} ({config.data}), {config.model_name}, {cut}, seed {config.seed}"


def cut_text(config: RunConfig) -> str:
    """Return what is at the cuts, with its options.

    >>> cut_text(RunConfig(compressor="uniform", compressor_options={"bits": 8}, gradient_compressor="none"))
    'uniform (bits 8), gradients none'
    """
    words = [_with_options(config.compressor, config.compressor_options)]
    if config.insert != "none":
        words.insert(0, _with_options(config.insert, config.insert_options))
    if config.gradient_compressor != "same":
        words.append(f"gradients {_with_options(config.gradient_compressor, config.gradient_options)}")
    return ", ".join(words)


def _with_options(name: str, options: Mapping[str, Scalar]) -> str:
    words = ", ".join(f"{option} {value}" for option, value in options.items())
    return f"{name} ({words})" if words else name
