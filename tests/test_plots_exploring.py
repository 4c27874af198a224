"""What the widgets draw is what their tables say."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from splitlib import plots
from splitlib.comparison import compare
from splitlib.plots import exploring

matplotlib.use("Agg")
REPORTED = pd.DataFrame(
    {"document": "001", "section": "1", "rank": ["8", "4", "2"], "score_percent": [80.0, 70.0, 60.0]}
)
MEASURED = pd.DataFrame({"rank": ["8", "8", "4"], "score_percent": [78.0, 82.0, 75.0], "data": "embedded"})
TABLE = compare(
    REPORTED, MEASURED.assign(document_settings=False), on=["rank"], metric="score_percent", tolerance=1.0,
    baseline={"rank": "8"},
)  # fmt: skip


@pytest.fixture
def ax():
    with plots.figure("title") as (drawing, axes):
        yield axes[0]
    plt.close(drawing)


def series(ax) -> dict[str, list[float]]:
    return {bars.get_label(): list(bars.lines[0].get_xdata()) for bars in ax.containers}


def test_reported_is_hollow_beside_measured_and_a_row_says_its_status(ax):
    exploring.reported_beside_measured(ax, TABLE)
    drawn = series(ax)
    assert drawn["reported"] == [80, 70, 60]
    assert drawn["measured"][:2] == [80, 75] and np.isnan(drawn["measured"][2])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["8 (differs)", "4 (trend only)", "2 (not run)"]
    faces = [bars.lines[0].get_markerfacecolor() for bars in ax.containers]
    assert faces[0] == "white" != faces[1]
    assert ax.get_xlabel() == "score [%]"


def test_what_no_data_went_into_is_not_called_measured(ax):
    exploring.reported_beside_measured(ax, TABLE.assign(data="none"))
    assert list(series(ax)) == ["reported", "counted"]


def test_changes_are_against_the_baseline(ax):
    exploring.reported_beside_measured(ax, TABLE, change=True)
    assert series(ax)["reported"][1:] == [-10, -20] and series(ax)["measured"][1] == -5
    assert "against the baseline" in ax.get_xlabel()


def test_errors_are_joined_from_left_to_right(ax):
    points = pd.DataFrame({"compression_ratio": [0.5, 0.25], "error": [1e-4, 1e-2], "text": ["8 bits", "4 bits"]})
    exploring.error_by_ratio(ax, {"uniform": points})
    line = ax.get_lines()[0]
    assert list(line.get_xdata()) == [0.25, 0.5] and line.get_label() == "uniform: 4 bits to 8 bits"
    assert ax.get_yscale() == "log"


def test_the_legend_says_what_the_rank_keeps(ax):
    exploring.energy_by_rank(ax, {"activation 1": [0.5, 0.75, 1.0], "gradient 1": [1.0]}, rank=2)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["activation 1: 75.0% at rank 2", "gradient 1: 100.0% at rank 2"]
    assert list(ax.get_lines()[0].get_ydata()) == [50, 75, 100]


def test_macs_belong_to_whom_the_cuts_give_them(ax):
    exploring.macs_by_unit(ax, [10, 20, 30, 40], (1, 3))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "client: 50.0% of the MACs", "server: 50.0% of the MACs"
    ]  # fmt: skip
    colours = {round(bar.get_x() + bar.get_width() / 2): bar.get_facecolor() for bar in ax.patches}
    assert colours[0] == colours[3] != colours[1] == colours[2]


def test_a_cut_sends_what_the_unit_before_it_makes(ax):
    exploring.sent_by_cut(ax, [2**20, 2**18, 2**19], (1, 3))
    line, *chosen = ax.get_lines()
    assert list(line.get_ydata()) == [4, 1, 2] and list(line.get_xdata()) == [1, 2, 3]
    assert [(mark.get_xdata()[0], mark.get_ydata()[0]) for mark in chosen] == [(1, 4), (3, 2)]
