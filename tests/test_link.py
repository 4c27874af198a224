"""A shaped link takes as long as its rate and latency say."""

import time

import pytest

from splitlib.errors import ConfigError
from splitlib.pipeline.remote.link import Link, Pace


@pytest.mark.parametrize(
    ("rate", "latency", "link"),
    [
        ("50Mbit", "10ms", Link(rate_mbit=50, latency_ms=10)),
        ("1 gbit/s", "", Link(rate_mbit=1000)),
        ("500kbit", "0ms", Link(rate_mbit=0.5)),
        ("", "1.5s", Link(latency_ms=1500)),
        ("", "", Link()),
    ],
)
def test_rates_and_times_are_read(rate, latency, link):
    assert Link.parse(rate, latency) == link


@pytest.mark.parametrize("rate", ["50", "Mbit", "50MB", "fast", "-5Mbit", "0Mbit", "1.2.3Mbit"])
def test_a_wrong_rate_names_the_value_and_an_example(rate):
    with pytest.raises(ConfigError, match=f"link '{rate}' is none; .*such as 50Mbit"):
        Link.parse(rate)


def test_a_wrong_latency_names_the_value_and_an_example():
    with pytest.raises(ConfigError, match=r"latency '10' is none; .*such as 10ms"):
        Link.parse("", "10")


def test_messages_leave_one_after_the_other_and_latency_delays_each_alone():
    pace = Pace(Link(rate_mbit=8, latency_ms=500))  # a million bytes a second
    start = time.perf_counter()
    arrivals = [pace.leave(20_000, start) for _ in range(5)]
    left = time.perf_counter()
    assert arrivals == pytest.approx([start + 0.02 * (i + 1) + 0.5 for i in range(5)])
    assert left >= start + 0.1


def test_a_link_that_was_idle_starts_with_the_next_message():
    pace = Pace(Link(rate_mbit=8))
    pace.leave(1000, time.perf_counter())
    time.sleep(0.02)
    ready = time.perf_counter()
    assert pace.leave(1000, ready) == pytest.approx(ready + 0.001)
