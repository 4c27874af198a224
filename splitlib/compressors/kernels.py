"""The quantizers' loops on a CPU, shared among threads; :mod:`reference` says what each must give."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitlib.compressors import compiled, reference
from splitlib.compressors.compiled import BLOCK
from splitlib.compressors.threads import share

_MANY_EDGES = 32  # from here on a search beats comparing with every edge


def word_sum(message: Tensor) -> Tensor:
    """As :func:`reference.word_sum`."""
    data = message.numpy()
    whole = len(data) // 8 * 8
    words, tail = data[:whole].view(np.int64), data[whole:].tobytes().ljust(8, b"\0")
    return torch.tensor([compiled.word_sum(words), *np.frombuffer(tail, np.int64).tolist()]).sum()


def histogram(x: Tensor, every: int) -> Tensor:
    """As :func:`reference.histogram`."""
    bits = x.numpy().view(np.uint32)

    def work(start: int, stop: int) -> np.ndarray:
        table = np.empty((2, 1 << 16), np.uint32)
        compiled.histogram(bits[start:stop], start // BLOCK, every, table)
        return table

    upto = np.empty(1 << 16, np.int64)
    compiled.cumulate(np.concatenate(share(len(bits), BLOCK, work)), upto)
    return torch.from_numpy(upto)


def write_codes(x: Tensor, edges: Tensor, scaling: Tensor, level_bits: int, bits: int, body: Tensor) -> None:
    """As :func:`reference.write_codes`."""
    values, packed = x.numpy(), body.numpy()
    limits, low, inverse = edges.numpy(), *scaling.numpy()
    write: Any = compiled.write_many
    table: tuple[Any, ...] = (limits, low, inverse)
    if len(limits) < _MANY_EDGES:
        write, table = compiled.write_few, ((np.float32(-np.inf), *limits), tuple(low), tuple(inverse))

    def work(start: int, stop: int) -> None:
        write(values[start:stop], *table, level_bits, bits, _part(packed, start, stop, bits))

    share(len(values), BLOCK, work)


def read_codes(body: Tensor, values: Tensor, bits: int, numel: int) -> Tensor:
    """As :func:`reference.read_codes`."""
    packed, table = body.numpy(), values.numpy()
    result = torch.empty(numel, dtype=torch.float32)
    out = result.numpy()

    def work(start: int, stop: int) -> None:
        compiled.read_codes(_part(packed, start, stop, bits), table, bits, out[start:stop])

    share(numel, BLOCK, work)
    return result


def span(x: Tensor) -> tuple[float, float]:
    """As :func:`reference.span`."""
    if x.dtype != torch.float32:
        return reference.span(x)
    flat = x.reshape(-1)
    parts = share(len(flat), BLOCK, lambda start, stop: _extremes(flat.numpy()[start:stop], stop - start))
    ends = np.hstack(parts)
    return float(ends[0].min()), float(ends[1].max())  # NaN if one is


def extremes(x: Tensor, block: int) -> Tensor:
    """As :func:`reference.extremes`."""
    values = x.numpy()
    parts = share(len(values), block, lambda start, stop: _extremes(values[start:stop], block))
    return torch.from_numpy(np.hstack(parts))


def _extremes(values: np.ndarray, block: int) -> np.ndarray:
    out = np.empty((2, -(-len(values) // block)), np.float32)
    compiled.extremes(values.view(np.int32), block, out.view(np.int32))
    return out


def write_blocks(x: Tensor, scaling: Tensor, block: int, bits: int, body: Tensor) -> None:
    """As :func:`reference.write_blocks`."""
    values, scale, packed = x.numpy(), scaling.numpy(), body.numpy()

    def work(start: int, stop: int) -> None:
        part = _part(packed, start, stop, bits)
        compiled.write_blocks(values[start:stop], scale[:, start // block :], block, bits, part)

    share(len(values), _whole_blocks(block, len(values)), work)


def read_blocks(body: Tensor, table: Tensor, block: int, bits: int, numel: int, limit: float) -> Tensor:
    """As :func:`reference.read_blocks`."""
    packed, ranges = body.numpy(), table.numpy()
    result = torch.empty(numel, dtype=torch.float32)
    out = result.numpy()

    def work(start: int, stop: int) -> None:
        part = _part(packed, start, stop, bits)
        compiled.read_blocks(part, ranges[:, start // block :], block, bits, limit, out[start:stop])

    share(numel, _whole_blocks(block, numel), work)
    return result


def _whole_blocks(block: int, numel: int) -> int:
    """Return what a thread's share is a multiple of: whole blocks, unless one block holds everything."""
    return block if block < numel else BLOCK


def _part(packed: np.ndarray, start: int, stop: int, bits: int) -> np.ndarray:
    """The bytes that codes ``start`` to ``stop`` take; ``start`` is a multiple of 8."""
    return packed[start * bits // 8 : -(-stop * bits // 8)]
