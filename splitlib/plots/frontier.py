"""The frontier: bytes against what is lost, measured rows and every published one in the same picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from splitlib.plots.style import COLOURS, HATCHES, MARKERS

_LINEAR = 3.0  # points around no loss that are drawn to scale; beyond, a collapse takes no more room than a slip
# What became of a row: colour, marker.
_VERDICTS = {
    "within one standard deviation of none": (COLOURS[0], "o"),
    "within it by the metric, not by the training loss": (COLOURS[5], "s"),
    "more than one standard deviation below": (COLOURS[1], "^"),
    "a run predicts one class or diverged": (COLOURS[6], "X"),
    "not known: no spread to judge by": (COLOURS[4], "D"),
}
_LABEL_GAP = 0.022  # of the panel's width, between the labels of two rows


def frontier(ax: Axes, told: pd.DataFrame, ours: pd.DataFrame, *, goal: float, spread: float) -> None:
    """Draw changes of a metric by ratio of bytes: published rows in grey, measured ones of several runs named above it.

    A measured row of one run is hollow, one of several filled with the standard error of its change.

    Args:
        ax: where to draw.
        told: columns ``method``, ``metric``, ``ratio``, ``change``; see :func:`splitlib.frontier.published`.
        ours: columns ``label``, ``ratio``, ``change``, ``change_se``, ``n``, ``collapsed``, ``diverged``, ``no_loss``,
            ``trains_alike``; see :func:`splitlib.frontier.summary`. Rows without a change are not drawn.
        goal: the ratio to reach without loss, marked by a line.
        spread: standard deviation of the runs without compression: a band, what lies in it or above is no loss.
            NaN, of a single run, draws none.
    """
    ours = ours[ours["change"].notna()]
    several = told["metric"].nunique() > 1  # whose changes do not compare
    for position, ((method, metric), points) in enumerate(told.groupby(["method", "metric"], sort=False)):
        ax.plot(
            points["ratio"], points["change"], linestyle="none", marker=MARKERS[position % len(MARKERS)], color="0.45",
            markerfacecolor="white", markersize=5, zorder=3,  # above a measured point in the same place
            label=f"reported: {method}" + (f" ({metric})" if several else ""),
        )  # fmt: skip
    rows: Any = ours.itertuples()  # whose columns no type knows
    for row in rows:
        colour, marker = _VERDICTS[_verdict(row)]
        ax.errorbar(
            row.ratio, row.change, yerr=None if row.n == 1 else row.change_se, color=colour, markersize=7,
            marker=marker, markerfacecolor="white" if row.n == 1 else colour, elinewidth=0.8, capsize=2,
            linestyle="none", zorder=2.5,
        )  # fmt: skip
    found = {_verdict(row) for row in ours.itertuples()}
    for verdict, (colour, marker) in _VERDICTS.items():
        if verdict in found:
            ax.plot([], [], linestyle="none", color=colour, marker=marker, markersize=7, label=verdict)
    ax.axhline(0.0, color=COLOURS[6], linewidth=0.8)
    if not math.isnan(spread):
        ax.axhspan(-spread, spread, color=COLOURS[6], alpha=0.08, linewidth=0, label="one standard deviation of none")
    ax.axvline(goal, color=COLOURS[6], linewidth=0.8, linestyle=":")
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=_LINEAR)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if value else "0"))
    ax.margins(y=0.08)
    ax.set_xlabel(f"bytes sent / bytes uncompressed; dotted: 1/{1 / goal:.0f}")
    ax.set_ylabel(f"change against none [points; log beyond ±{_LINEAR:g}]")
    _name_above(ax, ours)
    drawing: Any = ax.get_figure(root=True)
    drawing.legend(fontsize=8, loc="outside lower center", ncols=2)


def _verdict(row: Any) -> str:
    within, beyond, below, failed, unknown = _VERDICTS
    if row.collapsed or row.diverged:
        return failed
    if row.no_loss is None:
        return unknown
    if row.trains_alike:
        return within
    return beyond if row.no_loss else below


def _name_above(ax: Axes, ours: pd.DataFrame) -> None:
    """Write labels above the panel, apart from their neighbours', each with a line down to its point.

    Single runs have none where other rows have several: two dozen could not be told apart.
    """
    named = ours[ours["n"] > 1] if (ours["n"] > 1).any() else ours
    ours = named.sort_values("ratio")
    low, high = ax.get_xlim()
    ax.set_xlim(low, high)  # what is written does not move it
    shares = [math.log(ratio / low) / math.log(high / low) for ratio in ours["ratio"]]
    rows: Any = zip(ours.itertuples(), spread_apart(shares, _LABEL_GAP), strict=True)
    for row, share in rows:
        ax.annotate(
            row.label + (f", n={row.n}" if row.n > 1 else ""), xy=(row.ratio, row.change), xytext=(share, 1.03),
            textcoords="axes fraction", rotation=90, fontsize=7.5, ha="center", va="bottom",
            color=_VERDICTS[_verdict(row)][0],
            arrowprops={"arrowstyle": "-", "color": "0.75", "linewidth": 0.6, "relpos": (0.5, 0), "shrinkB": 4},
            zorder=1,
        )  # fmt: skip


def spread_apart(places: Sequence[float], gap: float) -> list[float]:
    """Return ascending ``places``, moved as little as can be (by squares) until ``gap`` lies between neighbours.

    >>> spread_apart([0.0, 3.0, 3.0, 6.0], 1.0)
    [0.0, 2.5, 3.5, 6.0]
    """
    from sklearn.isotonic import isotonic_regression

    gaps = gap * np.arange(len(places))  # with the gaps taken out they have to be in order
    return (isotonic_regression(np.asarray(places) - gaps) + gaps).tolist()


def bytes_by_row(ax: Axes, shares: pd.DataFrame, *, goal: float) -> None:
    """Draw each row's shares of the uncompressed bytes, one column after the other, as one horizontal bar."""
    left = pd.Series(0.0, index=shares.index)
    for position, column in enumerate(map(str, shares.columns)):
        ax.barh(
            shares.index, shares[column], left=left, height=0.7, color=COLOURS[position], edgecolor="white",
            linewidth=0, hatch=HATCHES[position], label=column,
        )  # fmt: skip
        left += shares[column]
    ax.axvline(goal, color=COLOURS[6], linewidth=0.8, linestyle=":")
    ax.set_xlabel(f"bytes sent / uncompressed; dotted: 1/{1 / goal:.0f}")
    ax.invert_yaxis()
    ax.legend()
