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


def histogram(x: Tensor, every: int) -> Tensor:
    """As :func:`reference.histogram`."""
    bits = x.numpy().view(np.uint32)
    counts = _share(len(bits), lambda start, stop: _histogram(bits[start:stop], start // BLOCK, every))
    by_bits = torch.from_numpy(np.sum(counts, axis=0, dtype=np.int64))
    # Negative floats come after the positive ones and fall as their bits rise.
    return torch.cat([by_bits[1 << 15 :].flip(0), by_bits[: 1 << 15]])


def write_codes(x: Tensor, edges: Tensor, scaling: Tensor, level_bits: int, bits: int, body: Tensor) -> None:
    """As :func:`reference.write_codes`."""
    values, packed = x.numpy(), body.numpy()
    limits, low, inverse = edges.numpy(), *scaling.numpy()
    write: Any = _write_many
    table: tuple[Any, ...] = (limits, low, inverse)
    if len(limits) < _MANY_EDGES:
        write, table = _write_few, ((np.float32(-np.inf), *limits), tuple(low), tuple(inverse))

    def work(start: int, stop: int) -> None:
        write(values[start:stop], *table, level_bits, bits, _part(packed, start, stop, bits))

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

    _share(len(values), work, multiple=_whole_blocks(block, len(values)))


def read_blocks(body: Tensor, table: Tensor, block: int, bits: int, numel: int, limit: float) -> Tensor:
    """As :func:`reference.read_blocks`."""
    packed, ranges = body.numpy(), table.numpy()
    result = torch.empty(numel, dtype=torch.float32)
    out = result.numpy()

    def work(start: int, stop: int) -> None:
        part = _part(packed, start, stop, bits)
        _read_blocks(part, ranges[:, start // block :], block, bits, limit, out[start:stop])

    _share(numel, work, multiple=_whole_blocks(block, numel))
    return result


def _whole_blocks(block: int, numel: int) -> int:
    """Return what a thread's share is a multiple of: whole blocks, unless one block holds everything."""
    return block * BLOCK if block < numel else BLOCK


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
def _histogram(bits: np.ndarray, first_block: int, every: int) -> np.ndarray:
    # Equal neighbours, as after a ReLU, would wait for each other in a single table.
    even, odd = np.zeros(1 << 16, np.uint32), np.zeros(1 << 16, np.uint32)
    for start in range(0, len(bits), BLOCK):
        values = bits[start : start + BLOCK]
        offset = (first_block + start // BLOCK) % every
        for i in range(offset, len(values) - every, 2 * every):
            even[values[i] >> np.uint32(16)] += np.uint32(1)
            odd[values[i + every] >> np.uint32(16)] += np.uint32(1)
        taken = (len(values) - offset + every - 1) // every
        if taken % 2:
            even[values[offset + (taken - 1) * every] >> np.uint32(16)] += np.uint32(1)
    return even + odd


@_compiled
def _write_few(x: np.ndarray, edges: Any, low: Any, inverse: Any, level_bits: int, bits: int, out: np.ndarray) -> None:
    """The bins' numbers come as tuples, whose length is known when this is compiled: they stay in registers."""
    codes = np.empty(BLOCK, np.int32)
    top = np.float32((1 << level_bits) - 1)
    for start in range(0, len(x), BLOCK):
        values = x[start : start + BLOCK]
        for j in range(len(values)):
            first, bin_low, bin_inverse = np.int32(0), low[0], inverse[0]
            for k in range(1, len(edges)):
                above = values[j] >= edges[k]
                first = np.int32(k << level_bits) if above else first
                bin_low = low[k] if above else bin_low
                bin_inverse = inverse[k] if above else bin_inverse
            codes[j] = first + _level(values[j], bin_low, bin_inverse, top)
        _pack(codes[: len(values)], bits, out[start * bits // 8 :])


@_compiled
def _write_many(
    x: np.ndarray, edges: np.ndarray, low: np.ndarray, inverse: np.ndarray, level_bits: int, bits: int, out: np.ndarray
) -> None:
    codes = np.empty(BLOCK, np.int32)
    top = np.float32((1 << level_bits) - 1)
    for start in range(0, len(x), BLOCK):
        values = x[start : start + BLOCK]
        for j in range(len(values)):
            k, beyond = 0, len(edges)  # as many edges as lie at or below the value
            while k < beyond:
                middle = (k + beyond) // 2
                if edges[middle] <= values[j]:
                    k = middle + 1
                else:
                    beyond = middle
            codes[j] = (k << level_bits) + _level(values[j], low[k], inverse[k], top)
        _pack(codes[: len(values)], bits, out[start * bits // 8 :])


@_compiled
def _level(x: np.float32, low: np.float32, inverse: np.float32, top: np.float32) -> np.int32:
    return np.int32(min(max(np.rint((x * np.float32(0.5) - low) * inverse), np.float32(0)), top))


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
    """Looking up is what takes the time: the documents' widths do it while unpacking."""
    if bits == 8:
        for j in range(len(out)):
            out[j] = table[packed[j]]
        return
    done = 0
    if bits == 12:
        done = len(out) // 2 * 2
        for j in range(done // 2):
            low, middle, high = np.int32(packed[3 * j]), np.int32(packed[3 * j + 1]), np.int32(packed[3 * j + 2])
            out[2 * j], out[2 * j + 1] = table[low | (middle & 15) << 8], table[middle >> 4 | high << 4]
    codes = np.empty(BLOCK, np.int32)
    for start in range(done, len(out), BLOCK):
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
    codes = np.empty(BLOCK, np.int32)
    top = np.float32((1 << bits) - 1)
    for first in range(0, len(x), block):
        low, inverse = scaling[0, first // block], scaling[1, first // block]
        for start in range(first, min(first + block, len(x)), BLOCK):
            values = x[start : min(start + BLOCK, first + block)]
            for j in range(len(values)):
                codes[j] = _level(values[j], low, inverse, top)
            _pack(codes[: len(values)], bits, out[start * bits // 8 :])


@_compiled
def _read_blocks(packed: np.ndarray, table: np.ndarray, block: int, bits: int, limit: float, out: np.ndarray) -> None:
    codes = np.empty(BLOCK, np.int32)
    for first in range(0, len(out), block):
        low, step = np.float64(table[0, first // block]), np.float64(table[1, first // block])
        for start in range(first, min(first + block, len(out)), BLOCK):
            values = out[start : min(start + BLOCK, first + block)]
            _unpack(packed[start * bits // 8 :], bits, codes[: len(values)])
            for j in range(len(values)):
                values[j] = np.float32(max(min(low + codes[j] * step, limit), -limit))
