"""The smallest run that is still a real one, for tests that train."""

import torch

from splitlib import cli, experiment
from splitlib.config import RunConfig
from splitlib.measuring import batches as measuring
from splitlib.training import Trainer

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
