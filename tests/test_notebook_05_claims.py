"""What notebook 05 says in prose about 000 §2 and 002 §4, checked by other routes than its own cells."""

from math import prod

import pytest

from splitlib import reported

TABLE = reported.load("000_2.2_two_machines").set_index("row")
LATER = reported.load("002_4.2_two_machines").set_index("row")
BATCH = int(reported.load("000_2.1_two_machines_settings").iloc[0]["batch_size"])
CUTS = (32, 112, 112), (1280, 7, 7)  # what an image sends at the two cuts, by a clarification
MIB_EACH_WAY = BATCH * 4 * sum(map(prod, CUTS)) / 2**20  # float32, activation one way and gradient the other
RAW = [1, 2, 3]
GIGABIT = 1e9 / 8 / 2**20  # MiB/s


def mib(row: int) -> float:
    """What a row's average bandwidth and computation time say it sent."""
    return float(TABLE.loc[row, "bandwidth_avg_mb_s"] * TABLE.loc[row, "computation_time_s"])


def test_the_average_bandwidth_counts_one_direction_in_000_and_both_in_002() -> None:
    for row in RAW:
        assert mib(row) == pytest.approx(MIB_EACH_WAY, rel=0.01)
    both = LATER["bandwidth_mb_s"] * LATER["training_time_s"]
    assert both[1] == pytest.approx(2 * MIB_EACH_WAY, rel=0.03)
    assert both[4] == pytest.approx(2 * MIB_EACH_WAY / 4, rel=0.03), "8 bits for 32"


def test_the_last_row_has_8_chunks() -> None:
    """Every other method has one row of each number, in order; the last says 4 a second time."""
    chunks = list(TABLE["chunks"])
    assert chunks == [1, 4, 8] * 3 + [1, 4, 4]
    assert mib(12) == pytest.approx(mib(11), rel=0.01), "the same codec: the row is no other one"


def test_raw_rows_fit_a_gigabit_link_whose_directions_take_turns() -> None:
    for row in RAW:
        seconds = TABLE.loc[row, "time_per_batch_s"] - TABLE.loc[row, "computation_time_s"]
        assert 2 * MIB_EACH_WAY / seconds == pytest.approx(GIGABIT, rel=0.11)


def test_no_link_of_the_reported_peak_explains_the_raw_rows() -> None:
    for row in RAW:
        peak = TABLE.loc[row, "bandwidth_peak_client_mb_s"]
        assert peak > 3 * GIGABIT
        least = TABLE.loc[row, "computation_time_s"] + 2 * MIB_EACH_WAY / peak
        assert least < 0.5 * TABLE.loc[row, "time_per_batch_s"]


def test_compression_was_reported_to_pay_about_fivefold() -> None:
    for raw, others in ((3, (6, 9, 12)),):
        gains = [TABLE.loc[raw, "time_per_batch_s"] / TABLE.loc[row, "time_per_batch_s"] for row in others]
        assert all(4.5 < gain < 6 for gain in gains)


def test_one_whole_batch_is_shorter_than_its_own_computation() -> None:
    odd = TABLE[TABLE["time_per_batch_s"] < TABLE["computation_time_s"]]
    assert list(odd.index) == [4]
