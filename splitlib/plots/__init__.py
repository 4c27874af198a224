"""Figures, drawn from result records alone, with units on every axis; here those that several studies draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D, ScaledTranslation, blended_transform_factory

from splitlib.plots.curves import QUANTITIES, beside_baseline, metric_by_epoch
from splitlib.plots.style import COLOURS, HATCHES, MARKERS, figure, look

__all__ = [
    "COLOURS",
    "HATCHES",
    "MARKERS",
    "QUANTITIES",
    "Axes",
    "Figure",
    "beside_baseline",
    "density_with_edges",
    "figure",
    "look",
    "metric_by_epoch",
    "metric_by_ratio",
    "points_by_row",
    "ranges_and_points",
    "reference_band",
    "slanted",
    "stacked_bars",
    "stacked_shares",
]


def ranges_and_points(ax: Axes, ranges: pd.DataFrame, points: Mapping[str, Sequence[float]]) -> None:
    """Draw a document's range, ``low`` to ``high`` of each row, as a hollow bar and what was measured as filled points.

    A row without points was not run.
    """
    places = range(len(ranges))
    width = ranges["high"] - ranges["low"]
    ax.barh(places, width, left=ranges["low"], height=0.5, fill=False, linewidth=1.5, label="reported")
    labels = [name if name in points else f"{name} (not run)" for name in ranges.index]
    for place, name in zip(places, ranges.index, strict=True):
        values = list(points.get(name, []))
        ax.plot(values, [place] * len(values), "o", color=COLOURS[0], label="measured" if place == 0 else None)
    ax.set_yticks(list(places), labels)
    ax.invert_yaxis()
    ax.legend(loc="best")


def stacked_shares(ax: Axes, shares: pd.DataFrame, *, colours: Mapping[str, str]) -> None:
    """Draw each row's shares, which add up to 1, as one horizontal bar.

    ``colours`` gives each column the name of its owner: columns of one owner share a colour and are told apart by
    hatching and the order in which they stand.
    """
    owners = list(dict.fromkeys(colours.values()))
    left = pd.Series(0.0, index=shares.index)
    for position, column in enumerate(map(str, shares.columns)):
        owner = colours[column]
        ax.barh(
            shares.index, 100 * shares[column], left=100 * left, color=COLOURS[owners.index(owner)],
            edgecolor="white", linewidth=0.5, hatch=HATCHES[position % len(HATCHES)], label=f"{owner}: {column}",
        )  # fmt: skip
        left += shares[column]
    ax.invert_yaxis()
    ax.set(xlabel="share of the MACs [%]", xlim=(0, 100))
    ax.legend(ncols=len(shares.columns), loc="lower right", bbox_to_anchor=(1.0, 1.0), columnspacing=1.0)


def stacked_bars(ax: Axes, heights: pd.DataFrame, *, points: pd.Series, points_label: str) -> None:
    """Draw each row's columns stacked as one bar, and ``points`` by row as hollow diamonds over it.

    The columns after the first are hatched: additions to it that stay visible without colour.
    """
    bottom = pd.Series(0.0, index=heights.index)
    for position, column in enumerate(map(str, heights.columns)):
        hatch = HATCHES[position % len(HATCHES)]
        ax.bar(
            heights.index, heights[column], bottom=bottom, width=0.6, label=column,
            color=COLOURS[position % len(COLOURS)], edgecolor="white", linewidth=0, hatch=hatch,
        )  # fmt: skip
        bottom += heights[column]
    ax.plot(points.index, points, "D", color="black", markerfacecolor="white", markersize=7, label=points_label)
    ax.set_axisbelow(True)


def metric_by_ratio(ax: Axes, reported: pd.DataFrame, measured: pd.DataFrame) -> None:
    """Draw a metric against the compression ratio: reported points hollow and dashed, measured ones filled.

    Both tables have the columns ``series``, ``compression_ratio`` and ``percent``; ``measured`` has one row a run and a
    ``row_label``, whose runs become their mean with a bar from lowest to highest. Either may be empty.
    """
    said, ran = (list(table["series"]) if len(table) else [] for table in (reported, measured))
    for position, name in enumerate(dict.fromkeys([*said, *ran])):
        colour, marker = (look(position)[part] for part in ("color", "marker"))
        if name in said:
            told = reported[reported["series"] == name].sort_values("compression_ratio")
            ax.plot(
                told["compression_ratio"], told["percent"], color=colour, marker=marker, markerfacecolor="white",
                linestyle="--", label=f"{name}, reported",
            )  # fmt: skip
        if name in ran:
            runs = measured[measured["series"] == name].groupby("row_label")
            _means_with_ranges(ax, runs["compression_ratio"].mean(), runs["percent"], colour, marker, name)
    ax.set_xlabel("compression ratio, bytes sent / bytes uncompressed")
    ax.legend()


def _means_with_ranges(ax: Axes, places: pd.Series, runs: Any, colour: str, marker: str, name: str) -> None:
    """Draw the means of grouped runs over their ``places``, joined from left to right, each with its range."""
    points = pd.DataFrame({"x": places, "mean": runs.mean(), "low": runs.min(), "high": runs.max()}).sort_values("x")
    ranges = [points["mean"] - points["low"], points["high"] - points["mean"]]
    ax.errorbar(
        points["x"], points["mean"], yerr=ranges, color=colour, marker=marker, linestyle="-", capsize=3,
        label=f"{name}, measured",
    )  # fmt: skip


def reference_band(ax: Axes, values: Sequence[float] | pd.Series, label: str, *, upright: bool = False) -> None:
    """Draw what others are compared with, if it is known: a grey line at the mean, a band from lowest to highest.

    They lie across the panel; ``upright`` where the values are those of the horizontal axis.
    """
    if len(values):
        line, span = (ax.axvline, ax.axvspan) if upright else (ax.axhline, ax.axhspan)
        line(sum(values) / len(values), color="grey", linewidth=0.8, label=label)
        span(min(values), max(values), color="grey", alpha=0.15, linewidth=0)


def points_by_row(ax: Axes, table: pd.DataFrame) -> None:
    """Draw each column as one series of points over the rows' names, side by side, on a logarithmic axis."""
    step = 0.6 / max(1, len(table.columns) - 1)
    for position, column in enumerate(map(str, table.columns)):
        places = [row - 0.3 + step * position for row in range(len(table))]
        ax.plot(places, table[column], **{**look(position), "linestyle": "none"}, label=column)
    ax.set_yscale("log")
    ax.set_xticks(range(len(table)), list(map(str, table.index)))
    ax.set_xlim(-0.5, len(table) - 0.5)


