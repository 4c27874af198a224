"""Figures of the playground: a tensor's density under its quantizer, original beside decoded, curves while they grow.

They draw on given axes from plain arrays; nothing here knows widgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import blended_transform_factory
from numpy.typing import NDArray

from splitlib.plots.style import COLOURS, MARKERS
from splitlib.plots.timing import rate_text

Array = NDArray[np.floating]
_BINS = 200
LEAST_ERROR = 1e-9
MOST_WORDS = 45  # that fit under an axis
Spans = Sequence[tuple[float, float]]


def time_and_where_it_pays(
    above: Axes, below: Axes, times: pd.DataFrame, spans: Mapping[str, Spans], *, here: float
) -> None:
    """Draw predicted time per batch against link rate, and below it a bar where each line is below the one without.

    Args:
        above: axes of the lines.
        below: axes of the bars, with the same rates.
        times: seconds per batch; the index is the rate in Mbit/s, ascending. The first column is drawn heavily.
        spans: where each column pays, from and to which rate; a column that is left out is what the others are
            compared with.
        here: the rate that is marked.
    """
    rates = times.index.to_numpy(float)
    for position, name in enumerate(times.columns):
        colour, marker = COLOURS[position - 1], MARKERS[position % len(MARKERS)]  # the first is black, -1
        width, alpha = (3.0, 0.45) if not position else (1.3, 1.0)
        above.plot(
            rates,
            1e3 * times[name],
            color=colour,
            marker=marker,
            markersize=4,
            label=name,
            linewidth=width,
            alpha=alpha,
        )
        if name in spans:
            row = list(spans).index(name)
            for low, high in spans[name]:
                below.barh(row, high - low, left=low, height=0.6, color=colour)
    above.set(xscale="log", yscale="log", ylabel="time per batch [ms]", xlim=(rates[0], rates[-1]))
    above.legend(fontsize=8)
    below.set_yticks(range(len(spans)), list(spans), fontsize=8)
    below.set(xscale="log", ylim=(len(spans) - 0.5, -0.5), xlabel="link rate, each direction; bars: faster than none")
    below.xaxis.set_major_locator(LogLocator(numticks=12))
    below.xaxis.set_minor_locator(NullLocator())
    below.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: rate_text(rate)))
    above.yaxis.set_minor_locator(NullLocator())
    for ax in (above, below):
        ax.axvline(here, color="black", linewidth=1, linestyle="--", zorder=5)


def density_and_levels(ax: Axes, values: Array, *, edges: Array, levels: Array, about: str) -> None:
    """Draw the density of ``values`` on a logarithmic axis, with a quantizer's edges and levels on it.

    Args:
        ax: where to draw.
        values: of the tensor, any shape.
        edges: where its bins begin, and the last one's end; may be empty.
        levels: every value it can send; may be empty.
        about: what the values are, for the axis.
    """
    height, bounds = np.histogram(values, bins=_BINS, density=True)
    ax.stairs(height, bounds, fill=True, color="0.78", label="density")
    ax.set(yscale="log", xlabel=f"{about}, value", ylabel="density")
    ax.yaxis.set_minor_locator(NullLocator())  # a hundred minor ticks take longer than all the rest
    least = height[height > 0].min() if height.any() else 1.0
    ax.set_ylim(least / 3, max(float(height.max()), 1e-12) * 4)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-2, 4), useMathText=True)
    if len(edges):
        ax.vlines(edges, 0, 1, transform=ax.get_xaxis_transform(), color=COLOURS[1], linewidth=1, label="edges of bins")
    if len(levels):
        place = blended_transform_factory(ax.transData, ax.transAxes)
        ax.vlines(levels, 0.0, 0.05, transform=place, color=COLOURS[0], linewidth=0.7, label="levels")
    ax.legend(fontsize=8, loc="upper right", ncols=3, frameon=True, edgecolor="none", framealpha=0.9)  # over the edges


def original_and_decoded(drawing: FigureBase, axes: Sequence[Axes], original: Array, decoded: Array) -> None:
    """Draw two feature maps [H, W] in one grey scale, and their difference in its own."""
    low, high = float(original.min()), float(original.max())
    shown = [(original, "original", "gray", (low, high)), (decoded, "decoded", "gray", (low, high))]
    most = float(np.abs(decoded - original).max()) or 1e-12
    shown.append((decoded - original, "decoded - original", "PuOr", (-most, most)))
    for ax, (picture, title, colours, (least, greatest)) in zip(axes, shown, strict=True):
        image = ax.imshow(picture, cmap=colours, vmin=least, vmax=greatest, interpolation="nearest")
        ax.set_title(title, fontsize=10)
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        bar = drawing.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
        bar.ax.tick_params(labelsize=7)


def error_by_token(ax: Axes, tokens: Sequence[str], activation: Array, gradient: Array) -> None:
    """Draw the squared error over the tensor's variance of each token [L], for the activation and its gradient.

    Errors below :data:`LEAST_ERROR` have no bar. Of more than :data:`MOST_WORDS` tokens only some are named.
    """
    places = np.arange(len(tokens))
    for shift, values, colour, name in ((-0.2, activation, 0, "activation"), (0.2, gradient, 1, "gradient")):
        shown = np.where(values >= LEAST_ERROR, values, np.nan)
        ax.bar(places + shift, shown, 0.4, color=COLOURS[colour], label=name)
    ax.set(ylabel="squared error\n/ variance", xlim=(-0.6, len(tokens) - 0.4))
    if max(activation.max(), gradient.max()) >= LEAST_ERROR:
        ax.set_yscale("log")
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        ax.set_yticks([])
        ax.text(0.5, 0.5, "no error", transform=ax.transAxes, ha="center", va="center")
    every = -(-len(tokens) // MOST_WORDS)
    ax.set_xticks(places[::every], list(tokens)[::every], rotation=60, rotation_mode="anchor", ha="right", fontsize=8)
    ax.grid(axis="x", visible=False)
    ax.legend(fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)


def live_curves(losses: Axes, metrics: Axes, loss: tuple[Array, Array, str], metric: Array, name: str) -> None:
    """Draw the training loss, as places, values and what a place is, and the metric by epoch, as far as they go."""
    places, values, unit = loss
    losses.plot(places, values, color=COLOURS[0], linewidth=1, marker="o" if unit == "epoch" else None)
    losses.set(xlabel=unit, ylabel="training loss [nats]")
    epochs = np.arange(1, len(metric) + 1)
    metrics.plot(epochs, 100 * metric, color=COLOURS[1], marker="o")
    metrics.set(xlabel="epoch", ylabel=f"validation {name} [%]", xlim=(0.5, max(len(metric), 1) + 0.5))
    metrics.set_xticks(epochs if 0 < len(epochs) <= 20 else [])
