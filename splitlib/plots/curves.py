"""Curves by epoch, from the records of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    name, factor = QUANTITIES[quantity := quantity or next(iter(runs.values()))[0].metric]
    for position, (label, records) in enumerate(runs.items()):
        curves = pd.DataFrame([[getattr(e, quantity) for e in r.history] for r in records]).mul(factor)
        epochs = range(1, curves.shape[1] + 1)
        style = look(position)
        collapsed = sum(r.collapsed for r in records)
        text = f"{label}, n={len(records)}" + (f", {collapsed} collapsed" if collapsed else "")
        ax.plot(epochs, curves.mean(), markersize=4, label=text, **style)
        if len(records) > 1:
            ax.fill_between(epochs, curves.min(), curves.max(), color=style["color"], alpha=0.15, linewidth=0)
    ax.set(xlabel="epoch", ylabel=name)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # there is no epoch 1.5
    if len(runs) <= 6:
        ax.legend()
    else:  # below the panel: inside it would cover the curves
        ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
