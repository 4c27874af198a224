"""One loop trains everything, one function evaluates it.

A run can stop after any step and go on later with the same bits: data order, augmentation and dropout are functions of
the seed, epoch and step, and everything else that changes is in the checkpoint.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor, nn

from splitlib.checkpoints import read_tensors, write_tensors
from splitlib.config import RunConfig
from splitlib.data import TaskData, eval_batches, train_batches
from splitlib.errors import RecordError
from splitlib.optimization import Updater
from splitlib.pipeline.engine import Engine, Start
from splitlib.progress import Progress

CHECKPOINT_SECONDS = 60.0
CHECKPOINT_FORMAT = 5  # raise it when what a checkpoint holds changes
EVAL_BATCH = 128


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """What one epoch gave. Metrics are shares (accuracy in [0, 1]) or a correlation (Matthews in [-1, 1])."""

    epoch: int
    train_loss: float
    eval_loss: float
    accuracy: float
    matthews: float
    predicted_classes: int
    """How many different classes the model predicted; 1 means it has collapsed."""


@dataclass
class TrainingState:
    """Where a run stands, besides what the optimizer and the model hold."""

    epoch: int = 0
    step: int = 0
    steps_taken: int = 0
    """In all epochs; a run that diverges leaves its last one early."""
    loss_sum: float = 0.0
    train_seconds: float = 0.0
    diverged: bool = False
    history: list[EpochResult] = field(default_factory=list)


class Trainer:
    """Everything that changes while a run trains, so that it can be checkpointed and restored as one thing."""

    def __init__(self, engine: Engine, data: TaskData, config: RunConfig) -> None:
        self.engine, self.data, self.config = engine, data, config
        self.steps_per_epoch = len(train_batches(data, batch_size=config.batch_size, seed=config.seed, epoch=0))
        self.total_steps = config.epochs * self.steps_per_epoch
        self.updater = Updater(engine, config, total_steps=self.total_steps, device=engine.device)
        self.state = TrainingState()

    @contextlib.contextmanager
    def opened(self) -> Iterator[Self]:
        """Have the engine's other machines ready, at the same step, for the block; tell them how it ended."""
        start = Start(
            config=self.config,
            num_labels=self.data.num_labels,
            data_fingerprint=self.data.fingerprint,
            total_steps=self.total_steps,
            train_samples=len(self.data.train),  # type: ignore[arg-type]  # torch's Dataset promises no length
            step=self.steps_done,
        )
        try:
            self.engine.open(start)
            yield self
        except BaseException as error:
            self.engine.close("Ctrl-C" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__)
            raise
        self.engine.close()

    @property
    def finished(self) -> bool:
        """True when no epoch is left, or the loss stopped being a number."""
        return self.state.diverged or self.state.epoch >= self.config.epochs

    @property
    def steps_done(self) -> int:
        """Optimizer steps taken so far, those before a resumption included."""
        if self.state.diverged:  # which left its last epoch early
            return self.state.steps_taken
        return self.state.epoch * self.steps_per_epoch + self.state.step

    def fit(self, checkpoint: Path, progress: Progress, workers: int = 0) -> TrainingState:
        """Train until :attr:`finished`, evaluating after each epoch.

        The state is saved to ``checkpoint`` after each epoch, once a minute, and when Ctrl-C or the progress stops it.

        Raises:
            KeyboardInterrupt: Ctrl-C, or ``progress.stopped``, after the current step or evaluation was finished and
                saved.
        """
        saved = time.monotonic()
        with _deferred_interrupt() as interrupted:
            while not self.finished:
                for inputs, labels in self.rest_of_epoch(workers):
                    loss = self._timed_step(inputs, labels)
                    progress.advance(loss=loss)
                    if self.state.diverged:
                        break  # the epoch ends here, before anything is saved in its middle
                    late = time.monotonic() - saved > CHECKPOINT_SECONDS
                    stop = interrupted.is_set() or progress.stopped
                    if late or stop:
                        self.save(checkpoint)
                        saved = time.monotonic()
                    if stop:
                        raise KeyboardInterrupt
                self._end_epoch(progress, workers)
                self.save(checkpoint)
            if interrupted.is_set():  # in the last evaluation: the checkpoint holds the finished run
                raise KeyboardInterrupt
        return self.state

    def rest_of_epoch(self, workers: int = 0) -> Any:
        """Return the batches of the current epoch that have not been trained on yet."""
        return train_batches(
            self.data,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            epoch=self.state.epoch,
            start=self.state.step,
            workers=workers,
        )

    def _timed_step(self, inputs: tuple[Tensor, ...], labels: Tensor) -> float:
        started = time.perf_counter()
        loss = self.step(inputs, labels)
        self.state.train_seconds += time.perf_counter() - started
        self.state.step += 1
        self.state.steps_taken += 1
        self.state.loss_sum += loss
        self.state.diverged = not math.isfinite(loss)
        return loss

    def step(self, inputs: tuple[Tensor, ...], labels: Tensor) -> float:
        """Take one optimizer step on a batch and return its mean loss, without the penalties of decaying layers."""
        self.engine.train()
        self.updater.zero_grad()
        loss = self.engine.train_batch(inputs, labels, step=self.steps_done, scale=self.updater.scale)
        self.updater.step()
        return loss

    def _end_epoch(self, progress: Progress, workers: int = 0) -> None:
        state, loss = self.state, self.state.loss_sum / max(self.state.step, 1)
        result = evaluate(self.engine, self.data, epoch=state.epoch + 1, train_loss=loss, workers=workers)
        progress.advance(0, **{self.data.metric: getattr(result, self.data.metric)})
        state.history.append(result)
        state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, 0.0

    def save(self, path: Path) -> None:
        """Write what changes to ``path``, whole or not at all; other machines first, other replicas never.

        Raises:
            WriteError: the disk is full.
        """
        if not self.engine.leads:
            return
        self.engine.keep(self.steps_done)
        contents = {
            "format": CHECKPOINT_FORMAT,
            "key": self.config.key,
            "data": self.data.fingerprint,
            "state": asdict(self.state),
            "traffic": asdict(self.engine.traffic),
            "model": self.engine.state_dict(),
            "channels": self.engine.channel_state(),
            "updater": self.updater.state_dict(),
        }
        write_tensors(path, contents)

    def restore(self, path: Path) -> None:
        """Go on from what :meth:`save` wrote.

        Raises:
            RecordError: the file is unreadable, or was made by another version, another config or on other data.
        """
        contents = _read_checkpoint(path)
        if contents.get("key") != self.config.key or contents.get("data") != self.data.fingerprint:
            raise RecordError(f"{path} is a checkpoint of another config or of other data; delete it to start again")
        try:
            self._take_over(contents)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise RecordError(f"{path} lacks part of the run's state; delete it to start the run again") from error

    def _take_over(self, contents: dict[str, Any]) -> None:
        state = dict(contents["state"])
        state["history"] = [EpochResult(**epoch) for epoch in state["history"]]
        self.state = TrainingState(**state)
        for name in asdict(self.engine.traffic):
            setattr(self.engine.traffic, name, contents["traffic"][name])
        self.engine.load_state_dict(contents["model"])
        self.engine.load_channel_state(contents["channels"])
        self.updater.load_state_dict(contents["updater"])


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        contents = read_tensors(path)
    except Exception as error:  # whatever torch's zip reader or restricted unpickler meets in a damaged file
        raise RecordError(f"{path} is not a readable checkpoint; delete it to start the run again") from error
    if not isinstance(contents, dict) or contents.get("format") != CHECKPOINT_FORMAT:
        raise RecordError(f"{path} is no checkpoint of this version of splitlib; delete it to start the run again")
    return contents


