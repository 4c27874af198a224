"""Figures, drawn from result records alone: colours a colour-blind reader can tell apart, units on every axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from splitlib.files import write_atomically
from splitlib.results import RunRecord

# Okabe and Ito's palette (2008), without its yellow, which vanishes on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.dpi": 160,
}
METRIC_LABELS = {"accuracy": "validation accuracy [%]", "matthews": "validation Matthews correlation [%]"}


@contextmanager
def figure(title: str, *, columns: int = 1, height: float = 3.8) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """Yield a figure in the workbook's style with ``columns`` panels; ``title`` names data and hardware."""
    with plt.rc_context(STYLE):
        drawing, axes = plt.subplots(1, columns, figsize=(max(6.4, 4.6 * columns), height), squeeze=False)
        drawing.suptitle(title, fontsize=10)
        yield drawing, axes[0]


def metric_by_epoch(ax: Axes, runs: Mapping[str, Sequence[RunRecord]]) -> None:
    """Draw the task's metric by epoch, a line for each label: mean over its seeds, band from lowest to highest.

    A run that collapsed to one class is marked in the legend.
    """
    for position, (label, records) in enumerate(runs.items()):
        curves = pd.DataFrame([[getattr(e, r.metric) for e in r.history] for r in records]).mul(100)
        epochs = range(1, curves.shape[1] + 1)
        colour, marker = COLOURS[position % len(COLOURS)], MARKERS[position % len(MARKERS)]
        name = label + (" (collapsed)" if any(r.collapsed for r in records) else "")
        ax.plot(epochs, curves.mean(), color=colour, marker=marker, markersize=4, label=f"{name}, n={len(records)}")
        if len(records) > 1:
            ax.fill_between(epochs, curves.min(), curves.max(), color=colour, alpha=0.15, linewidth=0)
    ax.set(xlabel="epoch", ylabel=METRIC_LABELS[next(iter(runs.values()))[0].metric])
    ax.legend()


def reported_curve(ax: Axes, points: pd.DataFrame, *, x: str, y: str, label: str, position: int) -> None:
    """Draw a document's own points with hollow markers and a dashed line, so that nobody takes them for measured."""
    colour, marker = COLOURS[position % len(COLOURS)], MARKERS[position % len(MARKERS)]
    ax.plot(
        points[x], points[y], color=colour, marker=marker, markersize=4, fillstyle="none", linestyle="--", label=label
    )


def stacked_shares(ax: Axes, shares: pd.DataFrame, *, colours: Mapping[str, str]) -> None:
    """Draw each row's shares, which add up to 1, as one horizontal bar.

    ``colours`` gives each column the name of its owner: columns of one owner share a colour and are told apart by the
    order in which they stand.
    """
    owners = list(dict.fromkeys(colours.values()))
    left = pd.Series(0.0, index=shares.index)
    for column in map(str, shares.columns):
        owner = colours[column]
        ax.barh(
            shares.index, 100 * shares[column], left=100 * left, color=COLOURS[owners.index(owner)],
            edgecolor="white", label=f"{owner}: {column}",
        )  # fmt: skip
        left += shares[column]
    ax.invert_yaxis()
    ax.set(xlabel="share of the MACs [%]", xlim=(0, 100))
    ax.legend(ncols=len(shares.columns), loc="lower center", bbox_to_anchor=(0.5, 1.0))


def stacked_bars(ax: Axes, heights: pd.DataFrame, *, points: pd.Series, points_label: str) -> None:
    """Draw each row's columns stacked as one bar, and ``points`` by row as hollow diamonds over it.

    The columns after the first are hatched: additions to it that stay visible without colour.
    """
    bottom = pd.Series(0.0, index=heights.index)
    for position, column in enumerate(map(str, heights.columns)):
        hatch = ("", "....", "////")[min(position, 2)]
        ax.bar(
            heights.index, heights[column], bottom=bottom, width=0.6, label=column,
            color=COLOURS[position % len(COLOURS)], edgecolor="white", linewidth=0, hatch=hatch,
        )  # fmt: skip
        bottom += heights[column]
    ax.plot(points.index, points, "D", color="black", markerfacecolor="white", markersize=7, label=points_label)
    ax.set_axisbelow(True)


def save(drawing: Figure, path: Path) -> None:
    """Write a PNG without dates or versions in it, so that the same records give the same file."""
    write_atomically(path, lambda temporary: drawing.savefig(temporary, format="png", metadata={"Software": None}))
