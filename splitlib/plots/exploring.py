"""What the widgets draw beside curves and timelines: reported with measured, error by ratio, energy by rank, MACs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from splitlib.labels import with_unit
from splitlib.plots.rows import marks_by_row
from splitlib.plots.style import COLOURS, HATCHES, look, plain_log
from splitlib.timeline import CLIENT, SERVER

_OWNERS = {CLIENT: (COLOURS[0], HATCHES[0]), SERVER: (COLOURS[1], HATCHES[1])}


def reported_beside_measured(ax: Axes, table: pd.DataFrame, *, change: bool = False) -> None:
    """Draw each row's reported value as a hollow diamond and the measured one as a filled point, with their spreads.

    What no data went into is called counted.

    Args:
        ax: where to draw.
        table: of :func:`splitlib.comparison.compare`; what stands before ``metric`` names a row. One metric.
        change: the changes against the baseline in place of the values.
    """
    names = [_row_name(row) for row in table.iloc[:, : list(table.columns).index("metric")].itertuples(index=False)]
    names = [f"{name} ({status})" for name, status in zip(names, table["status"], strict=True)]
    kinds = {"reported": "reported", "measured": "counted" if (table["data"] == "none").any() else "measured"}
    values = {word: table[f"{kind}_change" if change else kind].to_numpy() for kind, word in kinds.items()}
    spreads = {word: table[f"{kind}_sd"].to_numpy(float) for kind, word in kinds.items()}
    marks_by_row(ax, pd.DataFrame(values, index=names), spreads=None if change else spreads)
    label = with_unit(str(table["metric"].iloc[0]))
    ax.set_xlabel(f"change of {label}, against the baseline" if change else label)
    ax.legend(fontsize=8)


def _row_name(row: Sequence[object]) -> str:
    """For example ``none, 8``; blanks are left out."""
    cells = [cell for cell in row if not pd.isna(cell)]  # type: ignore[call-overload]
    return ", ".join(f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in cells)


def error_by_ratio(ax: Axes, points: Mapping[str, pd.DataFrame]) -> None:
    """Draw squared error over variance against the compression ratio, a line for each codec, a point for each setting.

    Each frame has the columns ``compression_ratio``, ``error`` and ``text``, the setting; it may be empty. At an
    error of 1 a codec is no better than sending the mean.
    """
    for position, (name, found) in enumerate(points.items()):
        style = look(position)
        if found.empty:
            continue
        ordered = found.sort_values("compression_ratio")
        label = f"{name}: {ordered['text'].iloc[0]} to {ordered['text'].iloc[-1]}"
        ax.plot(ordered["compression_ratio"], ordered["error"], markersize=5, label=label, **style)
    ax.set(xscale="log", xlabel="compression ratio [bytes sent / uncompressed]")
    ax.set(yscale="log", ylabel="squared error / variance")
    plain_log(ax.xaxis)
    ax.axhline(1.0, color="grey", linewidth=0.8)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8)


def energy_by_rank(ax: Axes, energy: Mapping[str, Sequence[float]], *, rank: int) -> None:
    """Draw the share of the energy (squared singular values) that the largest keep, and what ``rank`` keeps."""
    for position, (name, shares) in enumerate(energy.items()):
        kept = shares[min(rank, len(shares)) - 1]
        style = {**look(position), "markersize": 4, "markevery": max(1, len(shares) // 12)}
        ranks = np.arange(1, len(shares) + 1)
        ax.plot(ranks, 100 * np.asarray(shares), label=f"{name}: {kept:.1%} at rank {rank}", **style)
    ax.axvline(rank, color="black", linewidth=0.8, linestyle=":")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set(xlabel="rank", ylabel="energy kept, at best [%]", ylim=(0, 102))
    ax.legend(fontsize=8)


def macs_by_unit(ax: Axes, macs: Sequence[int], cuts: tuple[int, int]) -> None:
    """Draw the MACs of each unit of a model, by who computes it when it is cut before the units ``cuts``."""
    owners = [SERVER if cuts[0] <= unit < cuts[1] else CLIENT for unit in range(len(macs))]
    for owner, (colour, hatch) in _OWNERS.items():
        units = [unit for unit, whose in enumerate(owners) if whose == owner]
        ax.bar(units, [macs[u] / 1e6 for u in units], color=colour, hatch=hatch, edgecolor="white", linewidth=0)
    for cut in cuts:
        ax.axvline(cut - 0.5, color="black", linestyle="--", linewidth=1)
    total = max(sum(macs), 1)
    keys = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=f"{owner}: {share:.1%} of the MACs")
        for owner, (colour, hatch) in _OWNERS.items()
        for share in [sum(m for m, whose in zip(macs, owners, strict=True) if whose == owner) / total]
    ]
    ax.set(xlabel="unit, in order of execution", ylabel="MACs of one sample [10⁶]")
    ax.grid(axis="x", visible=False)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.legend(handles=keys, fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 0.98))


def sent_by_cut(ax: Axes, elements: Sequence[int], cuts: tuple[int, int]) -> None:
    """Draw the elements that cross at every possible cut, one sample, one direction, and the chosen cuts in full."""
    places = np.arange(1, len(elements) + 1)
    mebibytes = 4 * np.asarray(elements) / 2**20
    ax.plot(places, mebibytes, color=COLOURS[0], marker="o", markerfacecolor="white", linestyle="-", markersize=5)
    for cut in cuts:
        ax.plot(cut, mebibytes[cut - 1], color=COLOURS[1], marker="D", linestyle="none", markersize=8)
        ax.annotate(
            f"{mebibytes[cut - 1]:.3g} MiB", (cut, mebibytes[cut - 1]), xytext=(6, 6), textcoords="offset points"
        )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set(xlabel="cut before unit", ylabel="float32 activation of one sample [MiB]", yscale="log")