@torch.no_grad()
def evaluate(engine: Engine, data: TaskData, *, epoch: int, train_loss: float, workers: int = 0) -> EpochResult:
    """Return the metrics of ``engine``'s model on the whole evaluation split; compression at the cuts stays on."""
    from sklearn.metrics import accuracy_score, matthews_corrcoef

    engine.eval()
    logits, labels = [], []
    for inputs, batch_labels in eval_batches(data, batch_size=EVAL_BATCH, workers=workers):
        logits.append(engine(*inputs).float().cpu())
        labels.append(batch_labels.cpu())
    all_logits, all_labels = torch.cat(logits), torch.cat(labels)
    predicted = all_logits.argmax(dim=1)
    return EpochResult(
        epoch=epoch,
        train_loss=train_loss,
        eval_loss=nn.functional.cross_entropy(all_logits, all_labels).item(),
        accuracy=float(accuracy_score(all_labels, predicted)),
        matthews=float(matthews_corrcoef(all_labels, predicted)),
        predicted_classes=predicted.unique().numel(),
    )


@contextlib.contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into an event, so that a step ends before the run stops; the second acts at once.

    Outside the main thread Python delivers no signals, and the event simply stays unset.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.getsignal(signal.SIGINT)

    def remember(number: int, frame: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, remember)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
