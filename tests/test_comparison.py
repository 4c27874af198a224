"""The reported-against-measured table and the rule behind its status column."""

import math
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitlib import reported
from splitlib.comparison import NOISE_CAP, compare, sending_as_reported, status
from splitlib.config import RunConfig
from splitlib.errors import ConfigError

STATUSES = {"not run", "not reported", "reproduced", "trend only", "differs"}
DOCUMENT = reported.load("001_2.2_cola_sort")
ASK: dict[str, Any] = {"on": ["bits"], "metric": "matthews_percent", "tolerance": 0.5, "spread": "matthews_sd"}
BASELINE = {"bits": 16}


def run(bits: int, percent: float, **changes: Any) -> dict[str, Any]:
    """One measured row, by default real data under the document's own settings."""
    row = {"bits": bits, "matthews_percent": percent, "data": "real", "document_settings": True, "collapsed": False}
    return {**row, **changes}


def embedded(bits: int, percent: float, **changes: Any) -> dict[str, Any]:
    return run(bits, percent, **{"data": "embedded", "document_settings": False, **changes})


def compared(*rows: dict[str, Any], **changes: Any) -> pd.DataFrame:
    return compare(DOCUMENT, pd.DataFrame(list(rows)), **{**ASK, **changes}).set_index("bits")


# --- The rule --------------------------------------------------------------------------------------------------------


def judge(reported: float, measured: float, **changes: Any) -> str:
    return status(reported, measured, **{"tolerance": 0.5, "data": "real", "document_settings": True, **changes})


def test_each_status_is_reachable() -> None:
    assert judge(90.0, math.nan) == "not run"
    assert judge(math.nan, 90.0) == "not reported"
    assert judge(90.0, 90.4) == "reproduced"
    assert judge(90.0, 95.0, reported_change=-2.0, measured_change=-9.0) == "trend only"
    assert judge(90.0, 95.0, reported_change=-2.0, measured_change=9.0) == "differs"


def test_the_limit_itself_is_within_in_spite_of_rounding() -> None:
    assert 16.1 - 15.6 > 0.5
    assert judge(15.6, 16.1) == "reproduced"
    assert judge(90.0, 95.0, reported_change=0.2, measured_change=16.1 - 15.6) == "trend only"


@pytest.mark.parametrize(
    ("reported_change", "measured_change", "agree"),
    [
        (-2.0, -0.6, True),
        (2.0, 30.0, True),
        (0.4, -0.4, True),
        (0.5, 0.0, True),
        (0.3, 0.7, True),  # no change and a rise, but nearer to each other than the tolerance
        (-0.7, -0.2, True),
        (0.3, 0.9, False),
        (-0.2, 0.6, False),
        (-0.1, -30.0, False),  # the document saw no change, we saw a collapse
        (-30.0, -0.1, False),
        (2.0, -2.0, False),
        (math.nan, -2.0, False),
        (-2.0, math.nan, False),
    ],
)
def test_a_trend_is_a_rise_a_fall_or_no_change(reported_change: float, measured_change: float, agree: bool) -> None:
    found = judge(50.0, 70.0, reported_change=reported_change, measured_change=measured_change)
    assert found == ("trend only" if agree else "differs")


@given(st.floats(-10, 10), st.floats(-1, 1), st.floats(0.01, 1))
def test_changes_that_agree_within_the_tolerance_never_differ(change: float, apart: float, tolerance: float) -> None:
    """Once +9.1 % reported and +10.0 % measured did, under a tolerance of a tenth."""
    both = {"reported_change": change, "measured_change": change + apart * tolerance}
    assert judge(50.0, 70.0, tolerance=tolerance, **both) == "trend only"


def test_noise_widens_the_tolerance_but_only_so_far() -> None:
    assert judge(60.0, 61.2) == "differs"
    assert judge(60.0, 61.2, noise=0.6) == "reproduced"
    assert judge(60.0, 60.0 + NOISE_CAP * 0.5, noise=40.0) == "reproduced"
    assert judge(60.0, 60.1 + NOISE_CAP * 0.5, noise=40.0) == "differs"


