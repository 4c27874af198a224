"""Figures of time: who did what when, time against link rate, bars by method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from splitlib.plots.style import COLOURS, HATCHES, LINES, MARKERS
from splitlib.timeline import COMPUTE, DECODE, ENCODE, SEND, WAIT, Span

FORWARD, BACKWARD, OPTIMIZER, WAITING = "forward", "backward", "optimizer", "waiting (bubble)"
# Told apart without colour as well: by hatching, and the optimizer by its darkness.
_LOOKS: Mapping[str, Mapping[str, object]] = {
    FORWARD: {"facecolor": COLOURS[4], "edgecolor": "black"},
    BACKWARD: {"facecolor": COLOURS[5], "edgecolor": "black", "hatch": "////"},
    OPTIMIZER: {"facecolor": "#404040", "edgecolor": "black"},
    WAITING: {"facecolor": "#F0F0F0", "edgecolor": "#B0B0B0"},
}
_LANES = (COMPUTE, ENCODE, SEND, DECODE)
_NUMBERED = 0.022  # share of the axis a bar must have to show its micro-batch's number
_OUTLINED = 0.008  # and to have an outline: a narrower one would be nothing but that
_SEEN = 0.001  # and to be seen at all: what has no wider one has no key


def gantt(ax: Axes, spans: Sequence[Span], *, kind: str) -> None:
    """Draw the spans of one batch, a line for each side and activity, in ms from the first start.

    Numbers are micro-batches. Waits (:func:`splitlib.timeline.with_waits`) are drawn where the side computes.

    Args:
        ax: where to draw.
        spans: of any number of sides.
        kind: ``measured``, ``simulated`` or ``predicted``; it stands in the title.
    """
    lanes = _lanes(spans)
    begin, end = (1e3 * f(times) for f, times in ((min, [s.start for s in spans]), (max, [s.end for s in spans])))
    for span in spans:
        lane = lanes.index((span.side, COMPUTE if span.activity == WAIT else span.activity))
        start, width = 1e3 * span.start - begin, 1e3 * (span.end - span.start)
        look, waits = dict(_LOOKS[_meaning(span)]), span.activity == WAIT
        if width < _OUTLINED * (end - begin):
            look |= {"edgecolor": look["facecolor"], "hatch": ""}
        ax.barh(lane, width, left=start, height=0.8, linewidth=0.6, zorder=2 if waits else 3, **look)  # type: ignore[arg-type]
        if not waits and span.what != OPTIMIZER and width > _NUMBERED * (end - begin):
            ax.text(start + width / 2, lane, str(span.micro_batch), ha="center", va="center", fontsize=7, zorder=4,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})  # fmt: skip
    ax.set_yticks(range(len(lanes)), [f"{side} {activity}" for side, activity in lanes])
    ax.set(xlabel="time [ms]", xlim=(0, end - begin))
    ax.set_title(f"{kind}: {end - begin:,.0f} ms a batch", loc="left", fontsize=10)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    present = {_meaning(span) for span in spans if 1e3 * (span.end - span.start) > _SEEN * (end - begin)}
    keys = [Patch(label=name, **look) for name, look in _LOOKS.items() if name in present]  # type: ignore[arg-type]
    ax.legend(handles=keys, ncols=len(keys), loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8)


def on_one_scale(axes: Iterable[Axes]) -> None:
    """Give panels of :func:`gantt` the time axis of the longest, so that lengths compare between them."""
    panels = list(axes)
    longest = max(ax.get_xlim()[1] for ax in panels)
    for ax in panels:
        ax.set_xlim(0, longest)


def _lanes(spans: Sequence[Span]) -> list[tuple[str, str]]:
    """Return side and activity of each line, those without spans left out; a side that only waits has its line."""
    seen = {(s.side, COMPUTE if s.activity == WAIT else s.activity) for s in spans}
    sides = dict.fromkeys(s.side for s in sorted(spans, key=lambda span: span.start))
    return [(side, activity) for side in sides for activity in _LANES if (side, activity) in seen]


def _meaning(span: Span) -> str:
    if span.activity == WAIT:
        return WAITING
    if span.what == OPTIMIZER:
        return OPTIMIZER
    return BACKWARD if "gradient" in span.what else FORWARD


def time_by_rate(ax: Axes, times: pd.DataFrame, *, crossings: Mapping[str, Sequence[float]], kind: str) -> None:
    """Draw time per batch against link rate, a line for each column, and where a line crosses the first.

    Args:
        ax: where to draw.
        times: seconds per batch; the index is the rate in Mbit/s, ascending.
        crossings: rates in Mbit/s by column, as :func:`splitlib.pipeline.predict.break_even` finds them.
        kind: ``measured``, ``simulated`` or ``predicted``.
    """
    rates = times.index.to_numpy(float)
    for position, name in enumerate(times.columns):
        colour = COLOURS[position % len(COLOURS)]
        every = (position, max(1, len(rates) // 6))  # markers of lines that coincide stand beside each other
        marker = MARKERS[position % len(MARKERS)]
        line = LINES[position % len(LINES)]
        ax.plot(
            rates,
            1e3 * times[name],
            color=colour,
            linestyle=line,
            marker=marker,
            markersize=5,
            markevery=every,
            label=name,
        )
        for rate in crossings.get(str(name), ()):
            height = 1e3 * float(np.exp(np.interp(np.log(rate), np.log(rates), np.log(times[name]))))
            ax.plot(rate, height, "o", markersize=10, markerfacecolor="none", markeredgecolor=colour, zorder=4)
            ax.annotate(rate_text(rate), (rate, height), xytext=(7, 7), textcoords="offset points", fontsize=8)
    ax.set(xscale="log", yscale="log", xlabel="link rate, each direction", ylabel=f"{kind} time per batch [ms]")
    decades = 10.0 ** np.arange(np.floor(np.log10(rates[0])), np.ceil(np.log10(rates[-1])) + 1)
    ax.xaxis.set_major_locator(FixedLocator(list(decades)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: rate_text(rate).replace(" ", "\n")))
    ax.set_xlim(rates[0], rates[-1])
    ax.legend(fontsize=8)


def rate_text(mbit: float) -> str:
    """Return a link rate in words, to two digits.

    >>> rate_text(50), rate_text(1260)
    ('50 Mbit/s', '1.3 Gbit/s')
    """
    value, unit = (mbit / 1000, "Gbit/s") if mbit >= 999.5 else (mbit, "Mbit/s")
    return f"{float(f'{value:.2g}'):g} {unit}"


def grouped_bars(
    ax: Axes, heights: pd.DataFrame, *, kind: str, format: str = "{:.2f}", runs: pd.DataFrame | None = None
) -> None:
    """Draw a group of bars for each row of ``heights``, a bar for each column, with its value above it.

    A blank (NaN) leaves its place empty and says *not run*. Reported bars are drawn hollow. Where a bar is a mean,
    ``runs`` has the list of its values in the same place, and each is drawn as a point.
    """
    places, width = np.arange(len(heights)), 0.8 / max(len(heights.columns), 1)
    for position, name in enumerate(heights.columns):
        values = heights[name].to_numpy(float)
        left = places + (position - (len(heights.columns) - 1) / 2) * width
        colour = COLOURS[position % len(COLOURS)]
        ax.bar(
            left, np.nan_to_num(values), width * 0.92, label=f"{heights.columns.name or ''} {name}".strip(),
            edgecolor=colour if kind == "reported" else "white", linewidth=1.2,
            facecolor="white" if kind == "reported" else colour, hatch=HATCHES[position % len(HATCHES)],
        )  # fmt: skip
        for row, x, value in zip(heights.index, left, values, strict=True):
            text = "not run" if np.isnan(value) else format.format(value)
            behind = runs.loc[row, name] if runs is not None and not np.isnan(value) else []
            several = behind if len(behind) > 1 else []
            for single in several:
                ax.plot(x, single, "o", color="black", markeredgecolor="white", markersize=5, zorder=3)
            top = max([0 if np.isnan(value) else value, *several])
            ax.annotate(text, (x, top), xytext=(0, 4 if several else 2), textcoords="offset points",
                        ha="center", fontsize=7, rotation=90 if np.isnan(value) else 0)  # fmt: skip
    ax.set_xticks(places, [str(name) for name in heights.index])
    ax.set_title(kind, loc="left", fontsize=10)
    ax.grid(axis="x", visible=False)
    ax.margins(y=0.12)
    # Over the panel, beside its title: inside it would cover bars or their values.
    ax.legend(fontsize=8, ncols=len(heights.columns), loc="lower right", bbox_to_anchor=(1.0, 0.98), columnspacing=1.0)
