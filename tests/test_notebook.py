"""What notebooks share: where figures go, which runs count as a document's own, and the pictures themselves."""

import dataclasses

import matplotlib
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from splitlib import experiment, notebook, plots
from splitlib.comparison import compare
from splitlib.config import RunConfig
from splitlib.errors import ConfigError, RecordError
from splitlib.files import write_text
from splitlib.measuring import breakdown
from splitlib.measuring.batches import measure_in_turn
from splitlib.measuring.stages import kept_stage_work
from splitlib.planner import plan
from splitlib.profiles import DOCUMENT_SETTINGS
from splitlib.results import record_path
from splitlib.runtime import figures_dir
from splitlib.tally import FILE_NAME, NOTEBOOK, PUBLISHING, RECORDED, RUN_DIR, count_records, note_record
from tests import support

matplotlib.use("Agg")
TINY = RunConfig(task="cola", chunks=2, batch_size=16, epochs=20)


def study_of(profile: str, **options) -> notebook.Study:
    """A study of the smallest kind."""
    return notebook.start("01_cola", profile=profile, **options)


def saved(study: notebook.Study, **options) -> list[str]:
    """Names of the figures kept after one was saved."""
    with plots.figure("a title") as (drawing, axes):
        axes[0].plot([1, 2])
    study.save_figure(drawing, "curves", **options)
    return sorted(path.name for path in figures_dir().glob("*")) if figures_dir().exists() else []


def test_only_records_means_that_nothing_is_trained_or_timed(monkeypatch):
    """Whoever would do it says that there is no record, and what to do."""
    monkeypatch.setenv(RECORDED, "1")
    study, row = study_of("smoke"), support.TINY
    assert study.run({"row": row}) == {"row": []}
    with pytest.raises(RecordError, match="no record of row, and --recorded trains nothing"):
        notebook.first_record(study.run({"row": row}))
    for asked, call in {
        "condition_1": lambda: experiment.run(row),
        "time per batch of row": lambda: measure_in_turn({"row": row}, devices=["cpu"]),
        "time of stages": lambda: kept_stage_work(row, device="cpu"),
        "layers and compressors": lambda: plan(row, device="cpu"),
        "2 replicas": lambda: breakdown.measure([]),
    }.items():
        with pytest.raises(RecordError, match=rf"{asked}.* has no record, and --recorded trains and times nothing"):
            call()
    monkeypatch.setenv(RECORDED, "0")
    made = experiment.run(row.replace(epochs=1))
    monkeypatch.setenv(RECORDED, "1")
    assert experiment.run(row.replace(epochs=1)) == made


def test_a_damaged_record_is_not_counted_as_found(monkeypatch, tmp_path):
    monkeypatch.setenv(RUN_DIR, str(tmp_path))
    write_text(record_path(support.TINY), "{}")
    with pytest.raises(RecordError, match="not a readable record"):
        experiment.run(support.TINY)
    assert not (tmp_path / FILE_NAME).exists()


def test_a_line_that_a_killed_kernel_left_unfinished_spoils_no_count(monkeypatch, tmp_path):
    """The next kernel's line goes on in it, and ends like a whole one."""
    monkeypatch.setenv(RUN_DIR, str(tmp_path))
    monkeypatch.setenv(NOTEBOOK, "01_cola")
    note_record("found", trained=False)
    with open(tmp_path / FILE_NAME, "a") as file:
        file.write('{"notebook": "01_cola", "k')
    note_record("lost", trained=True)
    note_record("made", trained=True)
    assert count_records(tmp_path, "01_cola") == (1, 1)


def test_names_in_a_parameter_are_known_ones():
    assert notebook.chosen("", ["cifar10", "cola"], "task") == ["cifar10", "cola"]
    assert notebook.chosen(" cola ,", ["cifar10", "cola"], "task") == ["cola"]
    with pytest.raises(ConfigError, match="unknown task 'rte'; choose from cifar10, cola"):
        notebook.chosen("cola,rte", ["cifar10", "cola"], "task")


def test_figures_of_embedded_and_real_data_never_share_a_name():
    assert saved(study_of("quick")) == ["01_curves_embedded.png", "01_curves_embedded.svg"]
    assert saved(study_of("real")) == [
        f"01_curves{kind}" for kind in (".png", ".svg", "_embedded.png", "_embedded.svg")
    ]
    assert study_of("quick", data="real").data == "real"


def test_a_figure_without_data_has_one_name():
    assert saved(study_of("quick"), data="none") == ["01_curves.png", "01_curves.svg"]


def test_a_figure_can_be_of_other_data_than_its_study():
    assert saved(study_of("real"), data="embedded") == ["01_curves_embedded.png", "01_curves_embedded.svg"]


def test_smoke_keeps_figures_only_in_the_run_folder(tmp_path, monkeypatch):
    assert saved(study_of("smoke")) == []
    monkeypatch.setenv(RUN_DIR, str(tmp_path / "run"))
    assert saved(study_of("smoke")) == []
    assert (tmp_path / "run" / "figures" / "01_curves_embedded.png").exists()


