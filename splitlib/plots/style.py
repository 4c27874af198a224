"""How every figure looks: colours a colour-blind reader can tell apart, markers, lines and hatches, sizes, titles."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

# Okabe and Ito's palette (2008), without its yellow, which vanishes on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: Any = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (1, 3)))
# Of straight lines: an SVG writes out every dot of a dotted one.
HATCHES = ("", "////", "\\\\\\\\", "xxxx", "----")
STYLE: Any = {
    "axes.axisbelow": True,
    "axes.grid": True,
    # A line without a marker, told apart by its dashes where colour does not show.
    "axes.prop_cycle": cycler(color=COLOURS, linestyle=LINES),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.size": 10,
    "grid.alpha": 0.3,
    "hatch.linewidth": 0.7,
    "legend.frameon": False,
    "savefig.dpi": 160,
}


def look(position: int) -> dict[str, Any]:
    """Return colour, marker and line of the ``position``-th of several lines; 49 of them differ.

    >>> look(0)["marker"], look(7)["linestyle"]
    ('o', '--')
    """
    turn, place = divmod(position, len(COLOURS))
    return {
        "color": COLOURS[place],
        "marker": MARKERS[(place + turn) % len(MARKERS)],
        "linestyle": LINES[turn % len(LINES)],
    }


@contextmanager
def figure(
    title: str, *, columns: int = 1, lines: int = 1, height: float = 3.8, width: float = 4.6
) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """Yield a figure in the workbook's style and its panels, line by line; ``title`` names data and hardware.

    ``height``, of the whole figure, and a panel's ``width`` are inches; no figure is narrower than 6.4.
    """
    with plt.rc_context(STYLE):
        drawing, axes = plt.subplots(lines, columns, figsize=(max(6.4, width * columns), height), squeeze=False)
        title = re.sub(r"(?<=\d) (?=[A-Za-z])", "\N{NO-BREAK SPACE}", title)  # a unit stays with its number
        drawing.suptitle(title, fontsize=10, wrap=True)
        yield drawing, list(axes.flat)


def plain_log(axis: Axis) -> None:
    """Number a logarithmic axis, whose limits are known, in plain figures: 0.05 in place of a power of ten."""
    low, high = axis.get_view_interval()
    steps = (1.0, 2.0, 5.0) if high > 10 * low else (1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
