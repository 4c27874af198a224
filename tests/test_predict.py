"""The predicted batch, against grids worked out by hand, and against what must hold for every batch."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitlib.errors import ConfigError
from splitlib.pipeline.predict import (
    SCHEDULES,
    Message,
    Work,
    break_even,
    ideal_seconds,
    predict,
)
from splitlib.pipeline.predict_rates import gpipe_seconds
from splitlib.pipeline.remote.link import Link
from splitlib.pipeline.schedule import Task, lanes
from splitlib.planner.choices import lower_bound
from splitlib.timeline import Span, with_waits

INSTANT = Link()
MEGABYTE = 10**6  # one second at 8 Mbit/s
EMPTY = Message(nbytes=0)
MESSAGES = ("activation_1", "activation_2", "gradient_2", "gradient_1")
PASSES = ("head_forward", "body_forward", "tail_forward", "tail_backward", "body_backward", "head_backward")
ONLY_THE_TAIL = {"gradient_2": None, "gradient_1": None, "body_backward": 0.0, "server_optimizer": 0.0}
EVERY_PASS_A_SECOND = Work(**dict.fromkeys(PASSES, 1.0), **dict.fromkeys(MESSAGES, EMPTY))


def computing(prediction, side):
    """What a side computes each second: ``HF0`` for the head's forward pass of micro-batch 0, ``...`` for waiting."""
    cells = ["..."] * round(prediction.seconds)
    for span in prediction.spans:
        if span.side == side and span.activity == "compute":
            stage, *gradient = span.what.split()
            short = f"{stage[0].upper()}{'B' if gradient else 'F'}{span.micro_batch}"
            for second in range(round(span.start), round(span.end)):
                cells[second] = short
    return " ".join(cells)


def times(prediction, side, activity):
    return {
        f"{s.what} {s.micro_batch}": (s.start, s.end)
        for s in prediction.spans
        if (s.side, s.activity) == (side, activity)
    }


def test_gpipe_turns_round_when_all_logits_are_there():
    found = predict(EVERY_PASS_A_SECOND, chunks=2, link=INSTANT, schedule="gpipe")
    assert computing(found, "client") == "HF0 HF1 TF0 TF1 TB1 TB0 HB1 HB0"
    assert computing(found, "server") == "... BF0 BF1 ... ... BB1 BB0 ..."


def test_1f1b_goes_back_as_soon_as_logits_are_there():
    found = predict(EVERY_PASS_A_SECOND, chunks=2, link=INSTANT, schedule="1f1b")
    assert computing(found, "client") == "HF0 HF1 TF0 TB0 TF1 TB1 HB0 HB1"
    assert computing(found, "server") == "... BF0 BF1 ... BB0 ... BB1 ..."


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_order_is_the_engines(schedule, side):
    """Each lane's tasks are computed in the lane's order, and these are all there are."""
    found = predict(EVERY_PASS_A_SECOND, chunks=3, link=INSTANT, schedule=schedule)
    computed = [Task(s.what, s.micro_batch) for s in found.spans if (s.side, s.activity) == (side, "compute")]
    expected = lanes(schedule, side, 3)
    assert [[task for task in computed if task in lane] for lane in expected] == list(map(list, expected))
    assert set(computed) == {task for lane in expected for task in lane}


def test_one_micro_batch_passes_everything_in_turn():
    """Each of the four messages is encoded, sent, under way and decoded; nothing overlaps."""
    message = Message(nbytes=MEGABYTE, encode=0.25, decode=0.5)
    work = replace(EVERY_PASS_A_SECOND, **dict.fromkeys(MESSAGES, message), client_optimizer=3.0, server_optimizer=1.0)
    found = predict(work, chunks=1, link=Link(rate_mbit=8, latency_ms=100))
    assert found.seconds == pytest.approx(6 * 1.0 + 4 * (0.25 + 1.0 + 0.1 + 0.5) + 3.0)


def test_messages_of_one_direction_queue_and_computing_goes_on():
    work = replace(EVERY_PASS_A_SECOND, activation_1=Message(nbytes=2 * MEGABYTE))
    found = predict(work, chunks=2, link=Link(rate_mbit=8), schedule="gpipe")
    sent = times(found, "client", "send")
    assert sent["activation 1 0"] == (1, 3)
    assert sent["activation 1 1"] == (3, 5)
    assert computing(found, "server").startswith("... ... ... BF0 ... BF1")
    assert times(found, "server", "wait")["body 0"] == (0, 3)


