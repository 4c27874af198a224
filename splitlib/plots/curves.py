"""Curves by epoch, from the records of runs: in one panel, or each row in small ones of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from splitlib.plots.style import look
from splitlib.results import RunRecord

# Field of an epoch's result -> axis label and factor.
QUANTITIES = {
    "matthews": ("validation Matthews correlation [%]", 100.0),
    "accuracy": ("validation accuracy [%]", 100.0),
    "eval_loss": ("validation loss [nats]", 1.0),
    "train_loss": ("training loss [nats]", 1.0),
}


def metric_by_epoch(ax: Axes, runs: Mapping[str, Sequence[RunRecord]], quantity: str = "") -> None:
    """Draw a quantity by epoch, a line for each label: mean over its seeds, band from lowest to highest.

    ``quantity`` is one of :data:`QUANTITIES`, by default the task's own metric. How many runs collapsed to one class is
    said in the legend.
    """
    if not runs:
        return
    quantity = quantity or next(iter(runs.values()))[0].metric
    for position, (label, records) in enumerate(runs.items()):
        _course(ax, records, quantity, label=_with_counts(label, records), **look(position))
    ax.set(xlabel="epoch", ylabel=QUANTITIES[quantity][0])
    if len(runs) <= 6:
        ax.legend()
    else:  # below the panel: inside it would cover the curves
        ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def beside_baseline(
    axes: Sequence[Axes], runs: Mapping[str, Sequence[RunRecord]], baseline: str, quantities: Sequence[str]
) -> None:
    """Draw each label's quantities in small panels beside each other, over those of the ``baseline`` in grey.

    Lines are means over a label's runs, bands reach from their lowest to their highest. All panels of a quantity have
    one scale.

    Args:
        axes: of a figure, line by line: for each label but the baseline as many as there are quantities. What is left
            over is removed.
        runs: by label.
        baseline: the label behind the others; alone, it is drawn as they are.
        quantities: names in :data:`QUANTITIES`.
    """
    others = {label: records for label, records in runs.items() if label != baseline} or runs
    panels = zip(*(axes[position :: len(quantities)] for position in range(len(quantities))), strict=True)
    for (label, records), row in zip(others.items(), panels, strict=False):
        for position, (ax, quantity) in enumerate(zip(row, quantities, strict=True)):
            ax.sharey(axes[position])
            grey: dict[str, Any] = {"color": "0.5", "label": _with_counts(baseline, runs[baseline]), "linewidth": 1}
            _course(ax, runs[baseline], quantity, **grey)
            _course(ax, records, quantity, label=QUANTITIES[quantity][0], **look(position))
            ax.tick_params(labelsize=7)
            ax.set_xlabel("epoch", fontsize=7, labelpad=1)
        row[0].set_title(_with_counts(label, records), loc="left", fontsize=7)
    _one_legend(axes[: len(quantities)])
    for ax in axes[len(others) * len(quantities) :]:
        ax.remove()


def _course(ax: Axes, records: Sequence[RunRecord], quantity: str, *, color: str, **line: Any) -> None:
    """Draw the mean of runs by epoch, and a band from the lowest to the highest where there are several."""
    curves = pd.DataFrame([[getattr(e, quantity) for e in r.history] for r in records]).mul(QUANTITIES[quantity][1])
    epochs = range(1, curves.shape[1] + 1)
    ax.plot(epochs, curves.mean(), markersize=4, color=color, **line)
    if len(records) > 1:
        ax.fill_between(epochs, curves.min(), curves.max(), color=color, alpha=0.15, linewidth=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # there is no epoch 1.5


def _with_counts(label: str, records: Sequence[RunRecord]) -> str:
    """For example ``sort 4, n=3, 3 collapsed``."""
    collapsed = sum(r.collapsed for r in records)
    return f"{label}, n={len(records)}" + (f", {collapsed} collapsed" if collapsed else "")


def _one_legend(axes: Sequence[Axes]) -> None:
    """Write what any of the panels names once, under the figure."""
    named = {text: line for ax in axes for line, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    drawing: Any = axes[0].get_figure(root=True)
    drawing.legend(named.values(), named, loc="outside lower center", ncols=len(named), fontsize=8)
