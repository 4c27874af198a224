"""The quantizers' loops for a CPU, compiled by numba on first use; :mod:`reference` says what each must give.

Every loop works on short blocks that stay in the cache, so that each step is one simple loop, which LLVM turns into
vector instructions. The kernels release the GIL and plain threads share the work: numba's own threading layer aborts
the process when two pipeline stages call it at once.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

BLOCK = 1024  # values that one pass of each loop takes; a multiple of 8, so that a block's codes begin at a whole byte
_MIN_SHARE = 1 << 15  # fewer values than this are not worth another thread
_MANY_EDGES = 32  # from here on a search beats comparing with every edge


def _compiled(function: Callable[..., Any], fastmath: Any = False) -> Callable[..., Any]:
    """Compile on first call and keep the result on disk, where there is a folder to write to."""
    try:
        return numba.njit(nogil=True, cache=True, fastmath=fastmath)(function)
    except RuntimeError:  # numba found none
        return numba.njit(nogil=True, fastmath=fastmath)(function)


def _compiled_without_nan(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let LLVM compute minima and maxima as vectors, which it may for values that are finite."""
    return _compiled(function, fastmath={"nnan", "nsz"})


def histogram(x: Tensor) -> Tensor:
    """As :func:`reference.histogram`."""
    bits = x.numpy().view(np.uint32)
    counts = _share(len(bits), lambda start, stop: _histogram(bits[start:stop]))
    by_bits = torch.from_numpy(np.sum(counts, axis=0, dtype=np.int64))
    # Negative floats come after the positive ones and fall as their bits rise.
    return torch.cat([by_bits[1 << 15 :].flip(0), by_bits[: 1 << 15]])


def write_codes(x: Tensor, edges: Tensor, scaling: Tensor, level_bits: int, bits: int, body: Tensor) -> None:
    """As :func:`reference.write_codes`."""
    values, limits, scale, packed = x.numpy(), edges.numpy(), scaling.numpy(), body.numpy()

    def work(start: int, stop: int) -> None:
        _write_codes(values[start:stop], limits, scale, level_bits, bits, _part(packed, start, stop, bits))

    _share(len(values), work)


def read_codes(body: Tensor, values: Tensor, bits: int, numel: int) -> Tensor:
    """As :func:`reference.read_codes`."""
    packed, table = body.numpy(), values.numpy()
    result = torch.empty(numel, dtype=torch.float32)
    out = result.numpy()
    _share(numel, lambda start, stop: _read_codes(_part(packed, start, stop, bits), table, bits, out[start:stop]))
    return result


