"""The parts of a data-parallel batch add up, and what was measured once is not measured again."""

import json

import pytest

from splitlib.errors import RecordError
from splitlib.measuring import breakdown
from splitlib.measuring.breakdown import PARTS, PIPELINE, Breakdown, Case, measure, read
from splitlib.results import all_records
from splitlib.runtime import results_dir
from splitlib.tally import RECORDED

CASES = [
    Case(model="roberta_tiny", batch_size=4, size=8, optimizer="adamw"),
    Case(
        model="roberta_tiny", batch_size=4, size=8, parallelism=PIPELINE, partition="condition_1", chunks=2,
        optimizer="adamw",
    ),
    Case(model="vgg13_tiny", batch_size=4, size=32),
]  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One measurement for all tests: starting the processes is what takes the time."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("results")
        patch.setenv("SPLITLIB_RESULTS", str(folder))
        yield measure(CASES, device="cpu", replicas=2, batches=3, warmup=1), folder


def test_every_case_has_its_batches_and_parts(measured):
    found, _ = measured
    assert [b.case for b in found.breakdowns] == CASES and found.devices == ("cpu", "cpu")
    for one in found.breakdowns:
        assert set(one.seconds) == set(PARTS) and all(len(values) == 3 for values in one.seconds.values())
        assert all(value > 0 for name in ("forward", "backward", "optimizer") for value in one.seconds[name])
    parallel, pipeline, _ = found.breakdowns
    assert any(parallel.seconds["all_reduce"]) and not any(pipeline.seconds["all_reduce"])


def test_rows_are_medians_and_parts_add_up():
    seconds = {name: [1.0, 2.0, 9.0] for name in PARTS}
    row = Breakdown(case=CASES[0], seconds=seconds).row()
    assert row["time_per_batch_s"] == 10.0 and row["optimizer_s"] == 2.0 and row["batches"] == 3
    assert row["throughput_per_s"] == 4 / 10 and (row["first_quartile_s"], row["third_quartile_s"]) == (7.5, 27.5)
    assert sum(row[f"{name}_s"] for name in PARTS) == 10.0


def test_what_was_measured_here_is_not_measured_again(measured, monkeypatch):
    found, folder = measured
    monkeypatch.setenv("SPLITLIB_RESULTS", str(folder))
    monkeypatch.setattr(breakdown, "run_together", lambda *_, **__: pytest.fail("measured again"))
    assert measure(CASES, device="cpu", replicas=2, batches=3, warmup=1) == found
    assert all_records() == [], "a timing is no run's record"


def test_where_only_records_are_shown_the_latest_of_any_machine_will_do(measured, monkeypatch):
    found, folder = measured
    monkeypatch.setattr(breakdown, "run_together", lambda *_, **__: pytest.fail("measured again"))
    path = results_dir() / "timing-breakdown-elsewhere.json"
    path.parent.mkdir(parents=True)
    path.write_text(next(folder.iterdir()).read_text())
    older = json.loads(path.read_text()) | {"created": "2020-01-01T00:00:00+00:00", "threads": 99}
    path.with_stem("timing-breakdown-older").write_text(json.dumps(older))
    monkeypatch.setattr(breakdown, "_path", lambda *_: results_dir() / "timing-breakdown-here.json")
    monkeypatch.setenv(RECORDED, "1")
    assert measure(CASES, device="cpu", replicas=2, batches=3) == found
    for cases, batches in ((CASES[1:], 3), (CASES, 4)):
        with pytest.raises(RecordError, match="has no record"):
            measure(cases, device="cpu", replicas=2, batches=batches)


def test_a_damaged_timing_is_one_clear_line(measured):
    path = results_dir() / "timing-breakdown-0.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"devices": ["cpu"]')
    with pytest.raises(RecordError, match=r"timing-breakdown-0\.json is not a readable timing .*; delete it"):
        read(path)