def test_what_crosses_cut_2_interrupts_what_crosses_cut_1():
    work = replace(
        EVERY_PASS_A_SECOND, body_forward=0.5, tail_forward=0.5, tail_backward=0.5,
        activation_1=Message(nbytes=2 * MEGABYTE), gradient_2=Message(nbytes=MEGABYTE),
        activation_2=Message(nbytes=MEGABYTE // 4), gradient_1=Message(nbytes=2 * MEGABYTE),
    )  # fmt: skip
    found = predict(work, chunks=3, link=Link(rate_mbit=8))
    sent = times(found, "client", "send")
    assert sent["activation 1 0"] == (1, 3)
    assert sent["gradient 2 0"] == (4.75, 5.75)  # from the body at 3.5, sent back by 3.75, through the tail by 4.75
    assert sent["activation 1 1"] == (3, 6), "two seconds, and one for the gradient in between"
    assert sent["activation 1 2"][0] == 6
    back = times(found, "server", "send")
    assert (back["activation 2 1"], back["activation 2 2"]) == ((7.25, 7.5), (8.5, 8.75))
    assert back["gradient 1 0"] == (6.75, 9.25), "two seconds, and half a one for both activations"


def test_encoding_beside_the_passes_costs_them_nothing():
    work = replace(EVERY_PASS_A_SECOND, activation_1=Message(nbytes=0, encode=1.0))
    found = predict(work, chunks=2, link=INSTANT, schedule="gpipe")
    assert computing(found, "client").startswith("HF0 HF1 ")
    assert times(found, "client", "encode") == {"activation 1 0": (1, 2), "activation 1 1": (2, 3)}


def test_waits_fill_what_is_left_of_each_side():
    found = predict(EVERY_PASS_A_SECOND, chunks=3, link=Link(rate_mbit=8, latency_ms=50))
    for side in ("client", "server"):
        mine = [s for s in found.spans if s.side == side and s.activity in ("compute", "wait")]
        assert sum(s.end - s.start for s in mine) == pytest.approx(found.seconds)


def test_no_spans_no_waits():
    assert with_waits([]) == []


def test_waits_of_measured_spans_count_from_the_first_of_either_side():
    spans = [Span(side="server", activity="compute", what="body", micro_batch=0, start=5.0, end=6.0)]
    spans.append(replace(spans[0], side="client", what="head", start=3.0, end=4.0))
    waits = [s for s in with_waits(spans) if s.activity == "wait"]
    assert [(s.side, s.what, s.start, s.end) for s in waits] == [
        ("server", "body", 3.0, 5.0),
        ("client", "body", 4.0, 6.0),
    ]


# --- What holds for every batch --------------------------------------------------------------------------------------

seconds = st.sampled_from([0.0, 0.125, 1.0]) | st.floats(0, 1)
messages = st.builds(Message, nbytes=st.integers(0, 10**7), encode=seconds, decode=seconds)
works = st.builds(
    Work,
    **dict.fromkeys([*PASSES, "client_optimizer", "server_optimizer"], seconds),
    **dict.fromkeys(MESSAGES, messages),
)
frozen_heads = works.map(lambda work: replace(work, gradient_1=None, head_backward=0.0))
only_tails = frozen_heads.map(lambda work: replace(work, gradient_2=None, body_backward=0.0, server_optimizer=0.0))
links = st.builds(Link, rate_mbit=st.floats(1, 1e5), latency_ms=st.sampled_from([0, 1, 50]))
chunk_counts = st.integers(1, 6)
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES)
A_LITTLE = 1e-9


@each_schedule
@given(work=works, link=links, chunks=chunk_counts)
@settings(max_examples=60, deadline=None)
def test_never_below_the_ideal(schedule, work, link, chunks):
    found = predict(work, chunks=chunks, link=link, schedule=schedule)
    assert found.seconds >= found.ideal - A_LITTLE


@given(work=works, link=links, chunks=chunk_counts, slower=st.floats(1, 10), later=st.floats(0, 100))
@settings(max_examples=60, deadline=None)
def test_gpipe_never_gains_from_a_worse_link(work, link, chunks, slower, later):
    worse = Link(rate_mbit=link.rate_mbit / slower, latency_ms=link.latency_ms + later)
    good, bad = (predict(work, chunks=chunks, link=each, schedule="gpipe").seconds for each in (link, worse))
    assert bad >= good - A_LITTLE


