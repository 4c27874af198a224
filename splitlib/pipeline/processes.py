"""Worker processes of this machine that live and die together: one fails, all end; their parent dies, all end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

from splitlib.errors import WorkerError

MEETING = "SPLITLIB_MEETING"
"""Environment variable of a worker: the file by which the workers find each other. torchrun has its own way."""
ERROR = "splitlib: error: "
"""How a worker prints what a user can act on."""
_POLL_SECONDS = 0.05
_ENDING_SECONDS = 5.0  # for the last lines of a worker that has ended
_KEPT_LINES = 20


def run_together(arguments: Sequence[str], count: int, *, threads: int) -> None:
    """Run ``python arguments`` in ``count`` processes and return when all have ended well.

    Each finds its number in ``RANK``, their number in ``WORLD_SIZE``, as under torchrun. What the first one prints goes
    to standard output. Ctrl-C reaches this process alone, which then ends the others.

    Args:
        arguments: what follows the interpreter, such as ``-m splitlib.replica``.
        count: how many processes.
        threads: of torch, in each.

    Raises:
        WorkerError: one of them failed; the message says which, and its last words.
    """
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder, "meeting"))
        workers = [_Worker(rank, count, arguments, meeting, threads) for rank in range(count)]
        try:
            _watch(workers)
        finally:
            for worker in workers:
                worker.end()


def leave(status: int) -> NoReturn:
    """End this process at once, without the shutdown in which Python ends its threads.

    A thread of gloo may still wait for a peer that is gone, or let go of a tensor: the shutdown would hang, or abort.
    DistributedDataParallel keeps its group, and so these threads, beyond ``destroy_process_group``.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class _Worker:
    """One process; its standard input closes when this process dies, which ends it (``end_with_parent``)."""

    def __init__(self, rank: int, count: int, arguments: Sequence[str], meeting: str, threads: int) -> None:
        self.rank, self.count = rank, count
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **_environment(rank, count, meeting, threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="backslashreplace",  # a byte that is no text must not end the reader: the pipe would fill
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self.lines.append(line.rstrip("\n"))
            if self.rank == 0 and not line.startswith(ERROR):
                print(line, end="", flush=True)

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self.process.poll()

    @property
    def blame(self) -> tuple[bool, bool]:
        """Sorts workers that failed: one killed from outside first, then one with a clear error."""
        return (self.status or 0) >= 0, not self._error()

    def failure(self) -> str:
        """Return how it failed, in one line."""
        self._reader.join(_ENDING_SECONDS)
        if self._error():
            return self._error()
        status = self.status or 0
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        said = next((line for line in reversed(self.lines) if line.strip()), "")
        words = f": {said}" if said and status >= 0 else ""
        return f"worker {self.rank + 1} of {self.count} {how}{words}; the others were ended"

    def _error(self) -> str:
        """Return the message of a user's mistake, which every worker would make."""
        return next((line.removeprefix(ERROR) for line in self.lines if line.startswith(ERROR)), "")

    def end(self) -> None:
        """Kill the process, and those that load its data, if it still runs."""
        if self.status is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                self._reader.join(_ENDING_SECONDS)
                stream.close()


def _environment(rank: int, count: int, meeting: str, threads: int) -> Mapping[str, str]:
    """Return what a worker needs to know; gloo stays on this machine's loopback."""
    loopback = {"GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
    # Threads that spin while they wait take the cores from the workers they wait for.
    patience = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
    numbers = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    return {MEETING: meeting, "OMP_NUM_THREADS": str(threads), **numbers, **loopback, **patience}


def _watch(workers: Sequence[_Worker]) -> None:
    """Return when all ended well; raise for the one that failed first, or that the others failed after."""
    first: list[_Worker] = []
    while not first and any(worker.status is None for worker in workers):
        time.sleep(_POLL_SECONDS)
        first = [worker for worker in workers if worker.status]
    time.sleep(_POLL_SECONDS if first else 0)  # who was killed at the same moment is found too
    failed = [worker for worker in workers if worker.status]
    if failed:
        raise WorkerError(min(failed, key=lambda worker: (*worker.blame, worker not in first)).failure())
