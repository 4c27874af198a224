"""*Train this*: one run in a thread, which can be watched and stopped from outside it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from splitlib.config import RunConfig
from splitlib.errors import SplitlibError
from splitlib.experiment import run
from splitlib.progress import Progress
from splitlib.results import RunRecord

IDLE, RUNNING, STOPPING, STOPPED, FINISHED, FAILED = "idle", "running", "stopping", "stopped", "finished", "failed"


class TrainingThread:
    """Runs one config at a time. ``notify`` is called from the thread whenever something is new to show."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self.state, self.message = IDLE, ""
        self.losses: list[tuple[int, float]] = []
        """Step and training loss."""
        self.metrics: list[float] = []
        """By epoch, as far as this run went since it was started."""
        self.by_epoch: list[float] = []
        """Mean training loss of each epoch, once the run has its record."""
        self.done, self.total = 0, 1
        self.record: RunRecord | None = None

    @property
    def running(self) -> bool:
        """True until the run has ended."""
        return self.state in (RUNNING, STOPPING)

    def start(self, config: RunConfig, *, hub: Path | None, device: str = "auto") -> None:
        """Begin; a run that is under way goes on instead."""
        if self.running:
            return
        self._stop.clear()
        self.state, self.message, self.record = RUNNING, "", None
        self.losses, self.metrics, self.by_epoch, self.done, self.total = [], [], [], 0, 1
        self._thread = threading.Thread(target=self._work, args=(config, hub, device), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the run to end after its step; its checkpoint stays, and starting again goes on from it."""
        if self.running:
            self.state = STOPPING
            self._stop.set()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _work(self, config: RunConfig, hub: Path | None, device: str) -> None:
        try:
            self.record = run(config, hub=hub, device=device, progress=self._progress)
            self.metrics = [getattr(epoch, self.record.metric) for epoch in self.record.history]
            self.by_epoch = [epoch.train_loss for epoch in self.record.history]
            self.done = self.total
            self.state = FINISHED
        except KeyboardInterrupt:  # what a stop means to the loop, as Ctrl-C does
            self.state = STOPPED
        except SplitlibError as error:
            self.state, self.message = FAILED, str(error)
        except BaseException as error:  # a thread's traceback would go unseen
            self.state, self.message = FAILED, f"{type(error).__name__}: {error}"
            raise
        finally:
            self._notify()

    def _progress(self, title: str, total: int, done: int) -> Progress:
        return _Watched(self, title, total, done)

    def advanced(self, done: int, total: int, numbers: dict[str, float]) -> None:
        """Note what the loop tells after a step or an epoch."""
        self.done, self.total = done, total
        if "loss" in numbers:
            self.losses.append((done, numbers["loss"]))
        self.metrics += [value for name, value in numbers.items() if name != "loss"]
        self._notify()

    @property
    def asked_to_stop(self) -> bool:
        """True from the moment of :meth:`stop`."""
        return self._stop.is_set()


class _Watched(Progress):
    """A progress that shows nothing itself: it tells the thread's owner, and stops when asked."""

    def __init__(self, owner: TrainingThread, title: str, total: int, done: int) -> None:
        self._owner = owner
        super().__init__(title, total, done)

    def _make_bar(self, style: str) -> Any:
        self._to_log = False

    def advance(self, steps: int = 1, **numbers: float) -> None:
        """Count, and tell."""
        super().advance(steps, **numbers)
        self._owner.advanced(self.done, self.total, numbers)
        self.stopped = self._owner.asked_to_stop
