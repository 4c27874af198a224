"""Bytes against accuracy: the rows, their summary, what the documents have on the same scale, and the headline."""

import dataclasses
import itertools
import re
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from splitlib import cli, frontier, results
from splitlib.cli.headline import SECTION, SIZE_SECTION, section_texts
from splitlib.errors import ConfigError, RecordError
from splitlib.files import replace_section
from splitlib.frontier.differences import Difference, differences, slope_of
from splitlib.plots import frontier as figures
from splitlib.profiles import get_profile
from tests.support import record

ROOT = Path(__file__).resolve().parent.parent
REAL = get_profile("real")


ANOTHER = itertools.count(1)


def runs_of(task, percents, **changes):
    """Records of a row that end at these percentages, one for each seed; each call's are of another row."""
    changes = changes or {"lr": 0.01 / next(ANOTHER)}
    config = REAL.scale(frontier.configs(task)["none"]).replace(**changes)
    made = []
    for seed, percent in enumerate(percents):
        base = record(config=config.replace(seed=seed), metric="matthews" if task == "cola" else "accuracy")
        last = dataclasses.replace(base.history[-1], matthews=percent / 100, accuracy=percent / 100)
        made.append(dataclasses.replace(base, history=(*base.history[:-1], last)))
    return made


@pytest.mark.parametrize("task", frontier.TASKS)
def test_every_row_is_another_run_and_can_run_at_every_profile(task):
    configs = frontier.configs(task)
    for profile in ("smoke", "quick", "real", "paper"):
        keys = {label: get_profile(profile).scale(config).key for label, config in configs.items()}
        assert len(set(keys.values())) == len(configs), keys
    assert next(iter(configs)) == frontier.NONE and configs[frontier.NONE].compressor == "none"


def test_repeated_rows_are_rows():
    assert set(frontier.REPEATED) <= {label for rows in frontier.ROWS.values() for label in rows}


def test_a_change_is_against_no_compression_and_no_loss_is_within_its_spread():
    runs = {"none": runs_of("cola", [60.0, 62.0]), "a": runs_of("cola", [59.5, 61.0]), "b": runs_of("cola", [58.0])}
    table = frontier.summary(runs).set_index("label")
    assert table["change"].tolist() == pytest.approx([0, -0.75, -3 + 0.75])  # the seed of `b` is the less kind
    assert table.loc["none", "sd"] == pytest.approx(2**0.5)
    assert table["no_loss"].tolist() == [True, True, False]
    assert table["n"].tolist() == [2, 2, 1]


def test_a_change_is_corrected_for_what_the_seeds_do_to_all_rows():
    """The two seeds of `b` are the kinder ones of none, and a run follows its seed by nine tenths."""
    runs = {
        "none": runs_of("cola", [70.0, 60.0, 50.0]),
        "a": runs_of("cola", [69.0]),
        "b": runs_of("cola", [68.0, 59.0]),
    }
    table = frontier.summary(runs).set_index("label")
    assert table["change"].tolist() == pytest.approx([0, 9 - 0.9 * 10, 3.5 - 0.9 * 5])
    error = (0.1**2 * 100 / 3) ** 0.5  # of none's mean, as far as it counts: what is left of `b` has no scatter
    assert table["change_se"].tolist() == pytest.approx([0, float("nan"), error], nan_ok=True)
    lines = frontier.markdown("cola", runs).splitlines()
    assert "| 60.0 ± 10.0 (3) | – |" in lines[-3] and "| 63.5 ± 6.4 (2) | -1.0 ± 0.6 |" in lines[-1]


def test_seeds_that_say_nothing_leave_a_difference_of_means():
    base = pd.Series([50.0, 60.0, 50.0, 60.0])
    row = pd.Series([40.0, 40.0, 44.0, 44.0])
    assert slope_of([row], base) == 0
    change = differences({"a": row}, base, ["a"])["a"]
    assert change.mean == -13 and change.error == pytest.approx((row.var() / 4 + base.var() / 4) ** 0.5)


def test_seeds_that_say_all_leave_a_difference_of_pairs():
    base = pd.Series([50.0, 60.0, 70.0])
    rows = {"a": base - 1, "b": base[:2] - 2}
    found = differences(rows, base, list(rows))
    assert found == {"a": Difference(-1.0, 0.0), "b": Difference(-2.0, 0.0)}


