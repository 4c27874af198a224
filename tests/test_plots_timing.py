"""Timing figures show what they are given: spans where they were, crossings where the lines cross."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from splitlib import plots
from splitlib.pipeline.predict import Message, Work, break_even, predict
from splitlib.pipeline.remote.link import Link
from splitlib.plots import timing as plots_timing

RAW = Message(nbytes=10**6)
WORK = Work(
    head_forward=0.01, body_forward=0.02, tail_forward=0.01, tail_backward=0.01, body_backward=0.04, head_backward=0.02,
    activation_1=RAW, activation_2=RAW, gradient_2=RAW, gradient_1=RAW, client_optimizer=0.01,
)  # fmt: skip
MESSAGES = ("activation_1", "activation_2", "gradient_2", "gradient_1")
CODED = replace(WORK, **dict.fromkeys(MESSAGES, Message(nbytes=250_000, encode=0.01)))


@pytest.fixture
def ax():
    with plots.figure("demo") as (drawing, axes):
        yield axes[0]
        drawing.canvas.draw()
    plt.close(drawing)


def bars(ax, lane):
    names = [label.get_text() for label in ax.get_yticklabels()]
    middle = names.index(lane)
    return sorted(
        (bar.get_x(), bar.get_width()) for bar in ax.patches if bar.get_y() < middle < bar.get_y() + bar.get_height()
    )


def test_gantt_puts_each_span_in_its_line_at_its_time(ax):
    found = predict(WORK, chunks=2, link=Link(rate_mbit=100), schedule="gpipe")
    later = [replace(span, start=span.start + 100, end=span.end + 100) for span in found.spans]
    plots_timing.gantt(ax, later, kind="predicted")
    sent = [s for s in found.spans if s.side == "server" and s.activity == "send"]
    expected = [(1e3 * s.start, 1e3 * (s.end - s.start)) for s in sent]
    assert np.allclose(bars(ax, "server send"), expected), "time starts at the first span"
    assert ax.get_title("left") == f"predicted: {1e3 * found.seconds:,.0f} ms a batch"
    assert sum(width for _, width in bars(ax, "client compute")) == pytest.approx(1e3 * found.seconds)


def test_gantt_keys_what_it_shows_and_no_more(ax):
    found = predict(WORK, chunks=1, link=Link(rate_mbit=100))
    plots_timing.gantt(ax, [s for s in found.spans if s.activity == "send"], kind="simulated")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["forward", "backward"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["client send", "server send"]


@pytest.mark.parametrize(("share", "has_key"), [(0.0005, False), (0.005, True)])
def test_gantt_has_no_key_for_what_is_too_thin_to_see(ax, share, has_key):
    found = predict(WORK, chunks=1, link=Link(rate_mbit=100))
    kept = [span for span in found.spans if span.what != plots_timing.OPTIMIZER]
    step = replace(kept[-1], what=plots_timing.OPTIMIZER, start=found.seconds * (1 - share), end=found.seconds)
    plots_timing.gantt(ax, [*kept, step], kind="predicted")
    assert ("optimizer" in [text.get_text() for text in ax.get_legend().get_texts()]) == has_key


def test_crossings_lie_on_both_lines(ax):
    rates = list(np.geomspace(1, 1e5, 30))
    links = [Link(rate_mbit=rate) for rate in rates]
    works = {"none": WORK, "8 bits": CODED}
    lines = {name: [predict(work, chunks=2, link=link).seconds for link in links] for name, work in works.items()}
    times = pd.DataFrame(lines, index=rates)
    crossings = break_even(WORK, CODED, chunks=2, rates=rates)
    plots_timing.time_by_rate(ax, times, crossings={"8 bits": crossings}, kind="predicted")
    assert len(crossings) == 1
    (circle,) = [line for line in ax.lines if len(line.get_xdata()) == 1]
    link = Link(rate_mbit=crossings[0])
    for work in (WORK, CODED):
        seconds = predict(work, chunks=2, link=link).seconds
        assert circle.get_ydata()[0] == pytest.approx(1e3 * seconds, rel=0.1)
    assert "predicted" in ax.get_ylabel()


def test_bars_say_what_was_not_run(ax):
    heights = pd.DataFrame({1: [2.5, 0.5], 8: [2.0, np.nan]}, index=["none", "sort"])
    plots_timing.grouped_bars(ax, heights.rename_axis(columns="chunks"), kind="measured")
    assert [bar.get_height() for bar in ax.patches] == [2.5, 0.5, 2.0, 0.0]
    assert [text.get_text() for text in ax.texts] == ["2.50", "0.50", "2.00", "not run"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["chunks 1", "chunks 8"]


def test_a_mean_shows_its_runs_and_a_single_run_does_not(ax):
    runs = pd.DataFrame({"own": [[1.0, 4.0], [0.5]], "frozen": [[3.0], float("nan")]}, index=["none", "sort"])
    heights = pd.DataFrame({"own": [2.5, 0.5], "frozen": [3.0, float("nan")]}, index=runs.index)
    plots_timing.grouped_bars(ax, heights, kind="measured", runs=runs)
    assert [line.get_ydata().item() for line in ax.lines] == [1.0, 4.0]
    assert {text.get_text(): text.xy[1] for text in ax.texts}["2.50"] == 4.0, "above the highest point, not on it"


@pytest.mark.parametrize(("mbit", "text"), [(1, "1 Mbit/s"), (999.6, "1 Gbit/s"), (1e5, "100 Gbit/s")])
def test_rates_in_words(mbit, text):
    assert plots_timing.rate_text(mbit) == text


def test_panels_on_one_scale_show_which_batch_is_longer():
    with plots.figure("demo", columns=2) as (drawing, axes):
        for ax, rate in zip(axes, (100, 10), strict=True):
            found = predict(WORK, chunks=2, link=Link(rate_mbit=rate), schedule="gpipe")
            plots_timing.gantt(ax, found.spans, kind="predicted")
        (_, fast), (_, slow) = (ax.get_xlim() for ax in axes)
        plots_timing.on_one_scale(axes)
        assert fast < slow and [ax.get_xlim() for ax in axes] == [(0, slow)] * 2
    plt.close(drawing)
