"""Figures of the playground: a tensor's density under its quantizer, original beside decoded, curves while they grow.

They draw on given axes from plain arrays; nothing here knows widgets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory
from numpy.typing import NDArray

from splitlib.plots import COLOURS

Array = NDArray[np.floating]
_BINS = 200


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
    least = height[height > 0].min() if height.any() else 1.0
    ax.set_ylim(least / 3, max(float(height.max()), 1e-12) * 4)
    if len(edges):
        ax.vlines(edges, 0, 1, transform=ax.get_xaxis_transform(), color=COLOURS[1], linewidth=1, label="edges of bins")
    if len(levels):
        place = blended_transform_factory(ax.transData, ax.transAxes)
        ax.vlines(levels, 0.0, 0.05, transform=place, color=COLOURS[0], linewidth=0.7, label="levels")
    ax.legend(fontsize=8, loc="upper right", ncols=3)


def original_and_decoded(drawing: Figure, axes: Sequence[Axes], original: Array, decoded: Array) -> None:
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
    """Draw the squared error over the tensor's variance of each token [L], for the activation and its gradient."""
    places = np.arange(len(tokens))
    for shift, values, colour, name in ((-0.2, activation, 0, "activation"), (0.2, gradient, 1, "gradient")):
        ax.bar(places + shift, np.maximum(values, 1e-9), 0.4, color=COLOURS[colour], label=name)
    ax.set(yscale="log", ylabel="squared error / variance", xlim=(-0.6, len(tokens) - 0.4))
    ax.set_xticks(places, list(tokens), rotation=60, ha="right", fontsize=8)
    ax.grid(axis="x", visible=False)
    ax.legend(fontsize=8, ncols=2)


def live_curves(losses: Axes, metrics: Axes, steps: Array, loss: Array, metric: Array, name: str) -> None:
    """Draw training loss by step, and the metric by epoch as far as they go."""
    losses.plot(steps, loss, color=COLOURS[0], linewidth=1)
    losses.set(xlabel="step", ylabel="training loss [nats]")
    epochs = np.arange(1, len(metric) + 1)
    metrics.plot(epochs, 100 * metric, color=COLOURS[1], marker="o")
    metrics.set(xlabel="epoch", ylabel=f"validation {name} [%]", xlim=(0.5, max(len(metric), 1) + 0.5))
    metrics.set_xticks(epochs if 0 < len(epochs) <= 20 else [])
