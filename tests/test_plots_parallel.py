"""What the figures of notebook 02 draw is what their tables say."""

import math

import matplotlib.pyplot as plt
import pandas as pd

from splitlib.plots import parallel as plots_parallel


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_parts_stand_on_each_other_and_a_negative_one_is_nothing():
    seconds = pd.DataFrame({"forward": [1.0, 2.0], "all_reduce": [-0.5, 1.0]}, index=["sgd", "adamw"])
    _, ax = plt.subplots()
    plots_parallel.stacked_parts(ax, seconds, pd.Series([0.5, 3.0], index=seconds.index), title="t")
    forward, exchange = ax.containers
    assert [bar.get_height() for bar in forward] == [1.0, 2.0]
    assert [(bar.get_y(), bar.get_height()) for bar in exchange] == [(1.0, 0.0), (2.0, 1.0)]
    assert texts(ax) == ["0.5 s", "3 s"]


def test_blanks_are_said_and_not_drawn():
    values = pd.DataFrame({"reported": [0.6, math.nan], "measured": [math.nan, 0.25]}, index=["a", "b"])
    _, ax = plt.subplots()
    plots_parallel.reported_and_measured(ax, values, title="t")
    assert texts(ax) == ["0.60", "not reported", "not run", "0.25"]
    assert [[bar.get_width() for bar in bars] for bars in ax.containers] == [[0.6, 0.0], [0.0, 0.25]]
