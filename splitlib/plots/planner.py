"""Figures of the planner: what each layer costs, and the fastest choices for a link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from splitlib.plots.style import COLOURS


def layers(axes: Sequence[Axes], table: pd.DataFrame, marks: Mapping[str, Sequence[int]]) -> None:
    """Draw MACs, bytes and time of every layer on three panels, and where named partitions cut.

    Args:
        axes: three.
        table: as :meth:`splitlib.planner.Costs.table` returns it.
        marks: layers before each cut, by partition.
    """
    macs, nbytes, times = axes
    macs.bar(table.index, table["macs"] / 1e6, color=COLOURS[0])
    macs.set(ylabel="MACs of a sample, forward [million]")
    nbytes.bar(table.index, table["kilobytes"], color=COLOURS[1])
    nbytes.set(ylabel="leaves the layer, a micro-batch [kB]", yscale="log")
    times.bar(table.index, table["forward_ms"], color=COLOURS[4], edgecolor="black", linewidth=0.4, label="forward")
    times.bar(
        table.index, table["backward_ms"], bottom=table["forward_ms"], color=COLOURS[5], edgecolor="black",
        linewidth=0.4, hatch="////", label="backward",
    )  # fmt: skip
    times.set(ylabel="measured, a micro-batch [ms]")
    for ax in axes:
        for position, (name, cuts) in enumerate(marks.items()):
            style = ("--", ":", "-.")[position % 3]
            for cut in cuts:
                label = f"cuts of {name}" if cut == cuts[0] and ax is nbytes else None
                ax.axvline(cut + 0.5, color="black", linestyle=style, linewidth=1.0, label=label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(xlabel="layer", xlim=(0.4, len(table) + 0.6))
        ax.grid(axis="x", visible=False)
    times.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8)
    nbytes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8)


def best_of_each(ax: Axes, table: pd.DataFrame, *, title: str, colours: Mapping[str, str]) -> None:
    """Draw the predicted time of each compressor's fastest choice, the fastest on top, with its cuts and micro-batches.

    Args:
        ax: where to draw.
        table: as :meth:`splitlib.planner.Plan.table` returns it.
        title: of this panel: the link.
        colours: by compressor, the same on all panels.
    """
    best = table.drop_duplicates("compressor").iloc[::-1]
    places = range(len(best))
    ax.barh(places, 1e3 * best["predicted_s"], color=[colours[name] for name in best["compressor"]], height=0.7)
    for place, (_, row) in zip(places, best.iterrows(), strict=True):
        text = f"{1e3 * row['predicted_s']:,.0f} ms; cuts {row['cuts']}; {row['chunks']} chunks"
        ax.annotate(text, (0, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85})  # fmt: skip
    names = [name.replace("+", "\n+ ").replace(",", ", ") for name in best["compressor"]]
    ax.set_yticks(places, names, fontsize=8)
    ax.set(xlabel="predicted time per batch [ms]")
    ax.set_title(title, loc="left", fontsize=10)
    ax.grid(axis="y", visible=False)
