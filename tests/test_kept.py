"""Times are measured once and kept with what they are of; other questions get other records."""

import pytest
import torch

from splitlib.errors import RecordError, WriteError
from splitlib.measuring.kept import kept_times, read_kept
from splitlib.measuring.records import timing_path
from splitlib.runtime import environment
from splitlib.tally import RECORDED
from tests.support import TINY

OF = {"sort": {"level_bits": 6}}


def timing(seconds, of=OF, config=TINY, *, repeats=2, **options):
    """What is kept of a measurement that would find ``seconds``."""
    return kept_times("codecs", of, config, lambda: {"sort": seconds}, repeats=repeats, **options)


def test_what_was_measured_is_kept_with_what_it_is_of():
    made = timing(1.5)
    assert timing(99.0) == made and made.values == {"sort": 1.5}
    assert read_kept(timing_path(TINY, ["cpu"], OF, kind="codecs")) == made
    assert made.of == OF and made.config == TINY.to_dict() and made.environment["hardware"]
    assert timing_path(TINY, ["cpu"], OF, kind="codecs").name.startswith("timing-codecs-cola-embedded-")


def test_another_question_has_another_answer():
    timing(1.5)
    assert timing(2.5, of={"sort": {"level_bits": 3}}).values == {"sort": 2.5}
    assert timing(3.5, config=TINY.replace(batch_size=4)).values == {"sort": 3.5}
    assert timing(4.5, fresh=True).values == {"sort": 4.5}
    assert timing(5.5, repeats=3).values == {"sort": 5.5}, "a record of fewer repeats does not count"
    assert timing(6.5, repeats=2).values == {"sort": 5.5}, "one of more does"


def test_times_of_other_hardware_are_for_showing_alone(monkeypatch):
    timing(1.5)
    path = timing_path(TINY, ["cpu"], OF, kind="codecs")
    path.write_text(path.read_text().replace(environment(torch.device("cpu"))["hardware"], "another machine"))
    monkeypatch.setenv(RECORDED, "1")
    assert timing(2.5).values == {"sort": 1.5}
    monkeypatch.setenv(RECORDED, "0")
    assert timing(2.5).values == {"sort": 2.5}


def test_only_records_means_that_nothing_is_measured(monkeypatch):
    monkeypatch.setenv(RECORDED, "1")
    with pytest.raises(RecordError, match=r"the time of codecs, cola .* has no record, and --recorded trains and"):
        timing(1.5)


def test_nothing_is_measured_that_could_not_be_kept(monkeypatch):
    monkeypatch.setenv("SPLITLIB_RESULTS", "/proc/nowhere")  # refused to every user
    with pytest.raises(WriteError, match=r"/proc/nowhere: .*; name another folder with \$SPLITLIB_RESULTS"):
        kept_times("codecs", OF, TINY, lambda: pytest.fail("measured"), repeats=2)


def test_a_damaged_record_is_one_clear_line():
    timing(1.5)
    timing_path(TINY, ["cpu"], OF, kind="codecs").write_text('{"timed": "codecs"')
    with pytest.raises(RecordError, match=r"timing-codecs-.* is not a readable timing .*; delete it"):
        timing(1.5)
