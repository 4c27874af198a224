"""Rows under each other: no mark of a row hides another, and each is level with its name."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from splitlib import plots
from splitlib.plots import rows

EQUAL = pd.DataFrame({"reported": [1.0, 1.0, np.nan], "measured": [1.0, 2.0, 1.0]}, index=["a", "a longer name", "c"])


@pytest.fixture
def ax():
    with plots.figure("title", height=3.0) as (drawing, axes):
        yield axes[0]
    plt.close(drawing)


def marks(ax) -> dict[str, np.ndarray]:
    """Where each kind's marks are drawn, in pixels."""
    ax.figure.canvas.draw()
    return {bars.get_label(): ax.transData.transform(bars.lines[0].get_xydata()) for bars in ax.containers}


def test_equal_values_are_seen_beside_each_other(ax):
    rows.marks_by_row(ax, EQUAL)
    reported, measured = marks(ax).values()
    size = ax.containers[0].lines[0].get_markersize() * ax.figure.dpi / 72
    assert reported[0][0] == pytest.approx(measured[0][0]), "the same value"
    everything = np.concatenate([reported, measured])
    everything = everything[~np.isnan(everything).any(axis=1)]
    apart = np.linalg.norm(everything[:, None] - everything[None], axis=2)[np.triu_indices(len(everything), 1)]
    assert apart.min() > size, "no mark covers another"


def test_what_is_reported_or_predicted_is_hollow(ax):
    rows.marks_by_row(ax, EQUAL.rename(columns={"reported": "predicted"}))
    faces = {bars.get_label(): bars.lines[0].get_markerfacecolor() for bars in ax.containers}
    assert faces["predicted"] == "white" != faces["measured"]
    assert len({bars.lines[0].get_marker() for bars in ax.containers}) == 2, "told apart in print"


def test_a_rows_marks_and_words_are_level_with_its_name(ax):
    rows.marks_by_row(ax, EQUAL)
    words = pd.DataFrame({"bytes": ["1/4", "1/8", ""], "off": ["+1 %", "", "-2 %"]}, index=EQUAL.index)
    rows.words_beside(ax, words)
    found = np.nanmean([places[:, 1] for places in marks(ax).values()], axis=0)
    names = [box.y0 + box.height / 2 for box in (name.get_window_extent() for name in ax.get_yticklabels())]
    assert names[0] > names[1] > names[2], "the first row stands on top"
    assert found[:2] == pytest.approx(names[:2], abs=3)
    for text, name in zip([t for t in ax.texts if t.get_text() in ("1/4", "1/8")], names, strict=False):
        box = text.get_window_extent()
        assert box.y0 + box.height / 2 == pytest.approx(name, abs=3)


def test_words_lie_outside_the_panel_and_do_not_cover_each_other(ax):
    rows.marks_by_row(ax, EQUAL)
    rows.words_beside(ax, pd.DataFrame({"share of\nbytes": ["0.2500"] * 3, "accuracy": ["100.0 %"] * 3}))
    rows.legend_above(ax)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in [*ax.texts, *ax.get_legend().get_texts(), ax.figure._suptitle]]
    assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[:place])
    panel, whole = ax.get_window_extent(), ax.figure.bbox
    assert all(text.get_window_extent().x0 > panel.x1 for text in ax.texts)
    assert all(box.x1 <= whole.x1 for box in boxes)


def test_settings_that_take_the_same_time_each_have_their_line(ax):
    seconds = pd.DataFrame({"predicted": [1.0] * 3, "measured": [1.0, 1.25, 0.999]}, index=["a", "b", "c"])
    rows.predicted_and_measured(ax, seconds)
    predicted, measured = marks(ax).values()
    assert len(np.unique(np.concatenate([predicted[:, 1], measured[:, 1]]))) == 6
    assert [text.get_text() for text in ax.texts] == ["measured\nis longer", "+0%", "+25%", "+0%"], "and no -0%"
    assert ax.get_xscale() == "log"


def test_quantities_of_the_same_rows_are_level_and_named_once():
    with plots.figure("title", columns=2, height=3.0) as (drawing, axes):
        rows.panels_by_row(axes, {"bytes": EQUAL, "time": 10 * EQUAL})
        drawing.canvas.draw()
        names = [[label.get_text() for label in ax.get_yticklabels()] for ax in axes]
        assert names == [list(EQUAL.index), [""] * 3]
        heights = [[places[:, 1] for places in marks(ax).values()] for ax in axes]
        assert np.allclose(heights[0], heights[1], equal_nan=True)
        assert [ax.get_xlabel() for ax in axes] == ["bytes", "time"]
    plt.close(drawing)
