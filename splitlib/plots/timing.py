"""Figures of time: who did what when, time against link rate, ratio against time, bars by method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

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
# Where a point's text may stand, from the point to its middle, in points (1/72 inch); the first that is free is taken.
_AROUND = ((17, 6), (17, -6), (-17, 6), (-17, -6), (0, 10), (0, -10), (19, 0), (-19, 0), (24, 12), (24, -12), (-24, 12))
_ROOM = (18, 8)  # two middles, of texts or points, at least this far apart in one direction do not cover each other


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


def ratio_and_time(ax: Axes, points: pd.DataFrame, *, kind: str, methods: Sequence[str]) -> None:
    """Draw time against compression ratio, both on logarithmic axes, with a colour and marker for each method.

    Args:
        ax: where to draw; the caller names the y axis and its unit, and sets any limits before.
        points: columns ``method``, ``compression_ratio``, ``time`` and ``text``, which stands beside the point, in its
            colour; an empty one leaves the point without.
        kind: ``reported`` (drawn hollow), ``measured``, ``simulated`` or ``predicted``.
        methods: all methods of all panels, so that a method looks the same in each.
    """
    drawn = points.dropna(subset=["time"])
    colours: dict[str, str] = {}
    ax.set(xscale="log", yscale="log", xlabel="compression ratio (bytes sent / uncompressed)")
    ax.margins(0.15)
    for method, group in drawn.groupby("method", sort=False):
        position = list(methods).index(str(method))
        colour, marker = COLOURS[position % len(COLOURS)], MARKERS[position % len(MARKERS)]
        colours[str(method)] = colour
        ax.plot(
            group["compression_ratio"], group["time"], linestyle="none", marker=marker, markersize=8, label=method,
            markeredgewidth=1.5, markeredgecolor=colour, markerfacecolor="white" if kind == "reported" else colour,
        )  # fmt: skip
    _write_beside(ax, drawn, colours)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    ax.set_title(kind, loc="left", fontsize=10)
    ax.legend(fontsize=8)


def _write_beside(ax: Axes, points: pd.DataFrame, colours: Mapping[str, str]) -> None:
    """Write each point's text where it covers neither a point nor another text, if there is such a place."""
    ax.get_figure().draw_without_rendering()  # type: ignore[union-attr]  # the layout decides how far apart points are
    middles = ax.transData.transform(points[["compression_ratio", "time"]]) * 72 / ax.figure.dpi
    taken = list(middles)
    for middle, point in zip(middles, points.itertuples(), strict=True):
        if not point.text:
            continue
        room = [np.abs((np.array(taken) - middle - offset) / _ROOM).max(axis=1).min() for offset in _AROUND]
        best = next((place for place, free in enumerate(room) if free >= 1), int(np.argmax(room)))
        taken.append(middle + _AROUND[best])
        ax.annotate(
            str(point.text), (point.compression_ratio, point.time), xytext=_AROUND[best], textcoords="offset points",
            ha="center", va="center", fontsize=7, color=colours[str(point.method)],
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": colours[str(point.method)], "shrinkA": 0},
        )  # fmt: skip


def predicted_and_measured(ax: Axes, points: pd.DataFrame) -> None:
    """Draw measured against predicted seconds on equal logarithmic axes; on the diagonal both are the same.

    ``points`` has the columns ``predicted``, ``measured``, ``method`` (a colour each, hollow where colours repeat) and
    ``chunks`` (a marker each).
    """
    methods, chunks = (list(dict.fromkeys(points[name])) for name in ("method", "chunks"))
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(methods))]
    faces = [colour if i < len(COLOURS) else "white" for i, colour in enumerate(colours)]
    for (method, number), group in points.groupby(["method", "chunks"], sort=False):
        ax.plot(
            group["predicted"], group["measured"], linestyle="none", markersize=7, alpha=0.75,
            marker=MARKERS[chunks.index(number) % len(MARKERS)],
            markeredgecolor=colours[methods.index(method)], markerfacecolor=faces[methods.index(method)],
        )  # fmt: skip
    values = points[["predicted", "measured"]].to_numpy(float)
    ends = (0.8 * values.min(), 1.25 * values.max())
    ax.plot(ends, ends, color="black", linestyle="-", linewidth=0.8, zorder=1)
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal",
           xlabel="predicted time per batch [s, log]", ylabel="measured time per batch [s, log]")  # fmt: skip
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    looks_of = zip(methods, colours, faces, strict=True)
    keys = [Patch(label=name, edgecolor=colour, facecolor=face) for name, colour, face in looks_of]
    looks = [
        Line2D([], [], linestyle="none", marker=MARKERS[i % len(MARKERS)], color="black", label=f"chunks {number}")
        for i, number in enumerate(chunks)
    ]
    ax.legend(handles=[*keys, *looks], fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1.0))


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
