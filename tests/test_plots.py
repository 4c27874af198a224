"""The pictures of the studies: what is drawn where, and what says which."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

from splitlib import plots
from splitlib.plots import saving

matplotlib.use("Agg")
REPORTED = pd.DataFrame(
    {"series": ["sort", "sort", "uniform"], "compression_ratio": [0.5, 0.25, 0.25], "percent": [96.0, 95.0, 87.0]}
)
MEASURED = pd.DataFrame(
    {
        "series": ["sort", "sort", "cube_root"],
        "row_label": ["sort 8", "sort 8", "cube_root 4"],
        "compression_ratio": [0.26, 0.26, 0.13],
        "percent": [80.0, 90.0, 70.0],
    }
)


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_reported_points_are_hollow_and_measured_ones_filled():
    with plots.figure("title") as (_, axes):
        plots.metric_by_ratio(axes[0], REPORTED, MEASURED)
        lines = {line.get_label(): line for line in axes[0].get_lines()}
        bars = {bar.get_label(): bar.lines[0] for bar in axes[0].containers}
        assert set(legend_of(axes[0])) == {
            "sort, reported", "sort, measured", "uniform, reported", "cube_root, measured"
        }  # fmt: skip
        told = lines["sort, reported"]
        assert told.get_markerfacecolor() == "white" and told.get_linestyle() == "--"
        assert list(told.get_xdata()) == [0.25, 0.5], "joined from left to right"
        mine = bars["sort, measured"]
        assert mine.get_markerfacecolor() != "white" and mine.get_color() == told.get_color()
        assert mine.get_color() != bars["cube_root, measured"].get_color()


def test_the_runs_of_a_row_are_one_point_with_their_range():
    with plots.figure("title") as (_, axes):
        plots.metric_by_ratio(axes[0], REPORTED, MEASURED)
        bar = next(bar for bar in axes[0].containers if bar.get_label() == "sort, measured")
        assert list(bar.lines[0].get_xydata()[0]) == pytest.approx([0.26, 85.0])
        ((low, high),) = bar.lines[2][0].get_segments()
        assert [low[1], high[1]] == pytest.approx([80.0, 90.0])


def test_a_figure_without_runs_shows_what_was_reported():
    with plots.figure("title") as (_, axes):
        plots.metric_by_ratio(axes[0], REPORTED, pd.DataFrame())
        assert legend_of(axes[0]) == ["sort, reported", "uniform, reported"]


def test_what_others_are_compared_with_is_a_line_in_a_band():
    with plots.figure("title") as (_, axes):
        plots.reference_band(axes[0], pd.Series([15.0, 18.0, 21.0]), "none")
        (line,), (band,) = axes[0].lines, axes[0].patches
        assert list(line.get_ydata()) == [18.0, 18.0] and line.get_label() == "none"
        assert (band.get_y(), band.get_height()) == (15.0, 6.0)
        plots.reference_band(axes[0], pd.Series([], dtype=float), "not run")
        assert len(axes[0].lines) == 1


def test_what_others_are_compared_with_stands_upright_where_their_values_lie_along_the_axis():
    with plots.figure("title") as (_, axes):
        plots.reference_band(axes[0], [15.0, 21.0], "none", upright=True)
        (line,), (band,) = axes[0].lines, axes[0].patches
        assert list(line.get_xdata()) == [18.0, 18.0]
        assert (band.get_x(), band.get_width()) == (15.0, 6.0)


def test_points_of_one_row_stand_side_by_side_near_its_tick():
    table = pd.DataFrame({"a": [1e-4, 1e-2], "b": [1e-3, 1e-1], "c": [1.0, 2.0]}, index=["first", "second"])
    with plots.figure("title") as (_, axes):
        plots.points_by_row(axes[0], table)
        places = np.array([line.get_xdata() for line in axes[0].get_lines()])
        assert axes[0].get_yscale() == "log"
        assert [label.get_text() for label in axes[0].get_xticklabels()] == ["first", "second"]
        assert [line.get_label() for line in axes[0].get_lines()] == ["a", "b", "c"]
        assert [list(line.get_ydata()) for line in axes[0].get_lines()] == table.T.to_numpy().tolist()
    assert (np.abs(places - [0, 1]) < 0.5).all() and len(np.unique(places)) == places.size


def test_every_rule_has_its_row_of_edges_above_the_density():
    values = np.random.default_rng(0).normal(size=2000)
    edges = {"equal_count": [-3.0, 0.0, 3.0], "equal_range": [-3.0, -1.0, 1.0, 3.0]}
    edges |= {f"rule {number}": [float(number)] for number in range(4)}  # many rows once covered the title
    with plots.figure("title\nof two lines", columns=2) as (drawing, axes):
        plots.density_with_edges(axes[0], values, edges)
        (rows,) = axes[0].child_axes
        assert [list(row.get_positions()) for row in rows.collections] == list(edges.values())
        assert [label.get_text() for label in rows.get_yticklabels()] == list(edges)
        area = sum(bar.get_width() * bar.get_height() for bar in axes[0].patches)
        assert area == pytest.approx(1)
        drawing.canvas.draw()
        assert rows.get_xlim() == axes[0].get_xlim()
        below, above = axes[0].get_window_extent(), drawing._suptitle.get_window_extent()
        assert below.y1 < rows.get_window_extent().y0 and rows.get_window_extent().y1 < above.y0


def test_a_long_title_is_wrapped_and_kept_whole_in_the_gallery():
    title = "Measured: CoLA\nall-MiniLM-L6-v2, 3 epochs, " + " or ".join(["a processor's long name, 1 thread"] * 3)
    with plots.figure(title) as (drawing, axes):
        drawing.canvas.draw()
        extent = drawing._suptitle.get_window_extent()
        assert extent.x0 >= 0 and extent.x1 <= drawing.bbox.width
        assert axes[0].get_window_extent().y1 < extent.y0
        assert saving.title_of(drawing) == title.replace("\n", "; ")


def test_slanted_names_end_under_their_ticks():
    with plots.figure("title") as (_, (ax,)):
        ax.set_xticks(range(2), ["none", "power iteration"])
        plots.slanted(ax, 20)
    for place, label in enumerate(ax.get_xticklabels()):
        assert (label.get_ha(), label.get_rotation_mode(), label.get_rotation()) == ("right", "anchor", 20)
        assert label.get_position()[0] == place
