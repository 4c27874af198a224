"""Says which notebook and cell a run is in: one line that updates on a terminal, plain lines in a log."""

from __future__ import annotations

import shutil
import threading
import time
from types import TracebackType
from typing import TextIO

from nbconvert.filters import strip_ansi

INDENT = "    "
CLEAR_LINE = "\r\x1b[K"


class Console:
    """The run's output: a status line, and below or above it what the notebooks print.

    A text file as far as :meth:`write` and :meth:`flush` go, so that the kernel's output can be sent to it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.live = stream.isatty()
        self.label = ""
        """The last status shown."""
        self._showing = False
        self._began = 0.0
        self._unfinished = ""  # printed by a cell, without its line end so far
        self._lock = threading.RLock()  # the clock ticks in a thread of its own
        self._closed = threading.Event()

    def __enter__(self) -> Console:
        if self.live:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self.end_status()

    def status(self, label: str, began: float) -> None:
        """Show ``label`` and the seconds since ``began`` (of ``time.monotonic``) until the next status."""
        with self._lock:
            self.end_status()
            self.label, self._began, self._showing = label, began, True
            if self.live:
                self._draw()
            else:
                print(self._status_line(), file=self._stream, flush=True)

    def end_status(self) -> None:
        """Finish the last printed line and take the status line away."""
        with self._lock:
            if self._unfinished:
                self.write("\n")
            if self.live and self._showing:
                self._stream.write(CLEAR_LINE)
            self._showing = False
            self._stream.flush()

    def line(self, text: str) -> None:
        """Print ``text`` as lines of their own; colours only reach a terminal."""
        with self._lock:
            clear = CLEAR_LINE if self.live and self._showing else ""
            self._stream.write(clear + (text if self.live else strip_ansi(text)) + "\n")
            if self.live and self._showing:
                self._draw()
            self._stream.flush()

    def write(self, text: str) -> int:
        """Print what a cell printed, indented, line by line as the lines are finished."""
        with self._lock:
            *lines, self._unfinished = (self._unfinished + text).split("\n")
            for line in lines:
                # a bar that redraws itself leaves only its last state
                self.line(f"{INDENT}{line.rstrip(chr(13)).rpartition(chr(13))[2]}")
        return len(text)

    def flush(self) -> None:
        """Pass on what was printed."""
        self._stream.flush()

    def _status_line(self) -> str:
        return f"{self.label}  ({int(time.monotonic() - self._began)} s)"

    def _draw(self) -> None:
        width = shutil.get_terminal_size().columns
        self._stream.write(CLEAR_LINE + self._status_line()[: width - 1])
        self._stream.flush()

    def _tick(self) -> None:
        while not self._closed.wait(1.0):
            with self._lock:
                if self._showing:
                    self._draw()
