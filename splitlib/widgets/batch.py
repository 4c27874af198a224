"""A widget over one predicted batch: who does what when over any link, and how the time changes with its rate."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from splitlib import plots
from splitlib.config.choices import SCHEDULES
from splitlib.pipeline.predict import Work, break_even, predict
from splitlib.pipeline.remote.link import Link
from splitlib.plots import timing
from splitlib.widgets.explorer import Explorer, one_of

RATES = np.geomspace(1, 1e5, 26)  # Mbit/s
_LOGARITHM = {"min": 0, "max": 5, "step": 0.05, "readout_format": ".3g", "continuous_update": False}


def explore_batch(
    title: str, works: Mapping[str, Work], chunks: Mapping[str, int], *, mbit: float = 100.0, latency_ms: float = 1.0
) -> Explorer:
    """Return a choice of way to send, of link and of schedule: one batch, and its time against the link's rate.

    Args:
        title: what the works were measured on.
        works: what a micro-batch costs, by way to send.
        chunks: micro-batches of a batch, by way to send.
        mbit: the link's rate to start with.
        latency_ms: its latency, one way.
    """

    @cache
    def times(name: str, latency: float, schedule: str) -> list[float]:
        links = [Link(rate_mbit=rate, latency_ms=latency) for rate in RATES]
        return [predict(works[name], chunks=chunks[name], link=link, schedule=schedule).seconds for link in links]

    @cache
    def crossings(way: str, against: str, latency: float, schedule: str) -> dict[str, list[float]]:
        if way == against or chunks[way] != chunks[against]:
            return {}
        over = {"chunks": chunks[way], "rates": list(RATES), "latency_ms": latency, "schedule": schedule}
        return {way: break_even(works[against], works[way], **over)}  # type: ignore[arg-type]

    def draw(way: str, against: str, rate: float, latency: float, schedule: str) -> Figure:
        link = Link(rate_mbit=rate, latency_ms=latency)
        found = predict(works[way], chunks=chunks[way], link=link, schedule=schedule)
        lines = {name: times(name, latency, schedule) for name in dict.fromkeys((against, way))}
        cross = crossings(way, against, latency, schedule)
        link_words = f"{timing.rate_text(rate)}, {latency:g} ms, {schedule}"
        with plots.figure(f"{way}, {link_words}\n{title}", columns=2, height=4.2) as (drawing, axes):
            timing.gantt(axes[0], found.spans, kind="predicted")
            timing.time_by_rate(axes[1], pd.DataFrame(lines, index=RATES), crossings=cross, kind="predicted")
            axes[1].axvline(rate, color="black", linewidth=0.8, linestyle=":")
        return drawing

    rate = ipywidgets.FloatLogSlider(value=mbit, description="Mbit/s", **_LOGARITHM)
    latency = ipywidgets.FloatSlider(
        value=latency_ms, min=0, max=100, step=0.5, description="latency, ms", continuous_update=False
    )
    controls = {"way": one_of(works, "send"), "against": one_of(works, "against"), "rate": rate, "latency": latency}
    return Explorer({**controls, "schedule": one_of(list(SCHEDULES), "schedule")}, draw)