def test_scatter_small_by_chance_counts_as_the_median_rows():
    base = pd.Series([50.0, 50.0, 50.0])
    rows = {"still": pd.Series([49.0, 49.0, 49.0]), "b": pd.Series([48.0, 49.0, 50.0]), "c": pd.Series([45, 49, 53.0])}
    errors = [found.error for found in differences(rows, base, list(rows)).values()]
    assert errors == pytest.approx([1 / 3**0.5, 1 / 3**0.5, 4 / 3**0.5])
    alone = differences(rows, base, [])  # no row came to something: each has its own scatter
    assert alone["still"].error == 0


def test_rows_that_send_the_same_levels_share_their_runs():
    """What a lossless stage changes is the bytes: the same seed once, as the mean of what its runs came to."""

    def coded(percents, seeds, sent, **options):
        made = runs_of("cola", percents, compressor="sort", compressor_options={"bin_bits": 1, **options})
        pairs = zip(made, seeds, strict=True)
        counted = {"activation_bytes": sent, "gradient_bytes": 0, "uncompressed_bytes": 100}
        return [dataclasses.replace(run, config=run.config.replace(seed=seed), **counted) for run, seed in pairs]

    runs = {
        "none": runs_of("cola", [60.0, 62.0, 61.0]),
        "zstd": coded([50.0, 52.0, 54.0], (0, 1, 2), 10, zstd=3),
        "in context": coded([58.0], (2,), 5, codes="context"),
        "other levels": coded([40.0], (0,), 2, level_bits=1),
    }
    named = {"gradient_compressor": "sort", "gradient_options": {"bin_bits": 1, "codes": "context"}}
    runs["both named"] = [dataclasses.replace(run, config=run.config.replace(**named)) for run in runs["in context"]]
    table = frontier.summary(runs).set_index("label")
    assert table["n"].to_dict() == {"none": 3, "zstd": 3, "in context": 3, "both named": 3, "other levels": 1}
    mean = (50 + 52 + (54 + 58 + 58) / 3) / 3
    assert table.loc[["zstd", "in context"], "percent"].tolist() == pytest.approx([mean, mean])
    assert table["ratio"].tolist()[1:] == pytest.approx([0.1, 0.05, 0.05, 0.02])


def test_a_bound_says_what_is_certain_of_a_change():
    """Runs of no compression that scatter by 2 at slope 0: the errors add up, and Student's t of two runs is wide."""
    base, row = [58.0, 60.0, 62.0], [57.0, 61.0]
    table = frontier.summary({"none": runs_of("cola", base), "a": runs_of("cola", row)}).set_index("label")
    change, error, bound = table.loc["a", ["change", "change_se", "change_bound"]]
    assert (change - bound) / error == pytest.approx(3.078, abs=1e-3)  # of one degree of freedom, in any table of t
    assert pd.isna(frontier.summary({"none": runs_of("cola", base[:1])})["change_bound"]).all()


def test_changes_are_not_judged_by_a_metric_of_other_bits():
    runs = {
        "none": runs_of("cola", [58.0, 60.0]),
        "change": runs_of("cola", [60.0, 61.0], compressor="sort", coding="change"),
    }
    row = frontier.summary(runs).set_index("label").loc["change"]
    assert pd.isna(row["change"]) and row["no_loss"] is None and row["trains_alike"] is None and row["loss"] == 0
    line = frontier.markdown("cola", runs).splitlines()[-1]
    assert line.endswith(
        "| 60.5 ± 0.7 (2) | – | +0 ± 0 % | – | evaluated with other bits: its metric does not compare |"
    )


def test_bytes_are_also_told_of_the_real_tokens_alone():
    sent = {"none": 90, "none, no padding": 30, "a": 3, "b": 15}
    runs = {
        label: [dataclasses.replace(r, activation_bytes=count, gradient_bytes=0, uncompressed_bytes=90)]
        for label, count in sent.items()
        for r in runs_of("cola", [19.0], padding="skipped" if "padding" in label else "sent")
    }
    lines = frontier.markdown("cola", runs).splitlines()[2:]
    assert "| bytes sent / uncompressed | / real tokens alone |" in lines[0]
    assert {line.split(" | ")[0].strip("| "): line.split(" | ")[2] for line in lines[2:]} == {
        "none": "3.00", "none, no padding": "1.00", "b": "0.50", "a": "1/10",
    }  # fmt: skip
    assert "real tokens" not in frontier.markdown("cola", {"none": runs["none"]})


