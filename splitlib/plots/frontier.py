"""The frontier: bytes against what is lost, measured rows and every published one in the same picture."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from splitlib.plots import COLOURS, HATCHES, MARKERS, look

_LINEAR = 3.0  # points around no loss that are drawn to scale; beyond, a collapse takes no more room than a slip


def frontier(ax: Axes, told: pd.DataFrame, ours: pd.DataFrame, *, goal: float, spread: float) -> None:
    """Draw changes of a metric by ratio of bytes: published rows hollow, measured ones filled with their spread.

    Args:
        ax: where to draw.
        told: columns ``method``, ``metric``, ``ratio``, ``change``; see :func:`splitlib.frontier.published`.
        ours: columns ``label``, ``ratio``, ``change``, ``change_sd``, ``n``, ``collapsed``; see
            :func:`splitlib.frontier.summary`.
        goal: the ratio to reach without loss, marked by a line.
        spread: standard deviation of the runs without compression: a band, what lies in it or above is no loss.
            NaN, of a single run, draws none.
    """
    several = told["metric"].nunique() > 1  # whose changes do not compare
    for position, ((method, metric), points) in enumerate(told.groupby(["method", "metric"], sort=False)):
        ax.plot(
            points["ratio"], points["change"], linestyle="none", marker=MARKERS[position % len(MARKERS)], color="0.45",
            markerfacecolor="white", markersize=5, zorder=3,  # above a measured point in the same place
            label=f"reported: {method}" + (f" ({metric})" if several else ""),
        )  # fmt: skip
    rows: Any = ours.itertuples()  # whose columns no type knows
    for position, row in enumerate(rows):
        style = look(position)
        collapsed = f", {row.collapsed} collapsed" if row.collapsed else ""
        ax.errorbar(
            row.ratio, row.change, yerr=None if row.n == 1 else row.change_sd, color=style["color"], markersize=7,
            marker=style["marker"], capsize=3, linestyle="none", label=f"{row.label} (n={row.n}{collapsed})",
        )  # fmt: skip
    ax.axhline(0.0, color=COLOURS[6], linewidth=0.8)
    if not math.isnan(spread):
        ax.axhspan(-spread, spread, color=COLOURS[6], alpha=0.08, linewidth=0, label="one standard deviation of none")
    ax.axvline(goal, color=COLOURS[6], linewidth=0.8, linestyle=":")
    ax.annotate(f"1/{1 / goal:.0f}", (goal, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom")
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=_LINEAR)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if value else "0"))
    ax.margins(y=0.08)
    ax.set_xlabel("bytes sent / bytes uncompressed")
    ax.set_ylabel(f"change against none [points; log beyond ±{_LINEAR:g}]")
    drawing: Any = ax.get_figure(root=True)
    drawing.legend(fontsize=7, loc="outside lower center", ncols=2)


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
