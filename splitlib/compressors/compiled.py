"""The quantizers' loops themselves, compiled by numba on first use.

Every loop works on short blocks that stay in the cache, so that each step is one simple loop, which LLVM turns into
vector instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

BLOCK = 1024  # values that one pass of each loop takes; a multiple of 8, so that a block's codes begin at a whole byte


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first call and keep the result on disk, where there is a folder to write to."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found none
        return numba.njit(nogil=True)(function)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile as part of whatever calls it: a call that passes arrays counts references to each."""
    return numba.njit(inline="always")(function)


@compiled
def histogram(bits: np.ndarray, first_block: int, every: int, table: np.ndarray) -> None:
    """Count into a table [2, 2^16] by the leading 16 bits; equal neighbours would wait for each other in one row."""
    table[:] = np.uint32(0)
    even, odd = table
    for start in range(0, len(bits), BLOCK):
        values = bits[start : start + BLOCK]
        offset = (first_block + start // BLOCK) % every
        for i in range(offset, len(values) - every, 2 * every):
            even[values[i] >> np.uint32(16)] += np.uint32(1)
            odd[values[i + every] >> np.uint32(16)] += np.uint32(1)
        taken = (len(values) - offset + every - 1) // every
        if taken % 2:
            even[values[offset + (taken - 1) * every] >> np.uint32(16)] += np.uint32(1)


@compiled
def cumulate(tables: np.ndarray, upto: np.ndarray) -> None:
    """Sum tables [n, 2^16] of :func:`histogram` up to each cell, in the order of the values."""
    counts = tables[0]
    for k in range(1, len(tables)):
        for i in range(len(counts)):
            counts[i] += tables[k, i]
    total = np.int64(0)
    half = len(counts) // 2
    for i in range(half):  # negative floats come after the positive ones and fall as their bits rise
        total += counts[len(counts) - 1 - i]
        upto[i] = total
    for i in range(half):
        total += counts[i]
        upto[half + i] = total


@compiled
def write_few(x: np.ndarray, edges: Any, low: Any, inverse: Any, level_bits: int, bits: int, out: np.ndarray) -> None:
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
        pack(codes[: len(values)], bits, out[start * bits // 8 :])


@compiled
def write_many(
    x: np.ndarray, edges: np.ndarray, low: np.ndarray, inverse: np.ndarray, level_bits: int, bits: int, out: np.ndarray
) -> None:
    """As :func:`write_few`, for bins whose edges are searched."""
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
        pack(codes[: len(values)], bits, out[start * bits // 8 :])


@compiled
def _level(x: np.float32, low: np.float32, inverse: np.float32, top: np.float32) -> np.int32:
    return np.int32(min(max(np.rint((x * np.float32(0.5) - low) * inverse), np.float32(0)), top))


@compiled
def pack(codes: np.ndarray, bits: int, out: np.ndarray) -> None:
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


@compiled
def unpack(packed: np.ndarray, bits: int, codes: np.ndarray) -> None:
    """Undo :func:`pack`."""
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


@compiled
def read_codes(packed: np.ndarray, table: np.ndarray, bits: int, out: np.ndarray) -> None:
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
        unpack(packed[start * bits // 8 :], bits, codes[: len(values)])
        for j in range(len(values)):
            values[j] = table[codes[j]]


@compiled
def extremes(bits: np.ndarray, block: int, out: np.ndarray) -> None:
    """Write the bits of each block's smallest and largest float32, [2, blocks]; a NaN lies beyond inf, on its side."""
    for k in range(out.shape[1]):
        values = bits[k * block : (k + 1) * block]
        low = high = _ordered(values[0])
        for j in range(len(values)):
            key = _ordered(values[j])
            low, high = min(low, key), max(high, key)
        out[0, k], out[1, k] = _ordered(low), _ordered(high)


@compiled
def _ordered(bits: np.int32) -> np.int32:
    """Return an integer that rises with the float that has these bits, and of that integer the bits.

    Minima of integers are vector instructions; those of floats are not, because of NaN.
    """
    return np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@compiled
def word_sum(words: np.ndarray) -> np.int64:
    """Return the sum of int64 modulo 2^64."""
    total = np.int64(0)
    for j in range(len(words)):
        total += words[j]
    return total


@compiled
def write_blocks(x: np.ndarray, scaling: np.ndarray, block: int, bits: int, out: np.ndarray) -> None:
    """Write packed codes, each block by its own column of ``scaling``."""
    codes = np.empty(BLOCK, np.int32)
    top = np.float32((1 << bits) - 1)
    for first in range(0, len(x), block):
        low, inverse = scaling[0, first // block], scaling[1, first // block]
        for start in range(first, min(first + block, len(x)), BLOCK):
            values = x[start : min(start + BLOCK, first + block)]
            for j in range(len(values)):
                codes[j] = _level(values[j], low, inverse, top)
            pack(codes[: len(values)], bits, out[start * bits // 8 :])


@compiled
def read_blocks(packed: np.ndarray, table: np.ndarray, block: int, bits: int, limit: float, out: np.ndarray) -> None:
    """Compute in double precision, as the tables of values are."""
    codes = np.empty(BLOCK, np.int32)
    for first in range(0, len(out), block):
        low, step = np.float64(table[0, first // block]), np.float64(table[1, first // block])
        for start in range(first, min(first + block, len(out)), BLOCK):
            values = out[start : min(start + BLOCK, first + block)]
            unpack(packed[start * bits // 8 :], bits, codes[: len(values)])
            for j in range(len(values)):
                values[j] = np.float32(max(min(low + codes[j] * step, limit), -limit))