def test_the_answer_is_the_fewest_bytes_of_rows_with_several_runs():
    base = runs_of("cola", [60.0, 62.0])
    lean = [dataclasses.replace(r, activation_bytes=1, gradient_bytes=1) for r in runs_of("cola", [61.0, 61.0])]
    leaner = [dataclasses.replace(r, activation_bytes=1, gradient_bytes=0) for r in runs_of("cola", [61.0])]
    bad = [dataclasses.replace(r, activation_bytes=1, gradient_bytes=0) for r in runs_of("cola", [50.0, 50.0])]
    whole = [dataclasses.replace(r, activation_bytes=50, gradient_bytes=50) for r in base]
    rows = {"none": whole, "lean": lean, "leaner, one run": leaner, "loses": bad}
    assert "by the metric **1/50** with a standard error to spare (lean, n=2); " in frontier.answer(
        frontier.summary(rows)
    )
    assert "leaner" in frontier.answer(frontier.summary({"none": whole, "leaner": leaner}))
    assert frontier.answer(frontier.summary({"none": whole, "loses": bad})) == "No row is known to lose nothing."


def test_a_row_trains_alike_if_its_loss_is_within_the_spread_too():
    """A validation set may hide in its scatter what the training loss shows."""

    def ends_at(runs, losses, nbytes):
        pairs = zip(runs, losses, strict=True)
        ends = [(run, dataclasses.replace(run.last, train_loss=loss)) for run, loss in pairs]
        sent = {"activation_bytes": nbytes, "gradient_bytes": 0, "uncompressed_bytes": 100}
        return [dataclasses.replace(run, history=(*run.history[:-1], last), **sent) for run, last in ends]

    same = [60.0, 62.0]
    runs = {
        "none": ends_at(runs_of("cola", same), [0.4, 0.5], 100),
        "alike": ends_at(runs_of("cola", [62.0, 62.0]), [0.40, 0.42], 4),
        "worse": ends_at(runs_of("cola", [62.0, 62.0]), [0.5, 0.6], 2),
        "below": ends_at(runs_of("cola", [50.0, 50.0]), [0.4, 0.5], 1),
    }
    table = frontier.summary(runs).set_index("label")
    assert table["no_loss"].tolist() == [True, True, True, False]
    assert table["trains_alike"].tolist() == [True, True, False, False]
    assert table["loss"].tolist() == pytest.approx([0, -0.04 / 0.45, 0.1 / 0.45, 0])
    slope = (0.02 + 0.1 + 0.1) / (3 * 0.1)
    of_none = ((1 - slope) * 0.1) ** 2 / 4
    scatter = [abs(apart - slope * 0.1) for apart in (0.02, 0.1, 0.1)]  # of two runs
    errors = [0, *((apart**2 / 4 + of_none) ** 0.5 for apart in scatter)]
    assert table["loss_se"].tolist() == pytest.approx([error / 0.45 for error in errors])
    text = frontier.markdown("cola", runs)
    spare = "with a standard error to spare"
    assert (
        f"by the metric **1/50** {spare} (worse, n=2); by the training loss too **1/25** {spare} (alike, n=2)." in text
    )
    ends = [line.rsplit("|", 4)[1:] for line in text.splitlines()[-3:]]
    assert ends[0][0] == " -9 ± 7 % " and ends[0][2] == " within one sd of none "
    assert ends[1][0] == " +22 ± 4 % " and ends[1][2] == " within one sd, its training loss is not "
    assert ends[2][0] == " +0 ± 4 % " and ends[2][2] == " more than one sd below none "