def test_a_first_look_keeps_figures_only_in_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(RUN_DIR, str(tmp_path / "run"))
    assert saved(study_of("quick", samples=96)) == []
    assert (tmp_path / "run" / "figures" / "01_curves_embedded.png").exists()


def test_the_projects_own_figures_of_real_data_are_drawn_only_where_all_records_are_shown(tmp_path, monkeypatch):
    """Any run of profile real, of one seed as well, drew over the committed ones."""
    (tmp_path / "run_all.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPLITLIB_FIGURES")
    monkeypatch.delenv(PUBLISHING, raising=False)
    monkeypatch.setenv(RUN_DIR, str(tmp_path / "run"))
    assert saved(study_of("real")) == saved(study_of("quick"), data="none") == []
    assert (tmp_path / "run" / "figures" / "01_curves.png").exists()
    assert saved(study_of("quick")) == ["01_curves_embedded.png", "01_curves_embedded.svg"]
    monkeypatch.setenv(PUBLISHING, "1")
    assert {"01_curves.png", "01_curves.svg"} < set(saved(study_of("real")))


def test_a_list_of_numbers_names_what_is_none():
    assert notebook.whole_numbers("", "widths") == []
    with pytest.raises(ConfigError, match="parameter 'widths' takes whole numbers such as 4,8, not '4,a'"):
        notebook.whole_numbers("4,a", "widths")


def test_a_study_runs_its_rows_and_tells_the_workbook(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setenv(RUN_DIR, str(tmp_path / "run"))
    monkeypatch.setenv("SPLITLIB_NOTEBOOK", "01_cola")
    study = study_of("smoke")
    rows = {"none": TINY, "sort": TINY.replace(compressor="sort")}
    runs = study.run(rows, seeds=2)
    assert {label: [r.config.seed for r in records] for label, records in runs.items()} == {
        "none": [0, 1],
        "sort": [0, 1],
    }
    assert count_records(tmp_path / "run", "01_cola") == (0, 4)
    table = study.measured(rows, runs)
    assert list(table["row_label"]) == ["none", "none", "sort", "sort"]
    assert not table["document_settings"].any(), "shrunk settings are not the document's"


def test_a_study_may_run_rows_smaller_than_its_profile():
    """The override wins over the profile, and such runs are never the document's own."""
    study, rows = study_of("smoke"), {"none": TINY}
    runs = study.run(rows, chunks=1, train_samples=32)
    (record,) = runs["none"]
    assert (record.config.chunks, record.config.train_samples) == (1, 32)
    assert record.config.epochs == study.scale(TINY).epochs
    assert not study.measured(rows, runs)["document_settings"].any()


def test_what_one_process_recorded_counts_for_two_machines_with_further_seeds(monkeypatch):
    """Once a row had one run in one notebook and three in another, though the engines give the same bits."""
    study, rows = study_of("smoke"), {"none": TINY.replace(engine="two_machines")}
    alone = study.run({"none": TINY}, seeds=2)
    monkeypatch.setenv(RECORDED, "1")
    first = dataclasses.replace(alone["none"][0], config=study.scale(rows["none"]))
    found = study.measured_by_either_engine(rows, {"none": [first]}, seeds=3)
    assert found["seed"].tolist() == [0, 1] and set(found["engine"]) == {"two_machines"}
    assert found["key"][0] == first.config.key, "its own record where there is one"
    assert study.measured_by_either_engine(rows, {"none": []}, seeds=3)["seed"].tolist() == [0, 1]
    assert study.measured_by_either_engine({"none": rows["none"].replace(lr=0.5)}, {"none": []}).empty


def test_a_reader_may_ask_for_fewer_samples_of_every_run():
    fewer = study_of("quick", samples=96).scale(TINY, train_samples=500)
    assert (fewer.train_samples, fewer.epochs) == (96, study_of("quick").scale(TINY).epochs)


def test_the_documents_settings_are_recognised(monkeypatch):
    """Only a run of exactly the document's config, on real data, may count as its reproduction."""
    study = study_of("smoke")
    runs = study.run({"row": TINY})
    document = runs["row"][0].config
    assert not study.measured({"row": document}, runs)["document_settings"].any(), "embedded data"
    real = dataclasses.replace(runs["row"][0], config=document.replace(data="real", seed=3))
    assert study.measured({"row": document}, {"row": [real]})["document_settings"].all(), "any seed will do"
    assert not study.measured({"row": document.replace(lr=0.5)}, {"row": [real]})["document_settings"].any()
    paper = notebook.get_profile("paper").scale(DOCUMENT_SETTINGS["cola"])
    assert paper == DOCUMENT_SETTINGS["cola"].replace(data="real")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"profile": "fast"}, "unknown profile 'fast'"),
        ({"profile": "quick", "data": "fake"}, "unknown data 'fake'"),
        ({"profile": "quick", "device": "tpu"}, "tpu"),
    ],
)
def test_wrong_parameters_are_one_line(options, words):
    with pytest.raises(ConfigError, match=words):
        notebook.start("01_cola", **options)


