"""Quantizers by bits: a curve for each, and every way to place the bits of one width on a line of its own."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from splitlib.plots import reference_band
from splitlib.plots.curves import QUANTITIES
from splitlib.plots.rows import marks_by_row, words_beside
from splitlib.plots.style import COLOURS, LINES, MARKERS

_ASIDE = 0.24  # between the marks of one width; widths are 1 apart


def curves_and_ways(
    curves: Axes, strip: Axes, runs: pd.DataFrame, *, names: Sequence[str], labels: Sequence[str]
) -> None:
    """Draw the same runs :func:`by_bits` and, on ``strip``, :func:`ways_to_place` bits; in grey what is not compressed.

    ``runs`` has a column ``metric``, too, and its rows without compression are called ``none``.
    """
    by_bits(curves, runs, names)
    ways_to_place(strip, runs, labels)
    whole, metric = runs.loc[runs["row_label"] == "none", "best_percent"], QUANTITIES[runs["metric"].iloc[0]][0]
    reference_band(curves, whole, "no compression")
    reference_band(strip, whole, "no compression", upright=True)
    curves.set_ylabel(metric, fontsize=8)
    strip.set_xlabel(metric, fontsize=8)


def by_bits(ax: Axes, runs: pd.DataFrame, names: Sequence[str]) -> None:
    """Draw a metric against the bits of a value, a line for each of the quantizers ``names``.

    The marks of one width stand side by side, so that equal ones are all seen; bars reach from the lowest run to the
    highest.

    Args:
        ax: where to draw; the caller names the vertical axis.
        runs: one row a run, with the columns ``row_label``, such as ``sort 8``, and ``best_percent``.
        names: what may stand before the bits; other rows are not drawn.
    """
    words = runs["row_label"].str.rsplit(n=1)
    named = runs.assign(name=words.str[0])[words.str[0].isin(names)]
    named = named.assign(bits=named["row_label"].str.split().str[-1].astype(int))
    widths = sorted(named["bits"].unique())
    for position, name in enumerate(names):
        percent = named[named["name"] == name].groupby("bits")["best_percent"]
        places = [widths.index(bits) + _ASIDE * (position - (len(names) - 1) / 2) for bits in percent.groups]
        ax.errorbar(
            places, percent.mean(), yerr=[percent.mean() - percent.min(), percent.max() - percent.mean()], capsize=2,
            color=COLOURS[position], marker=MARKERS[position], linestyle=LINES[position], linewidth=1, markersize=5,
            label=name,
        )  # fmt: skip
    ax.set_xticks(range(len(widths)), list(map(str, widths)))
    ax.set_xlabel("bits a value, of 32; marks of one width side by side", fontsize=8)
    ax.grid(axis="x", visible=False)


def ways_to_place(ax: Axes, runs: pd.DataFrame, labels: Sequence[str]) -> None:
    """Draw the mean and the range of each of ``labels`` that was run on a line of its own, and the bytes it sends.

    ``runs`` has the columns of :func:`by_bits` and ``compression_ratio``; the bits that end a label are left out.
    """
    found = runs.groupby("row_label")
    labels = [label for label in labels if label in found.groups]
    if not labels:
        ax.set_yticks([])
        ax.annotate("not run", (0.5, 0.5), xycoords="axes fraction", ha="center")
        return
    percent = found["best_percent"].agg(["mean", "min", "max", "size"]).loc[labels]
    names = [f"{label.rsplit(maxsplit=1)[0]}, n={n}" for label, n in zip(labels, percent["size"], strict=True)]
    spread = [percent["mean"] - percent["min"], percent["max"] - percent["mean"]]
    marks_by_row(ax, percent[["mean"]].set_axis(names).set_axis(["measured"], axis=1), spreads={"measured": spread})
    shares = found["compression_ratio"].mean().loc[labels].map("{:.3f}".format)
    words_beside(ax, shares.to_frame("bytes sent /\nuncompressed"))