@pytest.mark.parametrize("changes", [{"data": "embedded"}, {"document_settings": False}])
def test_the_same_number_on_other_data_or_settings_is_not_reproduced(changes: dict[str, Any]) -> None:
    assert judge(60.0, 60.0, **changes) == "differs"


any_number = st.floats(-1e6, 1e6) | st.just(math.nan)


@given(
    any_number,
    any_number,
    st.fixed_dictionaries(
        {
            "tolerance": st.floats(1e-3, 1e3),
            "data": st.sampled_from(["real", "embedded", "none"]),
            "document_settings": st.booleans(),
            "noise": st.floats(0, 1e3),
            "reported_change": any_number,
            "measured_change": any_number,
        }
    ),
)
def test_the_rule_is_total_and_embedded_data_never_reproduces(
    reported: float, measured: float, rest: dict[str, Any]
) -> None:
    found = status(reported, measured, **rest)
    assert found in STATUSES
    assert found != "reproduced" or (rest["data"] != "embedded" and rest["document_settings"])


# --- The table -------------------------------------------------------------------------------------------------------


def test_every_reported_row_is_there_in_order_when_nothing_was_run() -> None:
    table = compare(DOCUMENT, pd.DataFrame(), **ASK)
    assert table["bits"].tolist() == [16, 12, 8, 4]
    assert table["reported"].tolist() == [64.5, 63.93, 63.20, 0]
    assert set(table["status"]) == {"not run"}
    assert table["n"].tolist() == [0, 0, 0, 0]
    assert set(table["source"]) == {"001 §2.2"}


def test_seeds_become_mean_sample_deviation_and_n() -> None:
    table = compared(run(16, 64.0, seed=0), run(16, 65.0, seed=1), run(16, 66.0, seed=2), run(12, 63.9, seed=0))
    assert table[["measured", "measured_sd", "n"]].to_numpy()[0].tolist() == [65.0, 1.0, 3]
    assert table.loc[16, "difference"] == pytest.approx(0.5)
    assert table.loc[12, "n"] == 1
    assert table["measured_sd"].isna().tolist() == [False, True, True, True]
    assert table["status"].tolist() == ["reproduced", "reproduced", "not run", "not run"]


def test_the_tolerance_is_in_the_metrics_unit() -> None:
    table = compared(run(16, 64.9), run(12, 63.93 - 0.7), spread=None)
    assert table.loc[[16, 12], "status"].tolist() == ["reproduced", "differs"], "0.4 and 0.7 away"


def test_the_noise_is_the_reported_spread_and_the_error_of_the_measured_mean() -> None:
    rows = [run(16, value, seed=seed) for seed, value in enumerate((65.1, 65.6, 66.1))]
    # 1.1 apart; 2 * hypot(0.48, 0.5 / sqrt(3)) is 1.12, and neither alone is enough
    assert compared(*rows).loc[16, "status"] == "reproduced"
    assert compared(*rows, spread=None).loc[16, "status"] == "differs"
    assert compared(run(16, 65.6)).loc[16, "status"] == "differs"
    further = [run(16, value, seed=seed) for seed, value in enumerate((65.2, 65.7, 66.2))]
    assert compared(*further).loc[16, "status"] == "differs", "1.2 is within twice hypot(0.48, 0.5)"


def test_the_same_samples_are_one_kind_of_data_wherever_they_came_from() -> None:
    rows = [run(16, 65.0), run(8, 64.0), run(8, 63.0, seed=1)]
    for row, label in zip(rows, ("from a mirror", "from the hub", "from a mirror"), strict=True):
        row |= {"data_label": label, "data_fingerprint": "same"}
    table = compared(*rows, baseline=BASELINE)
    assert table.loc[8, "n"] == 2 and table.loc[8, "measured_change"] == -1.0
    rows[1]["data_fingerprint"] = "other"
    assert compared(*rows, baseline=BASELINE).loc[8, "n"].tolist() == [1, 1]


