"""Where the bins of sort and fast quantization begin, and where their levels lie: five rules, one format.

Every rule takes the values (1-d float32, finite), their extremes, the number of bins and the number of levels in each,
and returns :class:`Bins`. The documents' rules put the first and the last level at a bin's ends; those that are there
for a small error put them where it is least, see :func:`_fitted`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from splitlib.compressors.loops import loops

SORTED = 1 << 16  # up to this many values are sorted; the histogram has as many cells
SAMPLE = 1 << 14
CANDIDATES = 192  # of the values where bins may begin under least_error
_UNSEEN = 0.5  # values of the sample's size that a bin may hold although the sample has none there
_TOLERANCE = 16  # a bin may miss its count by one part in this
_EVERY = 4  # of a tensor so large that a part tells the ranks, one value in this many is counted:
_ENOUGH = 1 << 12  # with so many counted in each bin, four standard deviations of the count are one part in 16
_MANY_LEVELS = 32  # in a bin of so many it no longer matters where they lie: 1/32 of a step


class Bins(NamedTuple):
    """Bins, [k] float32 each, rising.

    A value belongs to the last bin that begins at or below it, so bins whose beginnings tie stay empty, except the last
    of them.
    """

    begins: Tensor
    """The lowest value of each bin."""
    lowest: Tensor
    """Its lowest level; half a step below it the bin may still have values."""
    highest: Tensor
    """Its highest level."""


def equal_count(x: Tensor, low: float, high: float, bins: int, levels: int) -> Bins:
    """Bins of equally many values, as 001 §2 cuts them.

    A large tensor is not sorted but counted by its values' leading 16 bits, which misses a bin's count by less than
    1/16. Where too many values share these bits for that, it is sorted after all.
    """
    if len(x) > SORTED:
        begins = _counted_begins(x, low, high, bins)
        if begins is not None:
            return _end_to_end(_joined(begins, low, high))
    return _end_to_end(_chunk_ends(_sorted(x), bins))


def equal_range(x: Tensor, low: float, high: float, bins: int, levels: int) -> Bins:
    """Bins of equal width: uniform quantization in the format of sort quantization."""
    return _end_to_end(_joined(_even_begins(x, low, high, bins), low, high))


def cube_root(x: Tensor, low: float, high: float, bins: int, levels: int) -> Bins:
    """Bins that hold equal parts of the density's cube root, where the squared error is least (Panter and Dite 1951).

    The density is estimated from a sample's spacings: around a spacing ``s`` it is about ``1 / (n s)``, so the integral
    of its cube root grows by ``s^(2/3)`` from each value to the next. Tied values add nothing.
    """
    return _fitted(_joined(_cube_root_begins(x, low, high, bins), low, high), x, levels)


def _even_begins(x: Tensor, low: float, high: float, bins: int) -> Tensor:
    fractions = torch.arange(1, bins, device=x.device, dtype=torch.float64) / bins
    return low + fractions * high - fractions * low


def _cube_root_begins(x: Tensor, low: float, high: float, bins: int) -> Tensor:
    ends = torch.tensor([low, high], dtype=torch.float32, device=x.device)
    ordered = _sorted(torch.cat([ends, sample(x)])).double()
    mass = (ordered.diff() / 2).pow_(2 / 3).cumsum_(0)  # half, so that the widest range stays finite
    targets = mass[-1] * torch.arange(1, bins, device=x.device) / bins
    after = torch.searchsorted(mass, targets).clamp_(max=len(mass) - 1)
    before = torch.where(after > 0, mass[after - 1], 0.0)
    part = ((targets - before) / (mass[after] - before)).nan_to_num_(0.0)
    return ordered[after] * (1 - part) + ordered[after + 1] * part


def least_error(x: Tensor, low: float, high: float, bins: int, levels: int) -> Bins:
    """Bins with the least squared error that edges among :data:`CANDIDATES` values allow, by dynamic programming.

    What the cube root promises for many narrow bins, this finds for few and for values that tie. Bins of one level are
    the scalar quantizer of Lloyd (1957) and Max (1960).
    """
    if bins >= CANDIDATES:
        return cube_root(x, low, high, bins, levels)
    edges = _candidates(x, low, high)
    scale = edges[-1] - edges[0] or 1.0  # squares of what lies between 0 and 1 neither overflow nor vanish
    ordered = np.sort((sample(x).double().cpu().numpy() - edges[0]) / scale)
    cost = (_spread if levels == 1 else _squared_width)(ordered, (edges - edges[0]) / scale)
    begins = edges[_cheapest_path(cost, bins)]
    return _fitted(_joined(torch.from_numpy(begins[1:]).to(x.device), low, high), x, levels)


def _squared_width(ordered: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return what a bin from each edge to each other costs, [n, n], if its levels are even.

    A value's squared error is proportional to the width's square, but nothing where the bin begins.
    """
    below, upto = (np.searchsorted(ordered, edges, side=side) for side in ("left", "right"))
    held = (below[None, :] - upto[:, None]).clip(min=0) + _UNSEEN
    width = edges[None, :] - edges[:, None]
    return np.where(width >= 0, held * width**2, np.inf)


