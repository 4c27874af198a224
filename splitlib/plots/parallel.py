"""Figures of notebook 02: where a batch's time goes, and one way of training against another."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from splitlib.plots.style import COLOURS, HATCHES


def stacked_parts(ax: Axes, seconds: pd.DataFrame, totals: pd.Series, *, title: str) -> None:
    """Draw each row's columns, medians of the parts of its time per batch, as one bar with ``totals`` above it.

    A part that measures below zero, as a small difference of two times can, is drawn as nothing.
    """
    bottom = np.zeros(len(seconds))
    for position, column in enumerate(map(str, seconds.columns)):
        heights = seconds[column].clip(lower=0).to_numpy(float)
        ax.bar(
            [str(name) for name in seconds.index], heights, bottom=bottom, width=0.6, label=column.replace("_", " "),
            color=COLOURS[position % len(COLOURS)], edgecolor="white", linewidth=0.5, hatch=HATCHES[position % 5],
        )  # fmt: skip
        bottom += heights
    for place, total in enumerate(totals):
        ax.annotate(f"{total:.3g} s", (place, bottom[place]), xytext=(0, 3), textcoords="offset points", ha="center")
    ax.set_title(title, loc="left", fontsize=10)
    ax.set_ylabel("time per batch [s]")
    ax.grid(axis="x", visible=False)
    ax.margins(x=0.15, y=0.1)


def reported_and_measured(ax: Axes, values: pd.DataFrame, *, title: str) -> None:
    """Draw ``reported`` as a hollow bar and ``measured`` as a filled one for each row, with the value beside it.

    ``title``, what the values are a ratio of, names the axis.

    The line at 1 is data parallel. A blank says *not reported*, or *not run*.
    """
    places = np.arange(len(values))
    looks = {"reported": {"fill": False, "edgecolor": "black"}, "measured": {"color": COLOURS[0], "edgecolor": "white"}}
    for shift, (name, look) in zip((-0.19, 0.19), looks.items(), strict=True):
        numbers = values[name].to_numpy(float)
        ax.barh(places + shift, np.nan_to_num(numbers), height=0.36, label=name, **look)  # type: ignore[arg-type]
        for place, number in zip(places + shift, numbers, strict=True):
            text, at = (
                ("not run" if name == "measured" else "not reported", 0.0)
                if np.isnan(number)
                else (f"{number:.2f}", number)
            )
            ax.annotate(text, (at, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    ax.axvline(1.0, color="grey", linewidth=0.8, linestyle="--")
    ax.set_yticks(places, [str(name) for name in values.index])
    ax.invert_yaxis()
    ax.set_xlabel(f"{title} [ratio]")
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.12)
    ax.legend(fontsize=8)