def test_processors_are_part_of_the_spread_of_accuracies_and_apart_for_times() -> None:
    rows = [run(16, 65.0, hardware="A"), run(8, 64.0, hardware="A"), run(8, 63.0, hardware="B", seed=1)]
    table = compared(*rows, baseline=BASELINE)
    assert table.loc[8, "n"] == 2 and table.loc[8, "measured_change"] == -1.0
    assert table["hardware"].fillna("").tolist() == ["A", "", "A or B", ""]
    above_0 = DOCUMENT[DOCUMENT["matthews_percent"] > 0]
    times = compare(above_0, pd.DataFrame(rows), **ASK, baseline=BASELINE, relative=True).set_index("bits")
    assert times.loc[8, "n"].tolist() == [1, 1] and times.loc[8, "hardware"].tolist() == ["A", "B"]
    assert times.loc[8, "measured_change"].isna().tolist() == [False, True], "the baseline ran on A alone"


def test_trends_are_against_the_measured_baseline() -> None:
    table = compared(embedded(16, 80.0), embedded(12, 79.0), embedded(8, 85.0), embedded(4, 3.0), baseline=BASELINE)
    assert table["status"].tolist() == ["differs", "trend only", "differs", "trend only"]
    assert table["measured_change"].tolist()[1:] == [-1.0, 5.0, -77.0]
    assert table["reported_change"].tolist()[1:] == pytest.approx([-0.57, -1.3, -64.5])
    assert table.loc[16, ["reported_change", "measured_change"]].isna().all()


def test_a_change_is_between_runs_of_one_seed() -> None:
    """A baseline with further seeds, lucky or not, changes no row that has not run them."""
    rows = [embedded(16, 80.0, seed=0), embedded(16, 60.0, seed=1), embedded(8, 79.0, seed=0)]
    table = compared(*rows, embedded(4, 50.0, seed=2), baseline=BASELINE)
    assert table["measured"].tolist()[0] == 70.0 and table.loc[8, "measured_change"] == -1.0
    assert math.isnan(table.loc[4, "measured_change"]) and table.loc[4, "status"] == "differs"


def test_without_a_measured_baseline_there_is_no_trend() -> None:
    assert compared(embedded(4, 3.0), baseline=BASELINE).loc[4, "status"] == "differs"
    assert compared(embedded(16, 80.0), embedded(4, 3.0)).loc[4, "status"] == "differs"


def test_the_baseline_of_other_runs_does_not_count() -> None:
    table = compared(embedded(16, 80.0, model="tiny"), embedded(4, 3.0, model="other"), baseline=BASELINE)
    assert table.loc[4, "status"] == "differs"


def test_a_collapsed_run_is_counted_and_a_collapsed_baseline_has_no_trends() -> None:
    rows = [embedded(16, 0.0, collapsed=True, seed=0), embedded(16, 0.0, seed=1), embedded(4, -9.0, collapsed=True)]
    table = compared(*rows, baseline=BASELINE)
    assert table["collapsed"].tolist() == [1, pd.NA, pd.NA, 1]
    assert table.loc[4, "status"] == "differs"


def test_runs_of_another_origin_get_a_row_of_their_own() -> None:
    table = compare(DOCUMENT, pd.DataFrame([embedded(8, 90.0), run(8, 63.2)]), **ASK)
    assert table["bits"].tolist() == [16, 12, 8, 8, 4]
    assert table["data"].tolist()[2:4] == ["embedded", "real"]
    assert table["status"].tolist()[2:4] == ["differs", "reproduced"]


def test_runs_that_differ_in_a_setting_are_not_averaged() -> None:
    with pytest.raises(ConfigError, match=r"differ in lr \(0.1, 0.2\)"):
        compared(run(8, 60.0, lr=0.1, seed=0), run(8, 61.0, lr=0.2, seed=1))
    options = [{"level_bits": 6}, {"level_bits": 7}]
    with pytest.raises(ConfigError, match="compressor_options"):
        compared(*[run(8, 60.0, compressor_options=each) for each in options])


def test_one_record_counts_once() -> None:
    with pytest.raises(ConfigError, match="run abc is there more than once"):
        compared(run(8, 60.0, key="abc"), run(8, 61.0, key="abc"))


