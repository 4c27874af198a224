"""A shaped link takes as long as its rate and latency say."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from splitlib.errors import ConfigError
from splitlib.pipeline.remote.link import Link, Pace


@pytest.mark.parametrize(
    ("rate", "latency", "link"),
    [
        ("50Mbit", "10ms", Link(rate_mbit=50, latency_ms=10)),
        ("1 gbit/s", "", Link(rate_mbit=1000)),
        ("500kbit", "0ms", Link(rate_mbit=0.5)),
        ("50Mbps", "0", Link(rate_mbit=50)),
        ("1 GBPS", "0.0", Link(rate_mbit=1000)),
        ("", "1.5s", Link(latency_ms=1500)),
        ("", "", Link()),
    ],
)
def test_rates_and_times_are_read(rate, latency, link):
    assert Link.parse(rate, latency) == link


@pytest.mark.parametrize("rate", ["50", "Mbit", "50MB", "50MBps", "fast", "1.2.3Mbit", "0"])
def test_a_wrong_rate_names_the_value_and_an_example(rate):
    with pytest.raises(ConfigError, match=f"link '{rate}' is none; .*such as 50Mbit"):
        Link.parse(rate)


@pytest.mark.parametrize("latency", ["10", "ms", "1.2.3ms", ".ms", "9" * 400 + "s"])
def test_a_wrong_latency_names_the_value_and_an_example(latency):
    with pytest.raises(ConfigError, match=rf"latency '{latency}' is none; .*such as 10ms"):
        Link.parse("", latency)


def test_a_number_that_is_too_small_is_named_as_such():
    for rate in ("0Mbit", "-5Mbit"):
        with pytest.raises(ConfigError, match=f"link '{rate}' is not above 0; write such as 50Mbit"):
            Link.parse(rate)
    with pytest.raises(ConfigError, match="latency '-1ms' is below 0; write such as 10ms"):
        Link.parse("", "-1ms")


@pytest.mark.parametrize("values", [{"rate_mbit": -1}, {"latency_ms": float("nan")}, {"rate_mbit": "5"}])
def test_a_link_of_no_rate_or_time_is_an_error(values):
    ((name, value),) = values.items()
    with pytest.raises(ConfigError, match=f"a link's {name} must be a number of at least 0, not {value!r}"):
        Link(**values)


def test_messages_leave_one_after_the_other_and_none_waits_for_another_to_arrive():
    pace = Pace(Link(rate_mbit=8, latency_ms=500))  # a million bytes a second
    start = time.perf_counter()
    sent = [pace.leave(20_000, start) for _ in range(5)]
    left = time.perf_counter()
    assert np.array(sent) - start == pytest.approx(0.02 * np.array([[i, i + 1] for i in range(5)]))
    assert left >= start + 0.1


def test_a_link_that_was_idle_starts_with_the_next_message():
    pace = Pace(Link(rate_mbit=8))
    pace.leave(1000, time.perf_counter())
    time.sleep(0.02)
    ready = time.perf_counter()
    assert pace.leave(1000, ready) == pytest.approx((ready, ready + 0.001))


def test_an_urgent_message_interrupts_another_which_then_goes_on():
    pace = Pace(Link(rate_mbit=8))
    with ThreadPoolExecutor(2) as pool:
        start = time.perf_counter()
        patient = pool.submit(pace.leave, 400_000, start)
        time.sleep(0.1)
        urgent = pool.submit(pace.leave, 100_000, start + 0.1, urgent=True).result()
        assert not patient.done()
        assert np.array(urgent) - start == pytest.approx([0.1, 0.2])
        assert np.array(patient.result()) - start == pytest.approx([0, 0.5])
    assert pace.leave(1000, start) == pytest.approx((start + 0.5, start + 0.501)), "every bit took its time once"


def test_others_wait_for_urgent_messages_that_are_on_the_link():
    pace = Pace(Link(rate_mbit=8))
    start = time.perf_counter()
    assert np.array(pace.leave(50_000, start, urgent=True)) - start == pytest.approx([0, 0.05])
    assert np.array(pace.leave(50_000, start)) - start == pytest.approx([0.05, 0.1])
