"""Changes against runs without compression, each run corrected for what its seed does to runs of any row.

A seed sets the order of the samples and the weights that start at random, and some seeds are kinder than others. Rows
of three runs have three of the seeds that run without compression, so their mean is compared with what those would have
come to with just these. How far a run follows its seed is one slope for all rows of a task: at 0 means are compared
whatever their seeds, at 1 runs of the same seed in pairs, and the scatter is least in between (regression on a control
variate, Lavenberg and Welch 1981).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import pandas as pd


class Difference(NamedTuple):
    """A difference from the runs without compression, and its standard error; NaN where there is a single run."""

    mean: float
    error: float


def differences(rows: Mapping[str, pd.Series], base: pd.Series, steady: Collection[str]) -> dict[str, Difference]:
    """Return each row's difference from ``base``.

    Its error is that of both means. A row's own scatter counts as no less than the median row's: that of three runs may
    be small by chance.

    Args:
        rows: by label, a quantity of each run, by seed.
        base: the same of the runs without compression.
        steady: rows whose runs all came to something: from these the slope and the median are taken.

    >>> base = pd.Series([1.0, 2.0, 3.0, 4.0])
    >>> differences({"one more": base[2:] + 1}, base, ["one more"])["one more"]
    Difference(mean=1.0, error=0.0)
    """
    slope = slope_of([rows[label] for label in steady], base)
    off = {label: row - slope * (_like(row, base) - base.mean()) for label, row in rows.items()}
    spread = pd.Series([off[label].std() for label in steady], dtype=float).median()
    of_base = (1 - slope) ** 2 * base.var() / len(base)
    found = {}
    for label, row in off.items():
        error = math.sqrt(max(row.var(), _square(spread)) / len(row) + of_base) if len(row) > 1 else math.nan
        found[label] = Difference(float(row.mean() - base.mean()), error)
    return found


def slope_of(rows: Collection[pd.Series], base: pd.Series) -> float:
    """Return how far runs follow their seed, from 0 to 1, by least squares over all rows with several runs.

    >>> base = pd.Series([1.0, 2.0, 3.0])
    >>> slope_of([base / 2, base[:1]], base)
    0.5
    """
    pairs = [(_like(row, base), row) for row in rows if len(row) > 1]
    products = sum(float(((seeds - seeds.mean()) * (row - row.mean())).sum()) for seeds, row in pairs)
    squares = sum(float(((seeds - seeds.mean()) ** 2).sum()) for seeds, _ in pairs)
    return min(max(products / squares, 0.0), 1.0) if squares else 0.0


def _like(row: pd.Series, base: pd.Series) -> pd.Series:
    """Return what the row's seeds came to without compression; the mean for a seed that did not run so."""
    return base.reindex(row.index).fillna(base.mean())


def _square(value: float) -> float:
    return 0.0 if math.isnan(value) else value**2
