"""The smallest run that is still a real one, for tests that train."""

import torch

from splitlib import cli, experiment
from splitlib.config import RunConfig
from splitlib.measuring import batches as measuring
from splitlib.results import RunRecord
from splitlib.training import EpochResult, Trainer

TINY = RunConfig(
    task="cola",
    model="roberta_tiny",
    weights="random",
    max_length=24,
    train_samples=96,
    eval_samples=40,
    epochs=2,
    batch_size=16,
    chunks=2,
    lr=5e-4,
)

# The same for vision.
TINY_VISION = RunConfig(
    task="cifar10",
    model="mobilenet_v2_tiny",
    weights="random",
    image_size=32,
    train_samples=32,
    eval_samples=20,
    epochs=1,
    batch_size=16,
    chunks=4,
)


def trainer_of(config: RunConfig) -> Trainer:
    """A trainer on the CPU, built as :func:`splitlib.run` builds it."""
    return experiment.prepare(config, None, torch.device("cpu"))


def timing_of(config: RunConfig, **options) -> measuring.BatchTiming:
    """The timing of one config alone."""
    return measuring.measure_in_turn({"": config}, **options)[""]


def refused_in_one_line(arguments: list[str], words: list[str], capsys) -> None:
    """The command line refuses the arguments with one line that holds all the words."""
    try:
        status = cli.main(arguments)
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error


def epoch(number: int, matthews: float, classes: int = 2) -> EpochResult:
    """One epoch's numbers."""
    return EpochResult(
        epoch=number, train_loss=0.5, eval_loss=0.6, accuracy=0.7, matthews=matthews, predicted_classes=classes
    )


def record(*history: EpochResult, **changes) -> RunRecord:
    """A record of a CoLA run."""
    values = {
        "config": RunConfig(task="cola", compressor="sort"),
        "data_label": "CoLA (real)",
        "data_fingerprint": "abc",
        "metric": "matthews",
        "history": history or (epoch(1, 0.3), epoch(2, 0.5), epoch(3, 0.5), epoch(4, 0.4)),
        "diverged": False,
        "activation_bytes": 10,
        "gradient_bytes": 15,
        "uncompressed_bytes": 100,
        "train_seconds": 2.0,
        "samples_seen": 64,
        "parameters": 7,
        "environment": {"hardware": "a machine"},
        "splitlib_version": "0",
        "created": "2026-01-01T00:00:00+00:00",
    }
    return RunRecord(**{**values, **changes})