def _spread(ordered: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return what a bin from each edge to each other costs, [n, n], if its one level is the mean of its values."""
    places = np.searchsorted(ordered, edges)
    places[-1] = len(ordered)  # the last bin holds the largest value too
    count, total, squares = (
        sums[places][None, :] - sums[places][:, None]
        for sums in (np.r_[0.0, (ordered**power).cumsum()] for power in (0, 1, 2))
    )
    width = edges[None, :] - edges[:, None]
    return np.where(width >= 0, squares - total**2 / count.clip(min=1) + _UNSEEN * width**2, np.inf)


def _candidates(x: Tensor, low: float, high: float) -> np.ndarray:
    """Return rising values where a bin may begin, and the end: evenly spaced, by the cube root of the density, ties."""
    third = CANDIDATES // 3
    rules = (_even_begins, _cube_root_begins, _sampled_begins)
    starts = [rule(x, low, high, third).float().clamp(low, high).double().cpu().numpy() for rule in rules]
    return np.unique(np.concatenate([[low], *starts, [high]]))


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


def sampled_count(x: Tensor, low: float, high: float, bins: int, levels: int) -> Bins:
    """Bins of about equally many values: the ranks of a random sample of the whole tensor stand for all ranks."""
    return _end_to_end(_joined(_sampled_begins(x, low, high, bins), low, high))


def _sampled_begins(x: Tensor, low: float, high: float, bins: int) -> Tensor:
    ordered = _sorted(sample(x))
    size = -(-len(ordered) // bins)
    ranks = torch.arange(1, bins, device=x.device) * size
    return ordered[ranks.clamp_(max=len(ordered) - 1)]


RULES: dict[str, Callable[[Tensor, float, float, int, int], Bins]] = {
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


def _end_to_end(ends: Tensor) -> Bins:
    """Return bins whose first and last level are their lowest and highest value, as the documents have them."""
    return Bins(ends[0], *ends)


def _fitted(ends: Tensor, x: Tensor, levels: int) -> Bins:
    """Return bins with their levels where a sample's squared error is least.

    One level is the mean. Of several, the outer ones lie at the bin's ends, which suits values that tie there, or half
    a step inside, which suits all others: at two levels the error is a quarter.
    """
    if levels >= _MANY_LEVELS:
        return _end_to_end(ends)
    values, (low, high) = sample(x).double(), ends.double()
    bins = torch.searchsorted(ends[0, 1:].contiguous(), values.float(), right=True)
    if levels == 1:
        held = torch.zeros_like(low).index_add_(0, bins, torch.ones_like(values))
        mean = torch.zeros_like(low).index_add_(0, bins, values / held[bins])
        mean = torch.where(held > 0, mean, low / 2 + high / 2).clamp(low, high)
        return Bins(ends[0], mean.float(), mean.float())
    inset = (high / 2 - low / 2) / levels
    errors = []
    for lowest, highest in ((low, high), (low + inset, high - inset)):
        step = ((highest - lowest) / (levels - 1))[bins]
        level = ((values - lowest[bins]) / step).nan_to_num_(0.0).round_().clamp_(0, levels - 1)
        error = ((values - lowest[bins] - level * step) / (high[-1] - low[0])).square_()
        errors.append(torch.zeros_like(low).index_add_(0, bins, error))
    inset = torch.where(errors[1] < errors[0], inset, 0.0)
    return Bins(ends[0], (low + inset).float(), (high - inset).float())


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
    upto = loops(x.device).histogram(x, every).cpu().numpy()
    size = -(-upto[-1] // bins)
    ranks = np.arange(1, bins) * size
    cells = np.searchsorted(upto, ranks, side="right").clip(max=len(upto) - 1)
    floors, ceilings = _cell_floors(np.stack([cells, cells + 1])).clip(low, high).astype(np.float64)
    held = (upto[cells] - np.where(cells > 0, upto[cells - 1], 0)).clip(min=1)
    begins = floors + (ranks - upto[cells] + held) / held * (ceilings - floors)
    crowded = held * _TOLERANCE > size
    # A crowded cell is right only if the crowd is one value, the cell's floor, as the zeros after a ReLU.
    for floor, ceiling in set(zip(floors[crowded].tolist(), ceilings[crowded].tolist(), strict=True)):
        drawn = sample(x, _ENOUGH)
        if bool(((drawn > floor) & (drawn < ceiling)).any()):
            return None
    begins = np.where(crowded, floors, begins)
    return torch.from_numpy(np.where(ranks < upto[-1], begins, high))


def _cell_floors(cells: np.ndarray) -> np.ndarray:
    """Return the smallest value of each cell of the histogram."""
    positive = cells >= 1 << 15
    bits = np.where(positive, cells - (1 << 15), 0xFFFF - cells) << 16 | np.where(positive, 0, 0xFFFF)
    return bits.astype(np.uint32).view(np.float32)