def test_a_standard_error_to_spare_is_more_than_a_mean():
    """Runs without compression have a standard deviation of 1.8; all rows lose one, but one of them scatters."""
    percents = [58.0, 60.0, 62.0, 58.0, 60.0, 62.0]
    base = [dataclasses.replace(r, activation_bytes=50, gradient_bytes=50) for r in runs_of("cola", percents)]
    lose_one = {"scattered": [61.0, 55.0, 61.0], "steady": [59.0] * 3, "steady too": [59.0] * 3}
    runs = {
        label: [dataclasses.replace(r, activation_bytes=nbytes, gradient_bytes=0) for r in runs_of("cola", percents)]
        for nbytes, (label, percents) in enumerate(lose_one.items(), start=1)
    }
    table = frontier.summary({"none": base, **runs}).set_index("label")
    assert table["change"].tolist() == pytest.approx([0, -1, -1, -1])
    assert table["no_loss"].all() and table["no_loss_to_spare"].to_dict() == {
        "none": True, "steady": True, "steady too": True, "scattered": False,
    }  # fmt: skip
    text = frontier.answer(table.reset_index())
    assert "metric **1/100** (scattered, n=3) and **1/50** with a standard error to spare (steady, n=3); by" in text


def test_one_run_without_compression_has_no_spread_to_judge_by():
    table = frontier.summary({"none": runs_of("cola", [60.0]), "a": runs_of("cola", [60.0]), "not run": []})
    assert table["no_loss"].tolist() == [None, None] and list(table["label"]) == ["none", "a"]


def test_no_compression_in_other_bytes_is_no_other_row():
    """It shares the runs of none, differs by nothing, and does not tell how far a run follows its seed."""
    runs = {
        "none": runs_of("cola", [60.0, 62.0, 64.0], padding="sent"),
        "none, no padding": runs_of("cola", [60.0, 62.0], padding="skipped"),
        "a": runs_of("cola", [61.0, 61.0], compressor="sort"),
    }
    table = frontier.summary(runs).set_index("label")
    row = table.loc["none, no padding"]
    assert row["n"] == 3 and row["change"] == row["change_se"] == row["loss"] == 0
    assert table.loc["a", "change"] == pytest.approx(61 - 62), "a slope of 0"


@pytest.mark.parametrize("runs", [{}, {"none": []}, {"none": [], "a": runs_of("cola", [60.0])}])
def test_nothing_to_compare_with_is_one_clear_line(runs):
    with pytest.raises(RecordError, match="no record of the row 'none', with which the others are compared"):
        frontier.summary(runs)


def test_runs_that_predict_one_class_are_no_measure():
    runs = {"none": runs_of("cola", [0.0, 0.0]), "a": runs_of("cola", [0.0])}
    for run in (*runs["none"], *runs["a"]):
        object.__setattr__(run, "history", (dataclasses.replace(run.last, predicted_classes=1),))
    table = frontier.summary(runs)
    assert table["no_loss"].tolist() == [None, None] and table["collapsed"].tolist() == [2, 1]
    assert frontier.answer(table) == "No row is known to lose nothing."


@pytest.mark.parametrize(
    ("fate", "all_words", "some_words"),
    [
        ("predicted_classes", "predicts one class", "1 of 2 predicts one class"),
        ("diverged", "diverged", "1 of 2 diverged"),
    ],
)
def test_a_row_that_failed_never_answers(fate, all_words, some_words):
    """Not even where the runs without compression scatter so much that nothing is below their spread."""

    def failed(run):
        if fate == "diverged":
            return dataclasses.replace(run, diverged=True)
        last = dataclasses.replace(run.last, predicted_classes=1)
        return dataclasses.replace(run, history=(*run.history[:-1], last))

    base = [dataclasses.replace(r, activation_bytes=50, gradient_bytes=50) for r in runs_of("cola", [0.0, 6.0, 0.5])]
    lean, other = (
        [dataclasses.replace(r, activation_bytes=1, gradient_bytes=0) for r in runs_of("cola", [0.0, 0.0], **codec)]
        for codec in ({}, {"compressor": "uniform"})
    )
    rows = {"none": base, "all": [failed(r) for r in lean], "some": [failed(other[0]), other[1]]}
    table = frontier.summary(rows)
    assert table["no_loss"].tolist() == [True, False, False]
    assert frontier.answer(table) == "No row is known to lose nothing."
    lines = frontier.markdown("cola", rows).splitlines()
    assert lines[-2].endswith(f"| {all_words} |") and lines[-1].endswith(f"| {some_words} |")


