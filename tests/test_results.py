"""Records: what is written is what is read; damage is an error that names the remedy."""

import json

import pytest

from splitlib.config import RunConfig
from splitlib.errors import ConfigError, RecordError
from splitlib.results import (
    RunRecord,
    all_records,
    load_record,
    record_path,
    save_record,
    to_frame,
)
from tests.support import epoch, record


def test_round_trip_through_the_file():
    saved = record()
    path = save_record(saved)
    assert load_record(saved.config) == saved
    assert path.name == f"cola-embedded-roberta_base-condition_1-sort-{saved.config.key}.json"


def test_the_file_is_named_by_what_was_inserted():
    config = RunConfig(task="cola", insert="linear", compressor="sort")
    assert record_path(config).name == f"cola-embedded-roberta_base-condition_1-linear-sort-{config.key}.json"


def test_nan_survives_the_file():
    saved = record(epoch(1, float("nan")), diverged=True)
    save_record(saved)
    assert load_record(saved.config).last.matthews != load_record(saved.config).last.matthews


def test_best_is_the_first_of_equals_and_last_is_last():
    assert record().best.epoch == 2
    assert record().last.epoch == 4
    assert record().row()["best_percent"] == 50.0
    assert record().row()["last_percent"] == 40.0


def test_ratio_counts_both_directions():
    assert record().compression_ratio == 0.25
    assert record(uncompressed_bytes=0).compression_ratio == 1.0


def test_collapse_looks_at_the_last_epoch():
    assert record(epoch(1, 0.4), epoch(2, 0.0, classes=1)).collapsed
    assert not record(epoch(1, 0.0, classes=1), epoch(2, 0.4)).collapsed


def test_frames_have_a_row_for_each_record():
    records = [record(), record(config=RunConfig(task="cola", seed=1))]
    assert list(to_frame(records)["seed"]) == [0, 1]


def test_missing_record_is_none():
    assert load_record(RunConfig(task="rte")) is None
    assert all_records() == []


def test_an_unreadable_folder_is_an_error_with_a_remedy(monkeypatch):
    """A user who may read everything is refused nothing by the system: it is asked to."""

    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.listdir", refuse)
    with pytest.raises(ConfigError, match=r"cannot read the folder .*: Permission denied; .*SPLITLIB_RESULTS"):
        all_records()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"history"', '"storey"'),
        lambda text: json.dumps({**json.loads(text), "history": []}),
        lambda text: json.dumps({**json.loads(text), "config": {"task": "mnist"}}),
        lambda text: json.dumps({**json.loads(text), "environment": {}}),
        lambda text: json.dumps({**json.loads(text), "metric": "beauty"}),
        lambda text: "[" * 100_000,
    ],
    ids=[
        "cut short",
        "no object",
        "missing field",
        "no epoch",
        "impossible config",
        "no hardware",
        "unknown metric",
        "too deep",
    ],
)
def test_a_damaged_record_is_an_error_with_a_remedy(damage):
    saved = record()
    path = save_record(saved)
    path.write_text(damage(path.read_text()))
    with pytest.raises(RecordError, match=r"not a readable record.*delete it, or run again with --fresh"):
        load_record(saved.config)


def test_a_record_under_another_name_is_an_error():
    saved = record()
    other = RunConfig(task="cola", compressor="sort", seed=5)
    save_record(saved).rename(record_path(other))
    with pytest.raises(RecordError, match=saved.config.key):
        load_record(other)


def test_a_failed_write_leaves_the_old_record(monkeypatch):
    saved = record()
    path = save_record(saved)
    with monkeypatch.context() as broken, pytest.raises(TypeError):
        broken.setattr(RunRecord, "to_dict", lambda self: {"broken": object()})
        save_record(saved)
    assert load_record(saved.config) == saved
    assert [p.name for p in path.parent.iterdir()] == [path.name]
