"""Figures as files: a PNG for the screen and an SVG for print, the same bytes for the same drawing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from splitlib.files import temporary_beside

DENSE = 2000
"""Points of one line, or marks of one collection, from which an SVG holds them as a picture, so that it stays small."""
NO_DATA = "no dataset"
"""What a figure's metadata says where nothing was loaded, such as counts."""
# Text stays text, so that it can be searched and edited; names inside the file come from its content, not from chance.
_SVG: Any = {"svg.fonttype": "none", "svg.hashsalt": "splitlib"}


def save(drawing: Figure, path: Path, *, about: str = "") -> None:
    """Write ``path`` (PNG) and beside it the same name in SVG, both whole or not at all, without dates or versions.

    Both carry the figure's title, and ``about``, words on the data, as metadata: the gallery reads them there.
    """
    title = title_of(drawing)
    described = {"Title": title, **({"Description": about} if about else {})}
    _rasterize_dense(drawing)
    with (
        temporary_beside(path) as png,
        temporary_beside(path.with_suffix(".svg")) as svg,
        plt.rc_context(_SVG),
    ):
        drawing.savefig(png, format="png", metadata={**described, "Software": None})
        drawing.savefig(svg, format="svg", metadata={**described, "Date": None, "Creator": None})


def title_of(drawing: Figure) -> str:
    """Return the title over all panels in one line."""
    lines = re.sub(r"(?<![,.;:])\s*\n\s*", "; ", drawing.get_suptitle())
    return " ".join(lines.split())


def _rasterize_dense(drawing: Figure) -> None:
    """Mark what has very many points to be drawn as a picture inside the SVG; axes and text stay as they are."""
    for ax in drawing.axes:
        for artist in ax.get_children():
            if isinstance(artist, Line2D):
                dense = len(artist.get_xdata(orig=False)) > DENSE  # type: ignore[arg-type]
            elif isinstance(artist, Collection):
                dense = len(artist.get_offsets()) > DENSE or len(artist.get_paths()) > DENSE  # type: ignore[arg-type]
            else:
                continue
            if dense:
                artist.set_rasterized(True)
