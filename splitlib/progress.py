"""One progress bar for long work, readable in a terminal, in JupyterLab and in a log.

A log takes a line at the start, then at most one every ``LOG_SECONDS``, then one at the end: tqdm would either stay at
0 % (its notebook bar) or add an output for each refresh (its text bar).
"""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any, Self

from tqdm.std import tqdm as terminal_bar

LOG_SECONDS = 10.0


def _in_kernel() -> bool:
    """True inside a Jupyter kernel, whose standard error is not a terminal but whose front end can draw."""
    shell = sys.modules.get("IPython")
    return bool(shell and getattr(shell.get_ipython(), "kernel", None))


def _style() -> str:
    """Return ``terminal``, ``notebook``, ``log`` or ``none``; ``$SPLITLIB_PROGRESS`` overrides what is detected."""
    chosen = os.environ.get("SPLITLIB_PROGRESS")
    if chosen:
        return chosen
    if _in_kernel():
        return "notebook"
    return "terminal" if sys.stderr.isatty() else "log"


class Progress:
    """Counts ``total`` steps of a task and shows them with the numbers given to :meth:`advance`.

    >>> with Progress("cola, seed 0", total=2) as progress:  # doctest: +SKIP
    ...     progress.advance(loss=0.7)
    """

    stopped = False
    """True asks the work to stop after this step, as Ctrl-C does: for who watches from another thread."""

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        """``done`` steps of ``total`` were finished by an earlier, interrupted run."""
        self.title, self.total, self.done = title, total, done
        self._started = self._shown = time.monotonic()
        self._done_before = done
        self._numbers: dict[str, str] = {}
        self._bar = self._make_bar(_style())

    def _make_bar(self, style: str) -> Any:
        if style == "terminal":
            return terminal_bar(desc=self.title, total=self.total, initial=self.done, dynamic_ncols=True, leave=False)
        if style == "notebook":
            from tqdm.notebook import tqdm as notebook_bar  # needs ipywidgets: not loaded on the command line

            return notebook_bar(desc=self.title, total=self.total, initial=self.done)
        self._to_log = style != "none"
        return None

    def __enter__(self) -> Self:
        if self._bar is None:
            self._log()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self.done > self._done_before:
            self._log()

    def advance(self, steps: int = 1, **numbers: float) -> None:
        """Count ``steps`` more; ``numbers`` are shown beside the bar and kept until replaced."""
        self.done += steps
        self._numbers.update({name: f"{value:.4g}" for name, value in numbers.items()})
        if self._bar is not None:
            self._bar.set_postfix(self._numbers, refresh=False)
            self._bar.update(steps)
        elif time.monotonic() - self._shown >= LOG_SECONDS and self.done < self.total:
            self._log()

    def _log(self) -> None:
        if not self._to_log:
            return
        self._shown = time.monotonic()
        took = self._shown - self._started
        left = took / (self.done - self._done_before) * (self.total - self.done) if self.done > self._done_before else 0
        numbers = "".join(f"  {name} {value}" for name, value in self._numbers.items())
        times = f"  {took:.0f} s" + (f", {left:.0f} s left" if self.done < self.total and left else "")
        print(f"{self.title}: {self.done}/{self.total}{numbers}{times}", flush=True)
