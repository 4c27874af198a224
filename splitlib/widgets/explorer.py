"""Controls over a picture: what all widgets of the studies are made of."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from splitlib.errors import SplitlibError


class Explorer(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A row of controls, a line for what is impossible, and a picture that is drawn again when a control moves.

    Displayed, it is the widget with its picture as it is now: where there is no kernel, in a saved notebook, on a page
    or on a forge, that picture stands alone.

    Args:
        controls: by the name ``draw`` knows them by.
        draw: returns the figure of the controls' values. A SplitlibError it raises is shown in words, over the picture
            of the last values that were possible.
    """

    def __init__(self, controls: Mapping[str, ipywidgets.Widget], draw: Callable[..., Figure]) -> None:
        self.controls = dict(controls)
        # As large as it was drawn: a box would stretch it over the page's width.
        self.picture = ipywidgets.Image(format="png", layout={"align_self": "flex-start", "max_width": "100%"})
        self.words = ipywidgets.HTML()
        self._draw = draw
        row = ipywidgets.HBox(list(self.controls.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))
        super().__init__([row, self.words, self.picture])
        for control in self.controls.values():
            control.observe(self.redraw, names="value")
        self.redraw()

    def redraw(self, _: object = None) -> None:
        """Draw the controls' values."""
        try:
            drawing = self._draw(**{name: control.value for name, control in self.controls.items()})
        except SplitlibError as impossible:
            self.words.value = f"<b>{html.escape(str(impossible))}</b>"
            return
        self.words.value = ""
        self.picture.value = to_png(drawing)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**options)
        if self.picture.value:
            bundle["image/png"] = base64.b64encode(self.picture.value).decode("ascii")
        return bundle


def to_png(drawing: Figure) -> bytes:
    """Return the figure as a PNG file's bytes and close it, so that no cell shows it a second time."""
    canvas = FigureCanvasAgg(drawing)
    canvas.draw()  # once; savefig would draw twice to find the layout
    plt.close(drawing)
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def several(options: Mapping[str, Any], description: str) -> ipywidgets.SelectMultiple:
    """Return a list to choose several names from; all are chosen at first."""
    names = list(options)
    rows = min(max(len(names), 2), 8)
    return ipywidgets.SelectMultiple(options=names, value=names, description=description, rows=rows)


def one_of(options: Mapping[str, Any] | list[str], description: str) -> ipywidgets.Dropdown:
    """Return a list to choose one name from; the first is."""
    return ipywidgets.Dropdown(options=list(options), description=description)