def test_a_whole_config_joins_as_it_is() -> None:
    config = RunConfig(task="cola", data="real", model="roberta-base", compressor="sort", chunks=4)
    rows = [run(8, 63.0 + seed / 10, **config.replace(seed=seed).to_dict()) for seed in range(2)]
    table = compare(DOCUMENT, pd.DataFrame(rows), **{**ASK, "on": ["task", "compressor", "chunks", "bits"]})
    assert table["n"].tolist() == [0, 0, 2, 0]
    assert table["model"].tolist()[2] == "roberta-base"


def test_names_may_differ_on_the_two_sides_and_blanks_match_blanks() -> None:
    document = reported.load("001_2.2_food101_sort")
    measured = pd.DataFrame({"width": [None, 8.0], "best": [83.0, 82.0], "data": "real", "document_settings": True})
    table = compare(
        document, measured, on={"bits": "width"}, metric="accuracy_percent", measured_metric="best", tolerance=1
    )
    assert table["status"].tolist() == ["reproduced", "not run", "not run", "not reported"]


def test_rows_without_the_metric_do_not_count() -> None:
    table = compared(run(8, 63.0, seed=0), run(8, math.nan, seed=1))
    assert table.loc[8, "n"] == 1


def test_a_run_that_sends_another_share_of_the_bytes_is_no_run_of_the_row() -> None:
    """Power iteration on small images sends twice its share, and was once judged by it."""
    runs = pd.DataFrame([run(8, 63.0, name="8 bits"), run(4, 10.0, name="4 bits"), run(16, 64.0, name="none")])
    runs["compression_ratio"] = [0.26, 0.22, 1.0]
    kept = sending_as_reported(runs, {"8 bits": 0.25, "4 bits": 0.125}, on="name")
    assert compare(DOCUMENT, kept, **ASK)["n"].tolist() == [1, 0, 1, 0]
    assert sending_as_reported(pd.DataFrame(), {"8 bits": 0.25}).empty


def test_macs_need_no_runs_and_no_data() -> None:
    document = reported.load("002_3.2_macs")
    measured = document[["partition"]].assign(macs_part_1=[7.5e8, 1.3e9, 3e9], data="none", document_settings=True)
    ask: dict[str, Any] = {
        "on": ["partition"],
        "metric": "macs_part_1",
        "relative": True,
        "baseline": {"type": "Type 1"},
    }
    table = compare(document, measured, **ask, tolerance=0.05)
    assert table["status"].tolist() == ["reproduced", "reproduced", "trend only"]
    assert table["difference"].tolist() == pytest.approx([5e6, 5e7, 1.4e9])
    assert table["measured_change"].tolist()[1:] == pytest.approx([1.3 / 0.75 - 1, 3])
    assert table["collapsed"].isna().all()


def test_a_figure_says_that_it_was_read_off() -> None:
    ask: dict[str, Any] = {"on": ["bits"], "metric": "accuracy_percent", "tolerance": 0.5}
    table = compare(reported.load("001_2.1_rte_ablation"), pd.DataFrame(), **ask)
    assert set(table["source"]) == {"001 §2.1 (read off)"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "acuracy"}, "reported table has no column 'acuracy'"),
        ({"on": ["width"]}, "reported table has no column 'width'"),
        ({"on": {"bits": "width"}}, "measured table has no column 'width'"),
        ({"measured_metric": "best"}, "measured table has no column 'best'"),
        ({"tolerance": 0}, "tolerance must be a positive number, not 0"),
        ({"relative": True}, "a reported matthews_percent is 0"),
        ({"baseline": {"bits": 5}}, "picks 0 reported rows"),
        ({"baseline": {"compressor": "sort"}}, "picks 4 reported rows"),
    ],
)
def test_wrong_questions_get_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compared(run(8, 60.0), **changes)


def test_measured_rows_must_say_their_data_and_settings() -> None:
    for name in ("data", "document_settings"):
        rows = pd.DataFrame([run(8, 60.0)]).drop(columns=name)
        with pytest.raises(ConfigError, match=f"measured table has no column '{name}'"):
            compare(DOCUMENT, rows, **ASK)
    with pytest.raises(ConfigError, match="unknown data 'fake'"):
        compared(run(8, 60.0, data="fake"))


def test_an_empty_selection_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no rows"):
        compare(DOCUMENT[DOCUMENT["bits"] == 5], pd.DataFrame(), **ASK)