@given(work=works, link=links, chunks=chunk_counts, more=st.integers(1, 10**7), which=st.sampled_from(MESSAGES))
@settings(max_examples=60, deadline=None)
def test_gpipe_never_gains_from_more_bytes(work, link, chunks, more, which):
    message = getattr(work, which)
    longer = replace(work, **{which: replace(message, nbytes=message.nbytes + more)})
    short, long = (predict(each, chunks=chunks, link=link, schedule="gpipe").seconds for each in (work, longer))
    assert long >= short - A_LITTLE


@given(work=works, chunks=chunk_counts, rate=st.floats(1, 1e4), slower=st.floats(1, 10))
@settings(max_examples=60, deadline=None)
def test_one_micro_batch_has_no_order_to_lose_by(work, chunks, rate, slower):
    """With several, 1f1b ranks what has arrived, and may lose by arriving earlier: the module says so."""
    fast, slow = (predict(work, chunks=1, link=Link(rate_mbit=r)).seconds for r in (rate, rate / slower))
    assert slow >= fast - A_LITTLE
    gpipe = predict(work, chunks=1, link=Link(rate_mbit=rate), schedule="gpipe").seconds
    assert gpipe == pytest.approx(fast)


@given(nbytes=st.integers(1, 10**8), chunks=chunk_counts, link=links)
@settings(max_examples=60, deadline=None)
def test_1f1b_is_never_slower_than_gpipe_where_the_link_is_all(nbytes, chunks, link):
    """It sends both ways at once from the first logits on; gpipe only while it turns round."""
    link_bound = Work(**dict.fromkeys(PASSES, 0.0), **dict.fromkeys(MESSAGES, Message(nbytes=nbytes)))
    turns = {s: predict(link_bound, chunks=chunks, link=link, schedule=s).seconds for s in SCHEDULES}
    assert turns["1f1b"] <= turns["gpipe"] * (1 + A_LITTLE)


@each_schedule
@given(work=works, chunks=chunk_counts)
@settings(max_examples=60, deadline=None)
def test_an_instant_link_leaves_the_work(schedule, work, chunks):
    free = {name: replace(getattr(work, name), encode=0.0, decode=0.0) for name in MESSAGES}
    found = predict(replace(work, **free), chunks=chunks, link=INSTANT, schedule=schedule)
    assert found.ideal == max(work.client_compute(chunks), work.server_compute(chunks))
    everything = work.client_compute(chunks) + work.server_compute(chunks)
    assert found.ideal - A_LITTLE <= found.seconds <= everything + A_LITTLE
    emptied = replace(work, **{name: replace(message, nbytes=0) for name, message in free.items()})
    slow = predict(emptied, chunks=chunks, link=Link(rate_mbit=1), schedule=schedule)
    assert slow.seconds == found.seconds, "what sends nothing needs no link"


@each_schedule
@given(work=works, link=links, chunks=chunk_counts)
@settings(max_examples=40, deadline=None)
def test_no_worker_does_two_things_at_once_and_all_is_done(schedule, work, link, chunks):
    found = predict(work, chunks=chunks, link=link, schedule=schedule)
    for worker in {(s.side, s.activity) for s in found.spans}:
        mine = [s for s in found.spans if (s.side, s.activity) == worker]
        if worker[1] != "send":
            assert all(a.end <= b.start + A_LITTLE for a, b in pairwise(mine))
            continue
        for span in mine:  # as long as its bytes take, and those that came in between
            between = sum(s.nbytes for s in mine if s is not span and span.start <= s.start < s.end <= span.end)
            taken = link.seconds(span.nbytes + between)
            assert span.end - span.start == pytest.approx(taken, abs=A_LITTLE)
    computed = sum(s.end - s.start for s in found.spans if s.activity == "compute")
    assert computed == pytest.approx(work.client_compute(chunks) + work.server_compute(chunks))
    assert sum(s.nbytes for s in found.spans) == chunks * sum(getattr(work, name).nbytes for name in MESSAGES)


@given(
    work=works | frozen_heads | only_tails,
    chunks=chunk_counts,
    rates=st.lists(st.floats(1, 1e5), min_size=1, max_size=4),
)
@settings(max_examples=120, deadline=None)
def test_gpipe_over_many_links_at_once_is_the_simulation_over_each(work, chunks, rates):
    found = gpipe_seconds(work, chunks=chunks, mbit=np.array(rates), latency_ms=20)
    links = [Link(rate_mbit=rate, latency_ms=20) for rate in rates]
    assert found == pytest.approx([predict(work, chunks=chunks, link=each, schedule="gpipe").seconds for each in links])


