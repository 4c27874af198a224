"""Rows under each other, each with a mark for what is reported, predicted or measured: equal values hide nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from splitlib.plots.style import COLOURS, plain_log

_HOLLOW = {"marker": "D", "color": "black", "markerfacecolor": "white"}
_FILLED = {"marker": "o", "color": COLOURS[0]}
# What was found here is filled; what was not is hollow.
_LOOKS: Mapping[str, Any] = {"reported": _HOLLOW, "predicted": _HOLLOW, "measured": _FILLED, "counted": _FILLED}
_APART = 0.34  # between the marks of a row; rows are 1 apart
_COLUMN = 54.0  # width of a column of words, in points
LEAST, EACH = 1.6, 0.27
"""Inches that a figure of rows needs for its title and axis, and for each row."""


def marks_by_row(ax: Axes, values: pd.DataFrame, *, spreads: Mapping[str, Any] | None = None) -> None:
    """Draw each column as one kind of mark, a line for each row of ``values``, the first on top.

    Within its line a row's marks stand below each other, so that equal ones are both seen. A blank has no mark.

    Args:
        ax: where to draw; the caller names the horizontal axis.
        values: the index names the rows; columns are called ``reported``, ``predicted``, ``measured`` or ``counted``.
        spreads: by column, lengths of the bars [rows], or of their parts left and right of the mark [2, rows].
    """
    places = np.arange(len(values))
    for place in places[1::2]:  # leads the eye from a name to its marks
        ax.axhspan(place - 0.5, place + 0.5, color="0.95", linewidth=0, zorder=0)
    for position, kind in enumerate(map(str, values.columns)):
        shifted = places + _APART * (position - (len(values.columns) - 1) / 2)
        ax.errorbar(
            values[kind].to_numpy(float), shifted, xerr=(spreads or {}).get(kind), linestyle="none", capsize=2,
            markersize=5, label=kind, **_LOOKS[kind],
        )  # fmt: skip
    ax.set_yticks(places, list(map(str, values.index)), fontsize=8)
    ax.set_ylim(len(values) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)


def legend_above(ax: Axes) -> None:
    """Write the legend in one line over the panel, where it covers no mark."""
    ax.legend(fontsize=8, ncols=len(ax.get_legend_handles_labels()[0]), loc="lower left", bbox_to_anchor=(-0.02, 0.99))


def words_beside(ax: Axes, words: pd.DataFrame) -> None:
    """Write each column of ``words`` [rows, columns] right of the panel's lines, under its name."""
    for position, column in enumerate(map(str, words.columns), start=1):
        right: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8, "ha": "right"}
        ax.annotate(column, (1, 1), (_COLUMN * position, 3), xycoords="axes fraction", va="bottom", **right)
        for place, text in enumerate(words[column]):
            ax.annotate(
                str(text), (1, place), (_COLUMN * position, 0), xycoords=("axes fraction", "data"), va="center", **right
            )


def panels_by_row(axes: Sequence[Axes], quantities: Mapping[str, pd.DataFrame]) -> None:
    """Draw several quantities of the same rows side by side, on logarithmic axes; the names stand at the left.

    ``quantities`` has the values of :func:`marks_by_row` by what is written under the axis.
    """
    for ax, (words, values) in zip(axes, quantities.items(), strict=True):
        marks_by_row(ax, values)
        ax.set(xscale="log", xlabel=words)
        plain_log(ax.xaxis)
    for ax in axes[1:]:
        ax.set_yticklabels([])
    legend_above(axes[0])


def predicted_and_measured(ax: Axes, seconds: pd.DataFrame) -> None:
    """Draw ``predicted`` and ``measured`` times per batch of each row, and by how much what was measured is longer."""
    marks_by_row(ax, seconds[["predicted", "measured"]])
    off = seconds["measured"] / seconds["predicted"] - 1
    words_beside(ax, off.map("{:+z.0%}".format).to_frame("measured\nis longer"))
    ax.set(xscale="log", xlabel="time per batch [s, log]")
    plain_log(ax.xaxis)
    legend_above(ax)