def test_published_rows_are_all_that_give_a_ratio_and_an_accuracy():
    cola, cifar10 = (frontier.published(task) for task in frontier.TASKS)
    assert len(cola) == 4 + 14 + 4 + 2 and len(cifar10) == 12 + 8 + 4 + 3 + 14 + 9 - 3
    assert cifar10["ratio"].min() == 0.038, "a row whose ratio stands in another table"
    sort = cola[cola["method"] == "sort"].set_index("ratio")["change"]
    assert sort[0.125] == -64.5 and sort[0.25] == pytest.approx(-1.3)
    assert cifar10[cifar10["ratio"] == 1.0]["change"].abs().max() < 0.1
    assert not cola["change"].isna().any() and not cifar10["change"].isna().any()


def test_a_section_without_a_nearly_whole_row_is_measured_against_those_of_all_others():
    cola = frontier.published("cola")
    whole = cola[(cola["ratio"] >= 1) & (cola["metric"] == "accuracy")]["percent"].mean()
    narrow = cola[cola["source"] == "003 §2.2"]
    assert narrow["ratio"].max() < 0.5
    assert narrow["change"].tolist() == pytest.approx((narrow["percent"] - whole).tolist())


def test_the_frontier_shows_spread_verdict_and_name_of_every_row():
    told = pd.DataFrame({"method": ["sort"], "metric": ["accuracy"], "ratio": [0.25], "change": [-1.3]})
    ours = pd.DataFrame({
        "label": ["once", "a", "b", "c", "d"], "ratio": [0.8, 0.1, 0.05, 0.04, 0.03], "n": [1, 4, 2, 2, 2],
        "change": [0.0, -1.0, -1.0, -9.0, -9.0], "change_se": [float("nan"), 0.5, 0.5, 0.5, 0.5],
        "collapsed": [0, 0, 0, 0, 1], "diverged": 0,
        "no_loss": [None, True, True, False, False], "trains_alike": [None, True, False, False, False],
    })  # fmt: skip
    drawing = Figure(layout="constrained")
    ax = drawing.subplots()
    figures.frontier(ax, told, ours, goal=0.05, spread=1.5)
    first = ax.collections[0]
    assert [band.get_y() for band in ax.patches] == [-1.5] and [band.get_height() for band in ax.patches] == [3.0]
    assert first.get_segments()[0].tolist() == [[0.1, -1.5], [0.1, -0.5]] and len(ax.collections) == 4
    (legend,) = drawing.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "reported: sort", "within one standard deviation of none", "within it by the metric, not by the training loss",
        "more than one standard deviation below", "a run predicts one class or diverged",
        "not known: no spread to judge by", "one standard deviation of none",
    ]  # fmt: skip
    assert [name.get_text() for name in ax.texts] == ["d, n=2", "c, n=2", "b, n=2", "a, n=4"]
    assert len({name.get_color() for name in ax.texts}) == 4
    points = [line for line in ax.lines if len(line.get_xdata()) == 1 and line.get_marker() in "os^XD"][1:]
    assert [point.get_markerfacecolor() == "white" for point in points] == [True, False, False, False, False]
    assert len({point.get_color() for point in points}) == 5, "what cannot be judged is not drawn as without loss"
    figures.frontier(alone := Figure().subplots(), told, ours[:1], goal=0.05, spread=1.5)
    assert [name.get_text() for name in alone.texts] == ["once"]
    figures.frontier(other := Figure().subplots(), told, ours, goal=0.05, spread=float("nan"))
    assert not other.patches


def test_shares_of_a_row_stand_behind_each_other():
    ax = Figure().subplots()
    shares = pd.DataFrame({"activations": [0.5, 0.25], "gradients": [0.5, 0.125]}, index=["none", "a"])
    figures.bytes_by_row(ax, shares, goal=0.05)
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [(0, 0.5), (0, 0.25), (0.5, 0.5), (0.25, 0.125)]


def test_the_headline_has_the_documents_rows_beside_the_measured_ones():
    label = "sort 4 (the documents')"
    table = frontier.headline("cola", {"none": runs_of("cola", [60.0]), label: runs_of("cola", [0.0])})
    row = table.set_index("label").loc[label]
    assert row["reported_change"] == -64.5 and row["source"] == "001 §2.2" and row["change"] == -60.0
    assert table.set_index("label").loc["none", "source"] == ""


