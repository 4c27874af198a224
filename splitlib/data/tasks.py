"""The five tasks: where each lies on the Hugging Face hub, which columns it has and how it is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from splitlib.config import task_kind
from splitlib.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Task:
    """One row of the table of tasks."""

    name: str
    """What a config calls it."""
    title: str
    """What a figure calls it."""
    repo_id: str
    """The dataset on the Hugging Face hub ..."""
    config_name: str
    """... and its configuration there."""
    train_split: str = "train"
    """The split trained on."""
    eval_split: str
    """The split evaluated on: the labelled one that is not trained on ..."""
    eval_size: int
    """... and how many samples the real one has."""
    inputs: tuple[str, ...]
    """Columns the model sees: one image, one sentence, or two."""
    label: str = "label"
    """Column of the class."""
    num_labels: int
    """Classes of the real data; the digits that stand in for every vision task have ten."""
    metric: str = "accuracy"
    """``"accuracy"`` or ``"matthews"``, as the task's own leaderboard reports it."""
    stand_in: str
    """The embedded data that needs no download."""

    @property
    def kind(self) -> str:
        """``"vision"`` or ``"text"``."""
        return task_kind(self.name)


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            Task(
                name="cifar10",
                title="CIFAR-10",
                repo_id="uoft-cs/cifar10",
                config_name="plain_text",
                eval_split="test",
                eval_size=10_000,
                inputs=("img",),
                num_labels=10,
                stand_in="embedded digits",
            ),
            Task(
                name="cifar100",
                title="CIFAR-100",
                repo_id="uoft-cs/cifar100",
                config_name="cifar100",
                eval_split="test",
                eval_size=10_000,
                inputs=("img",),
                label="fine_label",
                num_labels=100,
                stand_in="embedded digits",
            ),
            Task(
                name="food101",
                title="Food-101",
                repo_id="ethz/food101",
                config_name="default",
                eval_split="validation",
                eval_size=25_250,
                inputs=("image",),
                num_labels=101,
                stand_in="embedded digits",
            ),
            Task(
                name="cola",
                title="CoLA",
                repo_id="nyu-mll/glue",
                config_name="cola",
                eval_split="validation",
                eval_size=1_043,
                inputs=("sentence",),
                num_labels=2,
                metric="matthews",
                stand_in="embedded acceptability corpus",
            ),
            Task(
                name="rte",
                title="RTE",
                repo_id="nyu-mll/glue",
                config_name="rte",
                eval_split="validation",
                eval_size=277,
                inputs=("sentence1", "sentence2"),
                num_labels=2,
                stand_in="embedded entailment corpus",
            ),
        )
    }
)


def sampling_error(task: str, metric: str = "accuracy") -> float:
    """Return the standard error, in points, that a score has because the real validation set is no larger than it is.

    Of an accuracy it is at most ``50 / sqrt(n)``, which it is near one half; of a Matthews correlation r about
    ``100 (1 - r**2) / sqrt(n)``, here for the 0.6 that the documents' runs reach. Two scores that lie no further apart
    are not told apart by this set.

    >>> [round(sampling_error(task), 1) for task in ("cifar10", "food101", "cola", "rte")]
    [0.5, 0.3, 1.5, 3.0]
    >>> round(sampling_error("cola", "matthews"), 1)
    2.0
    """
    return {"accuracy": 50.0, "matthews": 100 * (1 - 0.6**2)}[metric] / get_task(task).eval_size ** 0.5


def get_task(name: str) -> Task:
    """Return a task by name; an unknown name raises ConfigError.

    >>> get_task("cola").metric
    'matthews'
    """
    if name not in TASKS:
        raise ConfigError(f"unknown task {name!r}; choose from {', '.join(TASKS)}")
    return TASKS[name]
