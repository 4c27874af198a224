"""What is committed in results/ can be read by today's code, says what it was measured on, and is of real data."""

from pathlib import Path

import pytest

from splitlib.results import TIMING_PREFIX, read_record, record_path

ROOT = Path(__file__).resolve().parent.parent
RECORDS = sorted(p for p in (ROOT / "results").glob("*-real-*.json") if not p.name.startswith(TIMING_PREFIX))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_committed_record_is_readable_and_complete(path):
    record = read_record(path)
    assert record_path(record.config).name == path.name
    assert record.config.data == "real" and "real" in record.data_label
    assert record.environment["hardware"] and record.environment["versions"]["torch"]
    finished = record.config.epochs if not record.diverged else len(record.history)
    assert [epoch.epoch for epoch in record.history] == list(range(1, finished + 1))


def test_there_are_committed_records():
    assert RECORDS


def test_two_machines_recorded_what_one_process_did():
    found = {record.config.key: record for record in map(read_record, RECORDS)}
    pairs = [
        (record, found[key])
        for record in found.values()
        if record.config.engine == "two_machines"
        and (key := record.config.replace(engine="in_process", schedule="gpipe").key) in found
    ]
    assert len(pairs) == 6, "as the README says"
    for there, here in pairs:
        assert there.history == here.history, there.config
        assert (there.activation_bytes, there.gradient_bytes) == (here.activation_bytes, here.gradient_bytes)
