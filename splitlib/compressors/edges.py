"""Where the bins of sort and fast quantization begin and end: four rules, one format.

Every rule takes the values (1-d float32, finite), their extremes and the number of bins, and returns the bins' ends
[2, bins]: the lowest and the highest value each has levels for. A value belongs to the last bin that begins at or
below it, so bins whose beginnings tie stay empty, except the last of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from splitlib.compressors.quantizer import loops

SORTED = 1 << 16  # up to this many values are sorted; the histogram has as many cells
SAMPLE = 1 << 14
_TOLERANCE = 16  # a bin may miss its count by one part in this


def equal_count(x: Tensor, low: float, high: float, bins: int) -> Tensor:
    """Bins of equally many values, as 001 §2 cuts them.

    A large tensor is not sorted but counted by its values' leading 16 bits, which puts an edge wrong by less than 1/16
    of a bin. Where too many values share these bits for that, it is sorted after all.
    """
    if len(x) > SORTED:
        begins = _counted_begins(x, low, high, bins)
        if begins is not None:
            return _joined(begins, low, high)
    return _chunk_ends(_sorted(x), bins)


def equal_range(x: Tensor, low: float, high: float, bins: int) -> Tensor:
    """Bins of equal width: uniform quantization in the format of sort quantization."""
    fractions = torch.arange(1, bins, device=x.device, dtype=torch.float64) / bins
    return _joined(low + fractions * high - fractions * low, low, high)


def cube_root(x: Tensor, low: float, high: float, bins: int) -> Tensor:
    """Bins that hold equal parts of the density's cube root, where the squared error is least (Panter and Dite 1951).

    The density is estimated from a sample's spacings: around a spacing ``s`` it is about ``1 / (n s)``, so the integral
    of its cube root grows by ``s^(2/3)`` from each value to the next. Tied values add nothing.
    """
    ends = torch.tensor([low, high], dtype=torch.float32, device=x.device)
    ordered = _sorted(torch.cat([ends, sample(x)])).double()
    mass = (ordered.diff() / 2).pow_(2 / 3).cumsum_(0)  # half, so that the widest range stays finite
    targets = mass[-1] * torch.arange(1, bins, device=x.device) / bins
    after = torch.searchsorted(mass, targets).clamp_(max=len(mass) - 1)
    before = torch.where(after > 0, mass[after - 1], 0.0)
    part = ((targets - before) / (mass[after] - before)).nan_to_num_(0.0)
    begins = ordered[after] * (1 - part) + ordered[after + 1] * part
    return _joined(begins, low, high)


def sampled_count(x: Tensor, low: float, high: float, bins: int) -> Tensor:
    """Bins of about equally many values: the ranks of a random sample of the whole tensor stand for all ranks."""
    ordered = _sorted(sample(x))
    size = -(-len(ordered) // bins)
    ranks = torch.arange(1, bins, device=x.device) * size
    return _joined(ordered[ranks.clamp_(max=len(ordered) - 1)], low, high)


RULES: dict[str, Callable[[Tensor, float, float, int], Tensor]] = {
    "equal_count": equal_count,
    "equal_range": equal_range,
    "cube_root": cube_root,
}


def sample(x: Tensor) -> Tensor:
    """Return :data:`SAMPLE` values drawn from all of ``x`` (1-d), or all of a smaller one; the same for each call."""
    return x if len(x) <= SAMPLE else x[_places(len(x), x.device)]


@functools.lru_cache(maxsize=64)
def _places(numel: int, device: torch.device) -> Tensor:
    return torch.randint(numel, (SAMPLE,), generator=torch.Generator().manual_seed(0)).sort().values.to(device)


def _sorted(x: Tensor) -> Tensor:
    """Sort values; on a CPU numpy is several times as fast as torch."""
    return torch.from_numpy(np.sort(x.numpy())) if x.device.type == "cpu" else torch.sort(x).values


def _joined(begins: Tensor, low: float, high: float) -> Tensor:
    """Return the ends of bins each of which goes to where the next begins, from ``low`` to ``high``."""
    inner = begins.float().clamp_(low, high)
    first, last = (torch.full((1,), end, dtype=torch.float32, device=begins.device) for end in (low, high))
    return torch.stack([torch.cat([first, inner]), torch.cat([inner, last])])


def _chunk_ends(ordered: Tensor, bins: int) -> Tensor:
    """Return the first and last value of each of ``bins`` chunks of sorted values; chunks past the end are empty."""
    size, last = -(-len(ordered) // bins), len(ordered) - 1
    starts = torch.arange(bins, device=ordered.device) * size
    return torch.stack([ordered[starts.clamp(max=last)], ordered[(starts + size - 1).clamp(max=last)]])


def _counted_begins(x: Tensor, low: float, high: float, bins: int) -> Tensor | None:
    """Return where bins of equally many values begin, found by counting; None where counting is too coarse."""
    counts = loops(x.device).histogram(x)
    size = -(-len(x) // bins)
    ranks = torch.arange(1, bins, device=x.device) * size
    ranks = ranks[ranks < len(x)]
    cells = torch.searchsorted(counts.cumsum(0), ranks, right=True)
    begins = _cell_floors(cells)
    drawn = sample(x)
    for cell in cells[counts[cells] * _TOLERANCE > size].unique():
        # Many values in one cell: right only if they are one value, the cell's floor, as the zeros after a ReLU.
        floor, beyond = _cell_floors(torch.stack([cell, cell + 1]))
        if ((drawn > floor) & (drawn < beyond)).any():
            return None
    return torch.cat([begins, begins.new_full((bins - 1 - len(begins),), high)])


def _cell_floors(cells: Tensor) -> Tensor:
    """Return the smallest value of each cell of the histogram."""
    bits = torch.where(cells >= 1 << 15, cells - (1 << 15) << 16, (0xFFFF - cells << 16 | 0xFFFF) - (1 << 32))
    return bits.int().view(torch.float32)
