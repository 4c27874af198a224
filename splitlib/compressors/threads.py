"""Plain threads that share a loop over values.

The loops release the GIL. Neither numba's threading layer, which aborts the process when two pipeline stages call it at
once, nor torch's threads take part: these spin for a while after each operation and would hold the core that a plain
thread waits for.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")

_MIN_SHARE = 1 << 15  # fewer values than this are not worth another thread


def share(numel: int, multiple: int, work: Callable[[int, int], Result]) -> list[Result]:
    """Run ``work(start, stop)`` over all values on as many threads as torch uses; return the results in order.

    Every ``start`` is a multiple of ``multiple``.
    """
    shares = max(1, min(torch.get_num_threads(), numel // _MIN_SHARE))
    size = -(-numel // (shares * multiple)) * multiple
    starts = range(0, numel, size)
    others = [_pool().submit(work, start, min(start + size, numel)) for start in starts[1:]]
    return [work(0, min(size, numel)), *(other.result() for other in others)]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="splitlib-codec")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has none of its parent's threads
