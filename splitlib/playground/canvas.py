"""A figure that lives in an image widget: drawn by Agg without pyplot, sent as PNG."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import ipywidgets
import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase

from splitlib.plots.style import STYLE

DPI = 110
WIDTH, HEIGHT = 8.0, 4.2  # inches
# What costs time for each drawing is left out: constrained layout, which draws everything twice, and titles that look
# for room above the ticks.
_STYLE = {**STYLE, "figure.constrained_layout.use": False, "font.size": 9, "axes.titlesize": 9, "axes.titley": 1.01}
_FAST = {"compress_level": 1}  # of PNG: bytes to a browser on the same machine cost less than squeezing them


_TITLE = 0.5  # inches
Paint = Callable[[FigureBase], object]


class Canvas:
    """One figure and the widget that shows it; drawing replaces what was there."""

    def __init__(self, name: str) -> None:
        with mpl.rc_context(_STYLE):
            self.figure = Figure(dpi=DPI)
            FigureCanvasAgg(self.figure)
        self.image = ipywidgets.Image(format="png")
        self.image.layout = ipywidgets.Layout(width="100%", max_width=f"{int(WIDTH * DPI)}px", object_fit="contain")
        self.image.add_class(f"splitlib-{name}")
        self.draws = 0
        self._paint: Paint = lambda drawing: None

    def draw(self, paint: Paint, *, height: float = HEIGHT) -> None:
        """Let ``paint`` draw on the emptied figure, and show it; ``height`` in inches."""
        self._paint = paint
        with mpl.rc_context(_STYLE):
            self.figure.clear()
            self.figure.set_size_inches(WIDTH, height)
            paint(self.figure)
            buffer = io.BytesIO()
            self.figure.savefig(buffer, format="png", dpi=DPI, pil_kwargs=_FAST)
        self.image.value = buffer.getvalue()
        self.draws += 1

    def on_paper(self, title: str) -> Figure:
        """Return what was drawn last as a figure of its own; ``title`` names data and hardware."""
        width, height = self.figure.get_size_inches()
        with mpl.rc_context(_STYLE):
            drawing = plt.figure(figsize=(width, height + _TITLE))
            panels: Any = drawing.subfigures(2, 1, height_ratios=[_TITLE, height])
            head, body = panels
            head.suptitle(title, fontsize=9, y=0.5, va="center")
            self._paint(body)
        return drawing
