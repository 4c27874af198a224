"""The smallest run that is still a real one, for tests that train."""

import torch

from splitlib import experiment
from splitlib.config import RunConfig
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
