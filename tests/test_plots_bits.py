"""Quantizers by bits: what ends at the same value is seen in different places."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from splitlib import plots
from splitlib.plots import bits

NAMES = ("sort", "fast", "uniform")
FOURS = [*(f"{name} 4" for name in NAMES), "cube_root 4", "cube_root 3:1 4", "one level a bin 4", "never run 4"]
PERCENT = {"none": 20.0, "one level a bin 4": 18.0} | {f"{name} 8": 19.0 for name in NAMES}
PERCENT |= dict.fromkeys(FOURS[:5], 0.0)
RUNS = pd.DataFrame(
    [
        {"row_label": label, "best_percent": percent + seed, "compression_ratio": 0.125, "metric": "matthews"}
        for label, percent in PERCENT.items()
        for seed in ((0, 2) if label == "none" else (0,))
    ]
)


@pytest.fixture
def drawn():
    with plots.figure("title", columns=2, height=4.3) as (drawing, axes):
        bits.curves_and_ways(*axes, RUNS, names=NAMES, labels=FOURS)
        drawing.canvas.draw()
        yield axes
    plt.close(drawing)


def pixels(ax) -> np.ndarray:
    return np.concatenate([ax.transData.transform(bars.lines[0].get_xydata()) for bars in ax.containers])


def test_marks_of_rows_that_all_end_at_zero_do_not_cover_each_other(drawn):
    for ax, expected in zip(drawn, (6, 6), strict=True):
        marks = pixels(ax)
        apart = np.linalg.norm(marks[:, None] - marks[None], axis=2)[np.triu_indices(expected, 1)]
        size = ax.containers[0].lines[0].get_markersize() * ax.figure.dpi / 72
        assert len(marks) == expected and apart.min() > size


def test_marks_of_a_width_stay_nearest_to_its_tick(drawn):
    curves = drawn[0]
    assert [label.get_text() for label in curves.get_xticklabels()] == ["4", "8"]
    for bars in curves.containers:
        assert [round(place) for place in bars.lines[0].get_xdata()] == [0, 1]
        assert list(bars.lines[0].get_ydata()) == [0, 19]


def test_quantizers_are_told_apart_without_colour(drawn):
    lines = [bars.lines[0] for bars in drawn[0].containers]
    assert len({line.get_marker() for line in lines}) == len({line.get_linestyle() for line in lines}) == len(NAMES)


def test_every_way_that_ran_has_a_line_with_its_runs_and_bytes(drawn):
    strip = drawn[1]
    names = [label.get_text() for label in strip.get_yticklabels()]
    assert names == [f"{label.removesuffix(' 4')}, n=1" for label in FOURS[:-1]]
    assert [text.get_text() for text in strip.texts][1:] == ["0.125"] * len(names)


def test_what_is_not_compressed_lies_behind_both(drawn):
    curves, strip = drawn
    assert list(next(line for line in curves.lines if line.get_label() == "no compression").get_ydata()) == [21, 21]
    assert list(next(line for line in strip.lines if line.get_label() == "no compression").get_xdata()) == [21, 21]


def test_without_any_row_of_the_width_the_strip_says_so():
    with plots.figure("title", columns=2) as (_, axes):
        bits.curves_and_ways(*axes, RUNS[~RUNS["row_label"].str.endswith(" 4")], names=NAMES, labels=FOURS)
        assert [text.get_text() for text in axes[1].texts] == ["not run"]