def test_the_most_bytes_stand_first():
    sent = {"none": 100, "few": 4, "many": 25}
    base = runs_of("cola", [19.6])[0]
    runs = {
        label: [dataclasses.replace(base, activation_bytes=count, gradient_bytes=0, uncompressed_bytes=100)]
        for label, count in sent.items()
    }
    assert frontier.summary(runs)["label"].tolist() == ["none", "many", "few"]
    lines = frontier.markdown("cola", runs).splitlines()[-3:]
    assert [line.split(" | ")[1] for line in lines] == ["1.0000", "0.2500 (1/4)", "0.0400 (1/25)"]


def test_a_brief_headline_has_the_rows_that_answer_and_counts_the_others():
    label = "sort 4 (the documents')"
    runs = {"none": [19.6, 20.4], "worse": [10.0, 10.2], "level": [19.8, 20.0], "once": [19.9], label: [0.0]}
    sent = {"none": 100, "worse": 4, "level": 10, "once": 3, label: 12}
    made = {
        name: [
            dataclasses.replace(record, activation_bytes=sent[name], gradient_bytes=0, uncompressed_bytes=100)
            for record in runs_of("cola", percents)
        ]
        for name, percents in runs.items()
    }
    labels = [line.split(" |")[0] for line in frontier.markdown("cola", made, brief=True).splitlines()[4:]]
    assert labels == ["| none", f"| {label}", "| level", "", "2 more rows stand in notebook 11."]
    without = {name: records for name, records in made.items() if name in ("none", "worse")}
    assert frontier.markdown("cola", without, brief=True) == frontier.markdown("cola", without), "no row answers"


def test_each_section_is_written_into_the_page_that_has_its_marks(tmp_path):
    pages = [tmp_path / name for name in ("first.md", "second.md")]
    for page, section in zip(pages, (SECTION, SIZE_SECTION), strict=True):
        page.write_text(f"<!-- {section}: begin -->\nold\n<!-- {section}: end -->\n", encoding="utf-8")
    for made in runs_of("cola", [19.6, 20.4], seed=0):
        results.save_record(made)
    assert cli.main(["headline", "--write", *map(str, pages)]) == 0
    assert "| none |" in pages[0].read_text(encoding="utf-8")
    assert "| CoLA |" in pages[1].read_text(encoding="utf-8")


def test_the_headline_names_all_hardware():
    made = runs_of("cola", [19.6, 20.4])
    elsewhere = dataclasses.replace(made[1], environment={**made[1].environment, "hardware": "another machine"})
    text = frontier.markdown("cola", {"none": [made[0]], "sort 8": [elsewhere]})
    assert f"; on {made[0].environment['hardware']} or another machine. Measured" in text


def test_the_headline_comes_from_records_alone(tmp_path, capsys):
    page = tmp_path / "page.md"
    marks = [f"<!-- {name}: begin -->\nold\n<!-- {name}: end -->\n" for name in (SIZE_SECTION, SECTION)]
    page.write_text(f"above\n{''.join(marks)}below\n", encoding="utf-8")
    assert cli.main(["headline", "--write", str(page)]) == 2
    assert "no records of the frontier at profile real" in capsys.readouterr().err
    for made in runs_of("cola", [19.6, 20.4], seed=0):
        results.save_record(made)
    assert cli.main(["headline", "--write", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("above\n") and text.endswith("below\n") and "old" not in text
    assert "| none | 1.0000 | 20.0 ± 0.6 (2) |" in text or re.search(
        r"\| none \| [\d.]+ \| 20\.0 ± 0\.6 \(2\) \|", text
    )


def test_a_page_without_the_marks_stays_as_it_is(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing here\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="needs the marks"):
        replace_section(page, SECTION, "text")
    assert page.read_text(encoding="utf-8") == "nothing here\n"
    with pytest.raises(ConfigError, match="cannot read"):
        replace_section(tmp_path / "none.md", SECTION, "text")


def test_the_readmes_numbers_are_those_of_the_committed_records(monkeypatch):
    """No number is typed by hand."""
    monkeypatch.setenv("SPLITLIB_RESULTS", str(ROOT / "results"))
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "README.md", ROOT / "results" / "README.md"))
    for section, text in section_texts("real").items():
        shown = pages.split(f"<!-- {section}: begin -->\n")[1].split(f"<!-- {section}: end -->")[0]
        assert text and shown.strip() == text.strip()