@each_schedule
@given(work=works | frozen_heads | only_tails, link=links, chunks=chunk_counts)
@settings(max_examples=120, deadline=None)
def test_no_schedule_beats_the_planners_bound(schedule, work, link, chunks):
    """Also where passes, messages or optimizers take no time: a latency at the end was lost with them."""
    found = predict(work, chunks=chunks, link=link, schedule=schedule).seconds
    assert lower_bound(work, chunks, link) <= found + A_LITTLE
    if chunks == 1:
        assert lower_bound(work, chunks, link) == pytest.approx(found)


@each_schedule
def test_what_takes_no_time_still_waits_for_its_message(schedule):
    """A head that goes back in no time was no span, and the prediction ended before the last latency."""
    work = replace(EVERY_PASS_A_SECOND, head_backward=0.0)
    found = predict(work, chunks=1, link=Link(latency_ms=1000), schedule=schedule)
    assert found.seconds == 5 * 1.0 + 4 * 1.0
    waits = [s for s in found.spans if (s.side, s.activity) == ("client", "wait")]
    assert waits[-1].end == found.seconds


@each_schedule
def test_a_gradient_that_nothing_wants_is_neither_sent_nor_waited_for(schedule):
    """LoRA behind the embeddings: the client waited for a message of no bytes, the server's pass and a latency."""
    work = replace(EVERY_PASS_A_SECOND, head_backward=0.0, gradient_1=None, server_optimizer=0.5)
    found = predict(work, chunks=2, link=Link(latency_ms=1000), schedule=schedule)
    assert not any(span.what in ("gradient 1", "head gradient") for span in found.spans if span.activity != "wait")
    whole = predict(replace(work, gradient_1=EMPTY), chunks=2, link=Link(latency_ms=1000), schedule=schedule)
    assert found.seconds == whole.seconds - 0.5, "the server's optimizer, beside the latency, is what is left"
    body = predict(replace(work, **ONLY_THE_TAIL), chunks=2, link=INSTANT, schedule=schedule)
    assert computing(body, "server").split().count("...") == body.seconds - 2


# --- Break-even ------------------------------------------------------------------------------------------------------


def test_a_quarter_of_the_bytes_pays_until_encoding_takes_longer_than_sending():
    """One micro-batch, all in turn: 4 messages of 1 MB against 4 of 0.25 MB that cost 0.01 s each to encode."""
    raw = Work(**dict.fromkeys(PASSES, 0.1), **dict.fromkeys(MESSAGES, Message(nbytes=MEGABYTE)))
    coded = replace(raw, **dict.fromkeys(MESSAGES, Message(nbytes=MEGABYTE // 4, encode=0.01)))
    (rate,) = break_even(raw, coded, chunks=1, rates=[1, 10, 100, 1000, 1e4])
    assert rate == pytest.approx(8 * 0.75 * MEGABYTE / 0.01 / 1e6, rel=2e-3)
    assert break_even(raw, raw, chunks=1, rates=[1, 1e4]) == []


def test_the_ideal_is_the_busiest_of_all():
    work = replace(EVERY_PASS_A_SECOND, gradient_1=Message(nbytes=3 * MEGABYTE), server_optimizer=1.0)
    assert ideal_seconds(work, chunks=2, link=Link(rate_mbit=8)) == 8.0
    assert ideal_seconds(work, chunks=2, link=Link(rate_mbit=4)) == 12.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "interleaved"}, "unknown schedule 'interleaved'; choose from gpipe, 1f1b"),
        ({"chunks": 0}, "chunks must be at least 1, not 0"),
    ],
)
def test_impossible_settings_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        predict(EVERY_PASS_A_SECOND, **{"chunks": 1, "link": INSTANT, **change})
    if "chunks" in change:
        with pytest.raises(ConfigError, match=message):
            gpipe_seconds(EVERY_PASS_A_SECOND, mbit=np.ones(1), **change)


def test_impossible_numbers_are_named():
    with pytest.raises(ConfigError, match="head_forward must be made of numbers from 0"):
        replace(EVERY_PASS_A_SECOND, head_forward=math.nan)
    with pytest.raises(ConfigError, match="head_backward must be 0 without gradient_1"):
        replace(EVERY_PASS_A_SECOND, gradient_1=None)
    with pytest.raises(ConfigError, match="without gradient_2 the body does not train"):
        replace(EVERY_PASS_A_SECOND, gradient_1=None, gradient_2=None, head_backward=0.0)
