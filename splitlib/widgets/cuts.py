"""A widget over where a model is cut: who computes how much, and what crosses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ipywidgets
from matplotlib.figure import Figure

from splitlib import plots
from splitlib.plots.exploring import macs_by_unit, sent_by_cut
from splitlib.widgets.explorer import Explorer, one_of


def explore_cuts(
    title: str, macs: Mapping[str, Sequence[int]], sent: Mapping[str, Sequence[int]] | None = None
) -> Explorer:
    """Return a choice of model and of both cuts: the MACs of each unit by owner, and what every cut would send.

    Args:
        title: how the MACs were counted.
        macs: of each unit of :func:`splitlib.models.units.units`, by model.
        sent: elements that leave each unit but the last, by model; left out, there is no second panel.
    """
    first = next(iter(macs))

    def draw(model: str, cuts: tuple[int, int]) -> Figure:
        chosen = _inside(cuts, len(macs[model]))
        with plots.figure(f"{title}: {model}", columns=2 if sent else 1) as (drawing, axes):
            macs_by_unit(axes[0], macs[model], chosen)
            if sent:
                sent_by_cut(axes[1], sent[model], chosen)
        return drawing

    last = max(map(len, macs.values())) - 1
    both = ipywidgets.IntRangeSlider(
        value=(1, len(macs[first]) - 1), min=1, max=last, description="cuts", continuous_update=False
    )
    return Explorer({"model": one_of(macs, "model"), "cuts": both}, draw)


def _inside(cuts: tuple[int, int], units: int) -> tuple[int, int]:
    """Return the cuts as far as this model has units; the body keeps one at least.

    >>> _inside((3, 25), 20), _inside((19, 19), 20)
    ((3, 19), (18, 19))
    """
    second = min(max(cuts[1], 2), units - 1)
    return min(cuts[0], second - 1), second
