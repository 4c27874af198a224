"""Widgets over what was run: curves by epoch, and tables of reported against measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ipywidgets
import pandas as pd
from matplotlib.figure import Figure

from splitlib import plots
from splitlib.errors import ConfigError
from splitlib.plots.exploring import reported_beside_measured
from splitlib.results import RunRecord
from splitlib.widgets.explorer import Explorer, one_of, several

VALUES, CHANGES = "values", "changes against the baseline"


def explore_curves(title: str, runs: Mapping[str, Sequence[RunRecord]]) -> Explorer:
    """Return a choice of which of the ``runs`` to draw, and which quantity by epoch."""
    runs = {label: records for label, records in runs.items() if records}

    def draw(runs_shown: Sequence[str], quantity: str) -> Figure:
        if not runs_shown:
            raise ConfigError("no run is chosen: mark one or more in the list" if runs else "nothing was run")
        with plots.figure(title, height=4.2) as (drawing, axes):
            plots.metric_by_epoch(axes[0], {label: runs[label] for label in runs_shown}, quantity)
        return drawing

    quantity = one_of(list(plots.QUANTITIES), "quantity")
    if runs:
        quantity.value = next(iter(runs.values()))[0].metric
    return Explorer({"runs_shown": several(runs, "runs"), "quantity": quantity}, draw)


def explore_comparison(title: str, tables: Mapping[str, pd.DataFrame]) -> Explorer:
    """Return a choice of table: each row's reported value beside the measured one.

    Args:
        title: what the tables have in common.
        tables: of :func:`splitlib.comparison.compare`, by name.
    """

    def draw(table: str, show: str) -> Figure:
        chosen = tables[table]
        where = [text for name in ("data_label", "hardware") if name in chosen for text in chosen[name].dropna()[:1]]
        heading = "\n".join([f"{title}: {table}", ", ".join(map(str, where)) or "nothing measured"])
        with plots.figure(heading, height=max(2.6, 1.4 + 0.3 * len(chosen))) as (drawing, axes):
            reported_beside_measured(axes[0], chosen, change=show == CHANGES)
        return drawing

    show = ipywidgets.ToggleButtons(options=[VALUES, CHANGES], style={"button_width": "max-content"})
    return Explorer({"table": one_of(tables, "table"), "show": show}, draw)
