"""Where the bins of sort and fast quantization begin and end: five rules, one format.

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
CANDIDATES = 192  # of the values where bins may begin under least_error
_UNSEEN = 0.5  # values of the sample's size that a bin may hold although the sample has none there
_TOLERANCE = 16  # a bin may miss its count by one part in this
_EVERY = 4  # of a tensor so large that a part tells the ranks, one value in this many is counted:
_ENOUGH = 1 << 12  # with so many counted in each bin, four standard deviations of the count are one part in 16


def equal_count(x: Tensor, low: float, high: float, bins: int) -> Tensor:
    """Bins of equally many values, as 001 §2 cuts them.

    A large tensor is not sorted but counted by its values' leading 16 bits, which misses a bin's count by less than
    1/16. Where too many values share these bits for that, it is sorted after all.
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


def least_error(x: Tensor, low: float, high: float, bins: int) -> Tensor:
    """Bins with the least squared error that edges among :data:`CANDIDATES` values allow, by dynamic programming.

    In a bin of width w whose levels are even, a value's squared error is proportional to w², but nothing where the bin
    begins. So the total is the sum of n w² over the bins, n being the values above each bin's beginning. What the cube
    root promises for many narrow bins, this finds for few and for values that tie.
    """
    if bins >= CANDIDATES:
        return cube_root(x, low, high, bins)
    ordered, edges = np.sort(sample(x).cpu().numpy()), _candidates(x, low, high)
    below, upto = (np.searchsorted(ordered, edges, side=side) for side in ("left", "right"))
    held = (below[None, :] - upto[:, None]).clip(min=0) + _UNSEEN
    width = (edges[None, :] - edges[:, None]) / (edges[-1] - edges[0] or 1.0)
    cost = np.where(width >= 0, held * width**2, np.inf)
    begins = edges[_cheapest_path(cost, bins)]
    return _joined(torch.from_numpy(begins[1:]).to(x.device), low, high)


def _candidates(x: Tensor, low: float, high: float) -> np.ndarray:
    """Return rising values where a bin may begin, and the end: evenly spaced, by the cube root of the density, ties."""
    third = CANDIDATES // 3
    starts = [rule(x, low, high, third)[0].double().cpu().numpy() for rule in (equal_range, cube_root, sampled_count)]
    return np.unique(np.concatenate([*starts, [high]]))


def _cheapest_path(cost: np.ndarray, bins: int) -> np.ndarray:
    """Return the first node of each of ``bins`` steps from the first node to the last; cost [n, n] of a step i to j."""
    best, came_from = cost[0], []
    for _ in range(bins - 1):
        total = best[:, None] + cost
        came_from.append(total.argmin(axis=0))
        best = total.min(axis=0)
    node, begins = len(cost) - 1, []
    for previous in reversed(came_from):
        node = previous[node]
        begins.append(node)
    return np.array([0, *reversed(begins)])


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
    "least_error": least_error,
}


def sample(x: Tensor, count: int = SAMPLE) -> Tensor:
    """Return ``count`` values drawn from all of ``x`` (1-d), or all of a smaller one; the same for each call."""
    return x if len(x) <= count else x[_places(len(x), count, x.device)]


@functools.lru_cache(maxsize=64)
def _places(numel: int, count: int, device: torch.device) -> Tensor:
    return torch.randint(numel, (count,), generator=torch.Generator().manual_seed(0)).sort().values.to(device)


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
    every = _EVERY if len(x) >= _EVERY * _ENOUGH * bins else 1
    counts = loops(x.device).histogram(x, every).cpu().numpy()
    upto = counts.cumsum()
    size = -(-upto[-1] // bins)
    ranks = np.arange(1, bins) * size
    cells = np.searchsorted(upto, ranks, side="right").clip(max=len(counts) - 1)
    floors, ceilings = _cell_floors(np.stack([cells, cells + 1])).clip(low, high).astype(np.float64)
    held = counts[cells].clip(min=1)
    begins = floors + (ranks - upto[cells] + held) / held * (ceilings - floors)
    crowded = held * _TOLERANCE > size
    # A crowded cell is right only if the crowd is one value, the cell's floor, as the zeros after a ReLU.
    for floor, ceiling in set(zip(floors[crowded].tolist(), ceilings[crowded].tolist(), strict=True)):
        drawn = sample(x, _ENOUGH)
        if bool(((drawn > floor) & (drawn < ceiling)).any()):
            return None
    begins = np.where(crowded, floors, begins)
    return torch.from_numpy(np.where(ranks < upto[-1], begins, high)).to(x.device)


def _cell_floors(cells: np.ndarray) -> np.ndarray:
    """Return the smallest value of each cell of the histogram."""
    positive = cells >= 1 << 15
    bits = np.where(positive, cells - (1 << 15), 0xFFFF - cells) << 16 | np.where(positive, 0, 0xFFFF)
    return bits.astype(np.uint32).view(np.float32)
