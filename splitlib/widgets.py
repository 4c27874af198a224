"""Widgets that call the same functions as the cells: they draw from records and never train by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import display

from splitlib import plots
from splitlib.results import RunRecord


def explore_curves(title: str, runs: Mapping[str, Sequence[RunRecord]]) -> ipywidgets.Widget:
    """Return controls and a figure: which of the ``runs`` to draw, and which quantity by epoch.

    Without a live kernel, in a saved notebook or an HTML page, only the controls show; the static figures of the
    notebook stand in for it there.
    """
    shown = ipywidgets.SelectMultiple(options=list(runs), value=list(runs), description="runs", rows=len(runs))
    quantity = ipywidgets.Dropdown(options=list(plots.QUANTITIES), description="quantity")

    def draw(labels: Sequence[str], quantity: str) -> None:
        with plots.figure(title) as (drawing, axes):
            plots.metric_by_epoch(axes[0], {label: runs[label] for label in labels}, quantity)
        display(drawing)
        plt.close(drawing)  # else the cell would show it a second time

    output = ipywidgets.interactive_output(draw, {"labels": shown, "quantity": quantity})
    return ipywidgets.VBox([ipywidgets.HBox([shown, quantity]), output])