def test_settings_table_shows_only_what_differs():
    table = notebook.settings_table({"a": TINY, "b": TINY.replace(lr=1e-3)})
    assert list(table.index) == ["lr"]


def test_curves_have_a_line_for_each_label_and_say_what_collapsed():
    runs = study_of("smoke").run({"one": TINY, "two": TINY.replace(lr=1e-4)})
    with plots.figure("title") as (_, axes):
        plots.metric_by_epoch(axes[0], runs)
        labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
        assert len(axes[0].get_lines()) == 2
        assert axes[0].get_ylabel().endswith("[%]") and axes[0].get_xlabel() == "epoch"
    for (label, records), text in zip(runs.items(), labels, strict=True):
        assert text == f"{label}, n=1" + (", 1 collapsed" if records[0].collapsed else "")


def test_a_comparison_shows_spread_n_and_status_and_names_what_all_rows_share():
    study = study_of("smoke")
    rows = {"one": TINY, "two": TINY.replace(lr=1e-4)}
    measured = study.measured(rows, study.run(rows, seeds=2))
    reported = pd.DataFrame(
        {
            "document": "000",
            "section": "1",
            "curve": ["one", "two", "three"],
            "value": [60.0, 61, 62],
            "sd": [1.0, 2, 3],
        }
    )
    table = compare(
        reported, measured, on={"curve": "row_label"}, metric="value", measured_metric="best_percent", spread="sd",
        tolerance=1.0,
    )  # fmt: skip
    page = notebook.show_comparison(table).to_html()
    assert "60.00 ± 1.00" in page and "not run" in page and "reproduced" not in page
    caption = page[page.index("<caption>") : page.index("</caption>")]
    assert measured["data_label"][0] in caption and measured["hardware"][0] in caption


def test_a_comparison_shows_only_the_sizes_that_differ():
    table = pd.DataFrame({
        "row": ["a", "b", "c"], "metric": "accuracy", "reported": [60.0, 61.0, 62.0], "reported_sd": float("nan"),
        "source": "001", "measured": [50.0, 51.0, float("nan")], "measured_sd": float("nan"), "n": [1, 1, 0],
        "difference": [-10.0, -10.0, float("nan")], "size_text": ["64 px, batch 64", "64 px, batch 64 in 4", None],
        "collapsed": float("nan"), "status": ["differs", "differs", "not run"],
    })  # fmt: skip
    shown = notebook.show_comparison(table.set_axis([0, 1, 1]))  # as tables put together have it
    assert shown.data["size"].tolist()[:2] == ["batch 64", "batch 64 in 4"] and shown.caption == "accuracy; 64 px"
    columns = list(shown.data.columns)
    assert columns.index("status") == columns.index("measured") + 1 and "collapsed" not in columns


def test_what_names_all_rows_alike_is_said_once():
    table = pd.DataFrame({
        "table": "rates", "row": [1, 2], "row_label": ["a", "b"], "metric": "time_per_batch_s", "reported": [1.0, 2.0],
        "reported_sd": float("nan"), "source": "001", "measured": [1.0, 2.0], "measured_sd": float("nan"), "n": 1,
        "difference": 0.0, "collapsed": float("nan"), "status": "differs",
    })  # fmt: skip
    shown = notebook.show_comparison(table)
    assert shown.caption == "table rates; time per batch [s]"
    assert list(shown.data.columns[:2]) == ["row", "reported"] and shown.data["row"].tolist() == ["a", "b"]
    alone = notebook.show_comparison(table[:1])  # there all that names the row is shared
    assert list(alone.data.columns[:3]) == ["table", "row", "reported"]


def test_shares_fill_the_whole_bar():
    shares = pd.DataFrame({"head": [0.2, 0.1], "body": [0.5, 0.6], "tail": [0.3, 0.3]}, index=["a", "b"])
    with plots.figure("title") as (_, axes):
        plots.stacked_shares(axes[0], shares, colours={"head": "client", "body": "server", "tail": "client"})
        ends = [bar.get_x() + bar.get_width() for bar in axes[0].patches]
        colours = [bar.get_facecolor() for bar in axes[0].patches]
    assert ends[-2:] == pytest.approx([100, 100])
    assert colours[0] == colours[-1] != colours[2]


def test_a_range_that_was_not_run_says_so():
    ranges = pd.DataFrame({"low": [1.0, 2.0], "high": [3.0, 4.0]}, index=["a", "b"])
    with plots.figure("title") as (_, axes):
        plots.ranges_and_points(axes[0], ranges, {"a": [2.5]})
        assert [label.get_text() for label in axes[0].get_yticklabels()] == ["a", "b (not run)"]
        assert [list(line.get_xdata()) for line in axes[0].get_lines()] == [[2.5], []]


def test_an_error_a_user_can_act_on_is_one_line_in_a_cell(capsys):
    shell = InteractiveShell()
    shell.run_cell("from splitlib.errors import ConfigError\nraise ConfigError('bits must be from 1 to 16, not 99')")
    assert capsys.readouterr().out.strip() == "splitlib: error: bits must be from 1 to 16, not 99"
