"""Curves by epoch in small panels: each row in its own, over what it is compared with."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from splitlib import plots


def run_of(*accuracies: float, collapsed: bool = False) -> SimpleNamespace:
    """What a figure reads of a record."""
    history = [SimpleNamespace(accuracy=value, train_loss=1 - value) for value in accuracies]
    return SimpleNamespace(history=history, metric="accuracy", collapsed=collapsed)


LONG = "4 and 2 bits by token in context, no padding"
RUNS = {
    "none": [run_of(0.2, 0.6), run_of(0.4, 0.8)],
    LONG: [run_of(0.3, 0.7)] * 3,
    "the same again": [run_of(0.3, 0.7)],
    "predicts one class": [run_of(0.1, 0.1, collapsed=True)] * 2,
    "a fourth": [run_of(0.5, 0.5)],
}


@pytest.fixture
def drawing():
    with plots.figure("title", columns=6, width=1.55, lines=2, height=3.7) as (drawing, axes):
        plots.beside_baseline(axes, RUNS, "none", ("accuracy", "train_loss"))
        drawing.canvas.draw()
        yield drawing
    plt.close(drawing)


def test_no_row_hides_another_and_each_lies_over_the_baseline(drawing):
    assert len(drawing.axes) == 2 * (len(RUNS) - 1), "what is left over is removed"
    for (label, records), ax in zip(list(RUNS.items())[1:], drawing.axes[::2], strict=True):
        behind, line = ax.get_lines()
        assert behind.get_color() == "0.5" and list(behind.get_ydata()) == pytest.approx([30, 70])
        assert list(line.get_ydata()) == pytest.approx([100 * epoch.accuracy for epoch in records[0].history])
        assert len(ax.collections) == 1 + (len(records) > 1), "a band for each that has several runs"
        assert ax.get_title("left").startswith(f"{label}, n={len(records)}")
    assert drawing.axes[4].get_title("left").endswith("2 collapsed")


def test_panels_of_a_quantity_have_one_scale(drawing):
    for position in (0, 1):
        assert len({ax.get_ylim() for ax in drawing.axes[position::2]}) == 1
    low, high = drawing.axes[0].get_ylim()
    assert low < 10 and high > 80, "of all rows, not of the first"


def test_the_legend_says_once_what_is_drawn(drawing):
    (legend,) = drawing.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["none, n=2", "validation accuracy [%]", "training loss [nats]"]


def test_a_long_name_does_not_reach_the_next_row(drawing):
    titles = [ax.get_title("left") for ax in drawing.axes]
    assert titles[0].startswith(LONG) and not titles[1]
    assert drawing.axes[0]._left_title.get_window_extent().x1 < drawing.axes[2]._left_title.get_window_extent().x0
    heights = np.array([ax.get_window_extent().height for ax in drawing.axes])
    assert heights.min() > 50, "there is room for the curves"


def test_the_baseline_alone_is_drawn():
    with plots.figure("title", columns=6, width=1.55) as (drawing, axes):
        plots.beside_baseline(axes, {"none": RUNS["none"]}, "none", ("accuracy", "train_loss"))
        assert len(drawing.axes) == 2
    plt.close(drawing)
