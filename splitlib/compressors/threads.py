"""Plain threads that share a loop over values.

The loops release the GIL. Numba's own threading layer aborts the process when two pipeline stages call it at once.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")

_MIN_SHARE = 1 << 19  # waking another thread takes as long as a loop over most of so many values


def share(numel: int, multiple: int, work: Callable[[int, int], Result]) -> list[Result]:
    """Run ``work(start, stop)`` over all values on as many threads as torch uses; return the results in order.

    Every ``start`` is a multiple of ``multiple``. A share that no thread has begun when this one is done, because the
    other cores are busy, is done here.
    """
    shares = max(1, min(torch.get_num_threads(), numel // _MIN_SHARE))
    size = -(-numel // (shares * multiple)) * multiple
    parts = [(start, min(start + size, numel)) for start in range(0, numel, size)]
    others = [_pool().submit(work, *part) for part in parts[1:]]
    results = [work(*parts[0])]
    for other, part in zip(others, parts[1:], strict=True):
        results.append(work(*part) if other.cancel() else other.result())
    return results


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="splitlib-codec")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has none of its parent's threads