def extremes(x: Tensor, block: int) -> Tensor:
    """As :func:`reference.extremes`."""
    values = x.numpy()
    result = torch.empty(2, -(-len(values) // block), dtype=torch.float32)
    out = result.numpy()
    _share(
        len(values),
        lambda start, stop: _extremes(values[start:stop], block, out[:, start // block : -(-stop // block)]),
        multiple=block * BLOCK,
    )
    return result


def write_blocks(x: Tensor, scaling: Tensor, block: int, bits: int, body: Tensor) -> None:
    """As :func:`reference.write_blocks`."""
    values, scale, packed = x.numpy(), scaling.numpy(), body.numpy()

    def work(start: int, stop: int) -> None:
        part = _part(packed, start, stop, bits)
        _write_blocks(values[start:stop], scale[:, start // block :], block, bits, part)

    _share(len(values), work, multiple=block * BLOCK)


def read_blocks(body: Tensor, table: Tensor, block: int, bits: int, numel: int, limit: float) -> Tensor:
    """As :func:`reference.read_blocks`."""
    packed, ranges = body.numpy(), table.numpy()
    result = torch.empty(numel, dtype=torch.float32)
    out = result.numpy()

    def work(start: int, stop: int) -> None:
        part = _part(packed, start, stop, bits)
        _read_blocks(part, ranges[:, start // block :], block, bits, limit, out[start:stop])

    _share(numel, work, multiple=block * BLOCK)
    return result


def _part(packed: np.ndarray, start: int, stop: int, bits: int) -> np.ndarray:
    """The bytes that codes ``start`` to ``stop`` take; ``start`` is a multiple of 8."""
    return packed[start * bits // 8 : -(-stop * bits // 8)]


def _share(numel: int, work: Callable[[int, int], Any], multiple: int = BLOCK) -> list[Any]:
    """Run ``work(start, stop)`` over all values on as many threads as torch uses; return the results in order."""
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


@_compiled
def _histogram(bits: np.ndarray) -> np.ndarray:
    # Equal neighbours, as after a ReLU, would wait for each other in a single table.
    even, odd = np.zeros(1 << 16, np.uint32), np.zeros(1 << 16, np.uint32)
    for i in range(len(bits) // 2):
        even[bits[2 * i] >> np.uint32(16)] += np.uint32(1)
        odd[bits[2 * i + 1] >> np.uint32(16)] += np.uint32(1)
    if len(bits) % 2:
        even[bits[-1] >> np.uint32(16)] += np.uint32(1)
    return even + odd


@_compiled
def _write_codes(
    x: np.ndarray, edges: np.ndarray, scaling: np.ndarray, level_bits: int, bits: int, out: np.ndarray
) -> None:
    codes, first = np.zeros(BLOCK, np.int32), np.zeros(BLOCK, np.int32)
    low, inverse = np.full(BLOCK, scaling[0, 0]), np.full(BLOCK, scaling[1, 0])
    for start in range(0, len(x), BLOCK):
        values = x[start : start + BLOCK]
        if len(edges) >= _MANY_EDGES:
            _search(values, edges, scaling, level_bits, first, low, inverse)
        elif len(edges):
            _compare(values, edges, scaling, level_bits, first, low, inverse)
        _quantize(values, first, low, inverse, level_bits, codes)
        _pack(codes[: len(values)], bits, out[start * bits // 8 :])


@_compiled
def _compare(
    x: np.ndarray,
    edges: np.ndarray,
    scaling: np.ndarray,
    level_bits: int,
    first: np.ndarray,
    low: np.ndarray,
    inverse: np.ndarray,
) -> None:
    for j in range(len(x)):
        first[j], low[j], inverse[j] = 0, scaling[0, 0], scaling[1, 0]
    for k in range(len(edges)):
        edge, code = edges[k], np.int32((k + 1) << level_bits)
        bin_low, bin_inverse = scaling[0, k + 1], scaling[1, k + 1]
        for j in range(len(x)):
            above = x[j] >= edge
            first[j] = code if above else first[j]
            low[j] = bin_low if above else low[j]
            inverse[j] = bin_inverse if above else inverse[j]


@_compiled
def _search(
    x: np.ndarray,
    edges: np.ndarray,
    scaling: np.ndarray,
    level_bits: int,
    first: np.ndarray,
    low: np.ndarray,
    inverse: np.ndarray,
) -> None:
    for j in range(len(x)):
        k, beyond = 0, len(edges)  # as many edges as lie at or below the value
        while k < beyond:
            middle = (k + beyond) // 2
            if edges[middle] <= x[j]:
                k = middle + 1
            else:
                beyond = middle
        first[j], low[j], inverse[j] = k << level_bits, scaling[0, k], scaling[1, k]


@_compiled
def _quantize(
    x: np.ndarray, first: np.ndarray, low: np.ndarray, inverse: np.ndarray, level_bits: int, codes: np.ndarray
) -> None:
    top = np.float32((1 << level_bits) - 1)
    for j in range(len(x)):
        codes[j] = first[j] + np.int32(min(np.rint((x[j] * np.float32(0.5) - low[j]) * inverse[j]), top))


@_compiled
def _pack(codes: np.ndarray, bits: int, out: np.ndarray) -> None:
    """Loops of their own for the widths of the documents; any other goes through 64-bit words."""
    done = len(codes) // 2 * 2
    if bits == 4:
        for j in range(done // 2):
            out[j] = np.uint8(codes[2 * j] | codes[2 * j + 1] << 4)
    elif bits == 8:
        for j in range(done):
            out[j] = np.uint8(codes[j])
    elif bits == 12:
        for j in range(done // 2):
            pair = codes[2 * j] | codes[2 * j + 1] << 12
            out[3 * j], out[3 * j + 1], out[3 * j + 2] = np.uint8(pair), np.uint8(pair >> 8), np.uint8(pair >> 16)
    elif bits == 16:
        for j in range(done):
            out[2 * j], out[2 * j + 1] = np.uint8(codes[j]), np.uint8(codes[j] >> 8)
    else:
        done = 0
    waiting, width, place = np.uint64(0), 0, done * bits // 8
    for j in range(done, len(codes)):
        waiting |= np.uint64(codes[j]) << np.uint64(width)
        width += bits
        while width >= 8:
            out[place] = np.uint8(waiting)
            waiting, width, place = waiting >> np.uint64(8), width - 8, place + 1
    if width > 0:
        out[place] = np.uint8(waiting)


@_compiled
def _unpack(packed: np.ndarray, bits: int, codes: np.ndarray) -> None:
    """Undo :func:`_pack`."""
    done = len(codes) // 2 * 2
    if bits == 4:
        for j in range(done // 2):
            codes[2 * j], codes[2 * j + 1] = packed[j] & 15, packed[j] >> 4
    elif bits == 8:
        for j in range(done):
            codes[j] = packed[j]
    elif bits == 12:
        for j in range(done // 2):
            middle = np.int32(packed[3 * j + 1])
            codes[2 * j] = np.int32(packed[3 * j]) | (middle & 15) << 8
            codes[2 * j + 1] = middle >> 4 | np.int32(packed[3 * j + 2]) << 4
    elif bits == 16:
        for j in range(done):
            codes[j] = np.int32(packed[2 * j]) | np.int32(packed[2 * j + 1]) << 8
    else:
        done = 0
    waiting, width, place = np.uint64(0), 0, done * bits // 8
    mask = np.uint64((1 << bits) - 1)
    for j in range(done, len(codes)):
        while width < bits:
            waiting |= np.uint64(packed[place]) << np.uint64(width)
            width, place = width + 8, place + 1
        codes[j] = np.int32(waiting & mask)
        waiting, width = waiting >> np.uint64(bits), width - bits


@_compiled
def _read_codes(packed: np.ndarray, table: np.ndarray, bits: int, out: np.ndarray) -> None:
    codes = np.empty(BLOCK, np.int32)
    for start in range(0, len(out), BLOCK):
        values = out[start : start + BLOCK]
        _unpack(packed[start * bits // 8 :], bits, codes[: len(values)])
        for j in range(len(values)):
            values[j] = table[codes[j]]


@_compiled_without_nan
def _extremes(x: np.ndarray, block: int, out: np.ndarray) -> None:
    for k in range(out.shape[1]):
        values = x[k * block : (k + 1) * block]
        low = high = values[0]
        for j in range(len(values)):
            low, high = min(low, values[j]), max(high, values[j])
        out[0, k], out[1, k] = low, high


@_compiled
def _write_blocks(x: np.ndarray, scaling: np.ndarray, block: int, bits: int, out: np.ndarray) -> None:
    codes = np.empty(block, np.int32)
    top = np.float32((1 << bits) - 1)
    for start in range(0, len(x), block):
        values = x[start : start + block]
        low, inverse = scaling[0, start // block], scaling[1, start // block]
        for j in range(len(values)):
            codes[j] = np.int32(min(np.rint((values[j] * np.float32(0.5) - low) * inverse), top))
        _pack(codes[: len(values)], bits, out[start * bits // 8 :])


@_compiled
def _read_blocks(packed: np.ndarray, table: np.ndarray, block: int, bits: int, limit: float, out: np.ndarray) -> None:
    codes = np.empty(block, np.int32)
    for start in range(0, len(out), block):
        values = out[start : start + block]
        low, step = np.float64(table[0, start // block]), np.float64(table[1, start // block])
        _unpack(packed[start * bits // 8 :], bits, codes[: len(values)])
        for j in range(len(values)):
            values[j] = np.float32(max(min(low + codes[j] * step, limit), -limit))
