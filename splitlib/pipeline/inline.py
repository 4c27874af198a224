"""torchgpipe on CPUs alone, without its worker thread.

torchgpipe computes in one thread for each device and waits for it in the caller's, which later goes back through the
graph. Where there are several devices they compute at once. Where there is but the CPU nothing does, and both threads
have OpenMP threads of their own, of which each set spins on the other's cores (measured in ``benchmarks/README.md``).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torchgpipe.pipeline
from torchgpipe.worker import Task, spawn_workers


class _Inline:
    """A queue of tasks and one of results: what is put in is computed at once, in the thread that puts it in."""

    def __init__(self) -> None:
        self._results: deque[tuple[bool, Any]] = deque()

    def put(self, task: Task) -> None:
        """Compute a task."""
        try:
            self._results.append((True, (task, task.compute())))
        except Exception:
            self._results.append((False, sys.exc_info()))

    def get(self) -> tuple[bool, Any]:
        """Return whether the next task went well, and its result or its error, as torchgpipe's worker does."""
        return self._results.popleft()


@contextmanager
def _inline_workers(stages: int) -> Iterator[tuple[list[_Inline], list[_Inline]]]:
    queues = [_Inline()] * stages
    yield queues, queues


def _workers(devices: list[torch.device]) -> AbstractContextManager[tuple[Any, Any]]:
    """Take the place of ``spawn_workers``: threads where there is anything that they could do at once."""
    if all(device.type == "cpu" for device in devices):
        return _inline_workers(len(devices))
    workers: AbstractContextManager[tuple[Any, Any]] = spawn_workers(devices)
    return workers


def compute_inline() -> None:
    """Have torchgpipe compute in the caller's thread where all stages are on the CPU."""
    torchgpipe.pipeline.spawn_workers = _workers  # type: ignore[attr-defined,assignment]
