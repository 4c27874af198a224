"""The quantizers' loops on a GPU, one Triton kernel each; :mod:`reference` says what each must give.

As torch operations they are dozens of launches, and on small tensors a GPU spends its time being told what to do.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from splitlib.compressors.reference import STRIPE, extremes, span, word_sum

__all__ = ["extremes", "histogram", "read_blocks", "read_codes", "span", "word_sum", "write_blocks", "write_codes"]

_SIZE = 1024  # numbers that one program takes


def histogram(x: Tensor, every: int) -> Tensor:
    """As :func:`reference.histogram`."""
    counts = torch.zeros(1 << 16, dtype=torch.int32, device=x.device)
    rows = -(-len(x) // STRIPE)
    with torch.cuda.device_of(x):
        _count[(rows,)](
            x.view(torch.int32), counts, len(x), EVERY=every, STRIPE=STRIPE, TAKEN=STRIPE // every,
            enable_fp_fusion=False,
        )  # fmt: skip
    return counts.cumsum(0)


def write_codes(x: Tensor, edges: Tensor, scaling: Tensor, level_bits: int, bits: int, body: Tensor) -> None:
    """As :func:`reference.write_codes`."""
    edges, scaling = edges.to(x.device), scaling.to(x.device)
    _launch(_write, body, x, edges, scaling, scaling.shape[1], body, len(x), len(body), 1, level_bits, bits, True)


def write_blocks(x: Tensor, scaling: Tensor, block: int, bits: int, body: Tensor) -> None:
    """As :func:`reference.write_blocks`."""
    scaling = scaling.to(x.device)
    _launch(_write, body, x, scaling, scaling, scaling.shape[1], body, len(x), len(body), block, bits, bits, False)


def read_codes(body: Tensor, values: Tensor, bits: int, numel: int) -> Tensor:
    """As :func:`reference.read_codes`."""
    result = torch.empty(numel, dtype=torch.float32, device=body.device)
    _launch(_look_up, result, body, values.to(body.device), result, numel, len(body), bits)
    return result


def read_blocks(body: Tensor, table: Tensor, block: int, bits: int, numel: int, limit: float) -> Tensor:
    """As :func:`reference.read_blocks`."""
    result = torch.empty(numel, dtype=torch.float32, device=body.device)
    table = table.to(body.device)
    _launch(_compute, result, body, table, table.shape[1], limit, result, numel, len(body), block, bits)
    return result


def _launch(kernel: Any, result: Tensor, *arguments: Any) -> None:
    """Run a kernel with one program for so many numbers of ``result``."""
    if len(result):
        with torch.cuda.device_of(result):
            kernel[(triton.cdiv(len(result), _SIZE),)](*arguments, SIZE=_SIZE, enable_fp_fusion=False)


@triton.jit
def _count(x, counts, numel, EVERY: tl.constexpr, STRIPE: tl.constexpr, TAKEN: tl.constexpr):
    """Count a stripe's values; its zeros, half of all after a ReLU, at once: in one cell they wait for each other."""
    stripe = tl.program_id(0)
    place = stripe.to(tl.int64) * STRIPE + tl.arange(0, TAKEN) * EVERY + stripe % EVERY
    bits = tl.load(x + place, mask=place < numel, other=0)
    there = place < numel
    zero = there & (bits == 0)
    key = tl.where(bits < 0, ~bits, bits ^ -2147483648)
    cell = (key >> 16) & 0xFFFF
    tl.atomic_add(counts + cell, 1, mask=there & (bits != 0))
    tl.atomic_add(counts + 0x8000, tl.sum(zero.to(tl.int32), 0))


@triton.jit
def _write(
    x, edges, scaling, columns, out, numel, nbytes, block,
    LEVEL_BITS: tl.constexpr, BITS: tl.constexpr, BINNED: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Write a byte from each code that has bits in it; a code of several bytes is found several times."""
    byte = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    first = byte * 8 // BITS
    value = tl.zeros([SIZE], tl.int32)
    for k in tl.static_range(7 // BITS + 2):
        place = first + k
        v = tl.load(x + place, mask=place < numel, other=0.0)
        if BINNED:
            column = tl.zeros([SIZE], tl.int64)
            for bit in tl.static_range(BITS - LEVEL_BITS):  # there are 2^n - 1 edges: a search without remainder
                step = 1 << (BITS - LEVEL_BITS - 1 - bit)
                column += tl.where(tl.load(edges + column + step - 1) <= v, step, 0)
        else:
            column = tl.minimum(place, numel - 1) // block
        level = (v * 0.5 - tl.load(scaling + column)) * tl.load(scaling + columns + column)
        level = tl.minimum(tl.maximum(level, 0.0), (1 << LEVEL_BITS) - 1.0)
        level = (level + 12582912.0) - 12582912.0  # 1.5 * 2^23: float32 rounds what follows the point to even
        code = level.to(tl.int32)
        if BINNED:
            code += column.to(tl.int32) << LEVEL_BITS
        left = place * BITS - byte * 8
        moved = tl.where(left >= 0, code << tl.maximum(left, 0).to(tl.int32), code >> tl.maximum(-left, 0).to(tl.int32))
        value |= tl.where((place < numel) & (left < 8), moved, 0)
    tl.store(out + byte, (value & 0xFF).to(tl.uint8), mask=byte < nbytes)


@triton.jit
def _code(body, place, numel, nbytes, BITS: tl.constexpr):
    """Read the codes at ``place``: at most 16 bits, so they lie in three bytes."""
    bit = place * BITS
    byte = bit // 8
    code = tl.zeros(place.shape, tl.int32)
    for k in tl.static_range(3):
        there = (place < numel) & (byte + k < nbytes)
        code |= tl.load(body + byte + k, mask=there, other=0).to(tl.int32) << (8 * k)
    return (code >> (bit % 8).to(tl.int32)) & ((1 << BITS) - 1)


@triton.jit
def _look_up(body, values, out, numel, nbytes, BITS: tl.constexpr, SIZE: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    code = _code(body, place, numel, nbytes, BITS)
    tl.store(out + place, tl.load(values + code), mask=place < numel)


@triton.jit
def _compute(body, table, columns, limit, out, numel, nbytes, block, BITS: tl.constexpr, SIZE: tl.constexpr):
    """Compute in double precision, as the tables of values are."""
    place = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    code = _code(body, place, numel, nbytes, BITS)
    column = tl.minimum(place, numel - 1) // block
    low, step = tl.load(table + column).to(tl.float64), tl.load(table + columns + column).to(tl.float64)
    value = (low + step * code.to(tl.float64)).to(tl.float32)
    tl.store(out + place, tl.minimum(tl.maximum(value, -limit), limit), mask=place < numel)