def slanted(ax: Axes, degrees: float) -> None:
    """Turn the names along the horizontal axis so that each ends under its tick."""
    for label in ax.get_xticklabels():
        label.set(rotation=degrees, rotation_mode="anchor", horizontalalignment="right")


def density_with_edges(ax: Axes, values: Any, edges: Mapping[str, Sequence[float]]) -> None:
    """Draw the density of ``values`` [n] on a logarithmic axis, and above it one row of ticks for each rule's edges."""
    ax.hist(values, bins=200, density=True, log=True, color="0.75")
    ax.set_ylabel("density [1 / unit of value]")
    # In points above the panel: the layout, which makes room for them by shrinking the panel, must not shrink them.
    drawing: Any = ax.get_figure(root=True)
    top: Any = ax.transAxes
    above = Affine2D().scale(1 / 72) + drawing.dpi_scale_trans + ScaledTranslation(0, 1, top)
    place = blended_transform_factory(ax.transAxes, above)
    rows = ax.inset_axes((0.0, 6.0, 1.0, 14.0 * len(edges)), transform=place, sharex=ax)
    colours = [COLOURS[position % len(COLOURS)] for position in range(len(edges))]
    rows.eventplot(list(edges.values()), lineoffsets=range(len(edges)), linelengths=0.7, colors=colours)
    rows.set_yticks(range(len(edges)), list(edges))
    rows.tick_params(length=0, labelbottom=False)
    rows.grid(visible=False)
    rows.spines[["left", "bottom"]].set_visible(False)
