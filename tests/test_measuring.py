"""Times are measured on the steps that train, kept with what they were measured on, and never mixed up."""

import contextlib
import dataclasses
import json
import math
import time
import weakref
from collections import Counter

import pytest
import torch

from splitlib import results, runtime
from splitlib.compressors import HEADER_BYTES, Identity, make_compressors
from splitlib.errors import ConfigError, RecordError
from splitlib.experiment import prepare
from splitlib.measuring import batches as measuring
from splitlib.measuring import records as timings
from splitlib.measuring import spans
from splitlib.measuring.kept import read_kept
from splitlib.measuring.stages import _Sequential, codec_times, kept_stage_work, seconds_in_turn, stage_work
from splitlib.pipeline.predict import predict
from splitlib.pipeline.remote.link import Link
from splitlib.pipeline.remote.simulated import SimulatedServer
from splitlib.profiles import DOCUMENT_SETTINGS, get_profile
from splitlib.tally import RECORDED
from splitlib.timeline import Span
from tests.support import TINY, timing_of, trainer_of

SORT = TINY.replace(compressor="sort", compressor_options={"level_bits": 6, "bin_bits": 2})
FEW = {"batches": 3, "warmup": 1}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two configs measured in turn, and the folder of their records."""
    folder = tmp_path_factory.mktemp("timings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLITLIB_RESULTS", str(folder))
        return measuring.measure_in_turn({"none": TINY, "sort": SORT}, devices=["cpu"], **FEW), folder


@pytest.fixture
def measured(pair, monkeypatch):
    """The same, where today's test looks for records."""
    timed, folder = pair
    monkeypatch.setenv("SPLITLIB_RESULTS", str(folder))
    return timed


def test_every_batch_after_the_warm_up_counts(measured):
    for timing in measured.values():
        assert len(timing.seconds) == 3
        low, high = timing.middle_half
        assert 0 < low <= timing.median <= high
        assert timing.throughput == pytest.approx(TINY.batch_size / timing.median)


def test_the_middle_half_is_of_the_batches_themselves():
    watch = measuring._Watch()
    watch.visit(trainer_of(TINY))
    watch.seconds, watch.spans, watch.traffic = [4.0, 1.0, 9.0, 3.0, 2.0], [[]] * 5, [(1, 2)] * 5
    row = watch.timing(0, ("cpu",), "", "").row()
    assert [row[name] for name in ("first_quartile_s", "time_per_batch_s", "third_quartile_s")] == [2.0, 3.0, 4.0]


def test_bytes_are_those_of_one_batch(measured):
    trainer = trainer_of(SORT)
    trainer.step(*next(iter(trainer.rest_of_epoch())))
    traffic = trainer.engine.traffic
    assert measured["sort"].payload_bytes == traffic.sent_bytes
    assert measured["sort"].compression_ratio == pytest.approx(traffic.compression_ratio)
    assert measured["none"].compression_ratio > 3 * measured["sort"].compression_ratio


def test_a_second_call_measures_nothing(measured):
    again = measuring.measure_in_turn({"none": TINY, "sort": SORT}, devices=["cpu"], **FEW)
    texts = [json.dumps([timing.to_dict() for timing in timed.values()]) for timed in (again, measured)]
    assert texts[0] == texts[1]
    fresh = timing_of(SORT, devices=["cpu"], fresh=True, batches=1, warmup=0)
    assert fresh.together != measured["sort"].together
    assert timings.load_together([TINY, SORT], ["cpu"]) is None, "a ratio needs times that were measured together"
    assert timings.load_together([TINY], ["cpu"], batches=3) is not None
    assert timings.load_together([TINY], ["cpu"], batches=4) is None
    timings.save_timing(measured["sort"])
    rows = {"sort": SORT, "not there": SORT.replace(seed=7)}
    ((label, found),) = timings.load_recorded(rows, ["cpu"]).items()
    assert (label, found.config, found.seconds) == ("sort", SORT, measured["sort"].seconds)
    assert timings.load_recorded(rows, ["cpu", "cuda", "cpu"]) == {}


def test_times_of_other_hardware_are_for_showing_alone(pair, monkeypatch):
    measured, _ = pair
    for timing in measured.values():
        elsewhere = {**timing.environment, "hardware": "another machine"}
        timings.save_timing(dataclasses.replace(timing, environment=elsewhere))
    rows = {"none": TINY, "sort": SORT}
    monkeypatch.setenv(RECORDED, "1")
    shown = measuring.measure_in_turn(rows, devices=["cpu"], **FEW)
    assert shown["sort"].row()["hardware"] == "another machine"
    monkeypatch.setenv(RECORDED, "0")
    again = measuring.measure_in_turn(rows, devices=["cpu"], **FEW)
    assert again["sort"].environment["hardware"] == measured["sort"].environment["hardware"]
    assert again["sort"].together != measured["sort"].together


def test_devices_and_link_have_records_of_their_own():
    paths = {
        timings.timing_path(TINY, devices, link)
        for devices in (["cpu"], ["cpu", "cuda", "cpu"])
        for link in ("", "50 Mbit/s")
    }
    assert len(paths) == 4
    assert all(path.name.startswith("timing-cola-embedded-") for path in paths)


def test_a_timing_is_no_run(measured):
    assert results.all_records() == []
    row = measured["none"].row()
    assert (row["batches"], row["devices"], row["link"]) == (3, "cpu", "")
    assert row["hardware"] and "embedded" in row["data_label"]
    assert math.isnan(row["bandwidth_avg_mb_s"]), "one process sends nothing over a link"


def test_a_damaged_timing_is_named(tmp_path):
    path = tmp_path / "timing-x.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(RecordError, match=r"timing-x\.json is not a readable timing"):
        timings.read_timing(path)


def test_impossible_counts_are_refused():
    with pytest.raises(ConfigError, match="batches must be at least 1"):
        timing_of(TINY, batches=0)


def test_stages_with_a_device_each_train_the_same():
    """Here all are the CPU, so losses must be the same to the bit."""
    batch = next(iter(trainer_of(SORT).rest_of_epoch()))
    one, each = trainer_of(SORT), prepare(SORT, None, [torch.device("cpu")] * 3)
    assert [one.step(*batch) for _ in range(2)] == [each.step(*batch) for _ in range(2)]


def test_an_unsplit_model_takes_the_first_of_the_devices():
    unsplit = TINY.replace(partition="none", chunks=1)
    measured = measuring.measure_in_turn({"none": TINY, "unsplit": unsplit}, devices=["cpu"] * 3, **FEW)
    assert {timing.devices for timing in measured.values()} == {("cpu",) * 3}
    with pytest.raises(ConfigError, match="3 stages need 3 devices, not 2"):
        measuring.measure_in_turn({"none": TINY}, devices=["cpu"] * 2, **FEW)


# --- Timelines -------------------------------------------------------------------------------------------------------


class Chatty(torch.nn.Module):
    """An engine with a timeline, in which each batch takes the same spans."""

    def __init__(self, engine):
        super().__init__()
        self.engine, self.traffic, self.device = engine, engine.traffic, engine.device

    def train_batch(self, *args, **options):
        return self.engine.train_batch(*args, **options)

    def take_spans(self):
        return SPANS


def span(side, activity, what, start, end, nbytes=0):
    return Span(side=side, activity=activity, what=what, micro_batch=0, start=start, end=end, nbytes=nbytes)


MIB = spans.MEBIBYTE
SPANS = [
    span("client", "compute", "head", 0, 2),
    span("client", "send", "activation 1", 2, 4, 8 * MIB),
    span("server", "decode", "activation 1", 6, 6.5),
    span("server", "compute", "body", 7, 8),
    span("server", "send", "activation 2", 8, 9, 100 * MIB),
    span("client", "compute", "tail", 7.5, 9),
    span("client", "send", "gradient 2", 9, 9.5, 4 * MIB),
    span("client", "wait", "head gradient", 9.5, 20),
]


def test_bandwidths_follow_the_documents_definitions():
    """000 §2.2: sent / computation time; the client's highest send, the server's highest receive."""

    def opened(config):
        trainer = trainer_of(config)
        trainer.engine = Chatty(trainer.engine)
        return contextlib.nullcontext(trainer)

    timing = timing_of(TINY, link="test", opened=opened, batches=2, warmup=0, devices=["cpu"])
    assert timing.computation == (4.0, 4.0), "what both compute at once counts once"
    assert timing.average_bandwidth == (8 + 4) / 4.0
    assert timing.peak_send == 8.0
    assert timing.peak_receive == 2.0
    assert timing.tensor_bytes == {"activation 1": 8 * MIB, "activation 2": 100 * MIB, "gradient 2": 4 * MIB}
    assert timings.read_timing(timings.timing_path(TINY, ["cpu"], "test")) == timing


def test_the_spans_kept_are_those_of_the_typical_batch():
    watch = measuring._Watch()
    watch.visit(trainer_of(TINY))
    watch.seconds, watch.traffic = [9.0, 1.0, 3.0], [(1, 2)] * 3
    watch.spans = [[span("client", "compute", f"batch {number}", 0, 1)] for number in range(3)]
    assert watch.timing(0, ("cpu",), "", "").spans[0].what == "batch 2"


def test_clients_of_one_server_are_measured_visit_by_visit():
    """One server serves one client at a time: each config is opened twice, and the warm-ups do not count."""
    dial, link = SimulatedServer(hub=None, device=torch.device("cpu")), Link(rate_mbit=100, latency_ms=1)
    opened, visits = measuring.over_link(dial, link), []

    def counted(config):
        visits.append(config.compressor)
        return opened(config)

    configs = {name: config.replace(engine="simulated") for name, config in (("none", TINY), ("sort", SORT))}
    found = measuring.measure_in_turn(
        configs, devices=["cpu"], batches=3, warmup=1, visits=2, link=str(link), opened=counted
    )
    assert visits == ["none", "sort", "none", "sort"]
    line_rate = 100e6 / 8 / MIB
    for name, timing in found.items():
        assert (timing.config, len(timing.seconds), len(timing.computation)) == (configs[name], 3, 3)
        assert timing.peak_receive <= timing.peak_send == pytest.approx(line_rate), "no send is faster than its link"
        assert timing.average_bandwidth > 0 and {s.side for s in timing.spans} == {"client", "server"}
        messages = Counter(span.what for span in timing.spans if span.activity == "send")
        assert set(messages.values()) == {TINY.chunks}, "of one batch, and nothing of the warm-up before it"
        sent = spans.bytes_by_tensor(timing.spans)
        assert sent == timing.tensor_bytes and 8 * max(sent.values()) / 100e6 < timing.median
        assert timings.read_timing(timings.timing_path(configs[name], ["cpu"], str(link))) == timing
    assert found["sort"].compression_ratio < found["none"].compression_ratio / 3


def test_with_visits_one_trainer_at_a_time_is_in_memory():
    before, alive = [], []

    def opened(config):
        alive.append(sum(trainer() is not None for trainer in before))
        trainer = trainer_of(config)
        before.append(weakref.ref(trainer))
        return contextlib.nullcontext(trainer)

    configs = {"none": TINY, "sort": SORT}
    measuring.measure_in_turn(configs, devices=["cpu"], batches=2, warmup=0, visits=2, opened=opened)
    assert alive == [0, 0, 0, 0]


def test_one_config_may_have_two_labels():
    twice = measuring.measure_in_turn(
        {"a": TINY, "b": TINY}, devices=["cpu"], batches=2, warmup=0, visits=1, fresh=True
    )
    assert [len(timing.seconds) for timing in twice.values()] == [2, 2]
    assert twice["a"].seconds != twice["b"].seconds


def test_no_more_visits_than_batches():
    with pytest.raises(ConfigError, match="visits must be from 0 to the number of batches, 2, not 3"):
        timing_of(TINY, batches=2, visits=3)


def test_no_sends_no_peak():
    assert math.isnan(spans.peak_send([]))
    assert spans.computation_seconds([]) == 0.0


# --- Stages ----------------------------------------------------------------------------------------------------------


TEXT = get_profile("smoke").scale(DOCUMENT_SETTINGS["cola"], partition="condition_1", compressor="sort", chunks=2)
FROZEN = TEXT.replace(partition="custom", cuts="1,2", lora_rank=4)


@pytest.mark.parametrize(
    "config",
    [TINY, TINY.replace(chunks=3), SORT, TEXT.replace(padding="skipped"), FROZEN],
    ids=["none", "uneven", "sort", "no_padding", "frozen_head"],
)
def test_stage_times_are_of_the_work_that_trains(config):
    """The plain order gives the engine's gradients, so what is timed is what is trained."""
    engine, plain = trainer_of(config), trainer_of(config)
    inputs, labels = next(iter(engine.rest_of_epoch()))
    engine.engine.train()
    engine.engine.train_batch(inputs, labels, step=0, scale=engine.updater.scale)
    run = _Sequential(plain)
    run.gradients(inputs, labels)
    pairs = zip(engine.engine.named_parameters(), plain.engine.named_parameters(), strict=True)
    for (name, a), (_, b) in pairs:
        if a.grad is not None:
            torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: name + text)
    sent = sum(sum(each) for each in run.nbytes.values())
    assert sent == engine.engine.traffic.sent_bytes
    assert (run.work().gradient_1 is None) == (config is FROZEN), "no gradient crosses to what does not train"


def test_every_stage_gets_its_tensors_on_its_own_device():
    """A device that computes nothing stands in for a GPU; so no gradient may come back from it."""
    trainer = trainer_of(TEXT.replace(partition="condition_3", padding="skipped"))
    run, seen = _Sequential(trainer), []
    for stage, device in zip(run.stages, map(torch.device, ("cpu", "cpu", "meta")), strict=True):
        stage.to(device).device = trainer.engine.device = device
        stage.register_forward_pre_hook(lambda stage, args: seen.append({stage.device, *(x.device for x in args[0])}))
    run.returns = [False, False]
    run.gradients(*next(iter(trainer.rest_of_epoch())))
    assert len(seen) == 3 * TEXT.chunks and all(len(devices) == 1 for devices in seen)


def test_stage_times_of_changes_are_refused():
    with pytest.raises(ConfigError, match="stage times need coding 'tensor'"):
        stage_work(SORT.replace(coding="change"), device="cpu", batches=1)
    with pytest.raises(ConfigError, match="'eager' codes changes"):
        measuring.measure_in_turn({"eager": SORT.replace(coding="change")}, devices=["cpu"], **FEW)


@pytest.mark.parametrize(("partition", "parts"), [("none", 1), ("balanced", 4)])
def test_stage_times_are_those_of_three_stages(partition, parts):
    config = TINY.replace(partition=partition, stages=4 if parts == 4 else 3)
    with pytest.raises(ConfigError, match=rf"a head, a body and a tail; .*'{partition}' has {parts} parts"):
        stage_work(config, device="cpu", batches=1)


def test_bytes_are_the_mean_of_the_batches_that_count():
    """Without padding every batch has its own."""
    config = TINY.replace(padding="skipped", compressor="uniform", compressor_options={"bits": 8})
    trainer, sent = trainer_of(config), []
    batches = [batch for batch, _ in zip(trainer.rest_of_epoch(), range(3), strict=False)]
    for inputs, labels in batches:
        before = trainer.engine.traffic.sent_bytes
        trainer.step(inputs, labels)
        sent.append(trainer.engine.traffic.sent_bytes - before)
        trainer.state.step += 1
    assert len(set(sent)) > 1
    assert timing_of(config, batches=2, warmup=1).payload_bytes == round(sum(sent[1:]) / 2)
    work = stage_work(config, device="cpu", batches=2, warmup=1)
    messages = (work.activation_1, work.gradient_1, work.activation_2, work.gradient_2)
    chunks = 2 * config.chunks  # of two batches
    assert sum(m.nbytes for m in messages) * chunks == pytest.approx(sum(sent[1:]), abs=4 * chunks)


def test_stage_times_predict_a_batch():
    work = stage_work(SORT, device="cpu", batches=1, warmup=1)
    times = [getattr(work, f.name) for f in dataclasses.fields(work)]
    assert all(time > 0 for time in times if isinstance(time, float))
    assert work.server_optimizer + work.client_optimizer > 0
    predicted = predict(work, chunks=2, link=Link())
    assert predicted.ideal <= predicted.seconds <= work.client_compute(2) + work.server_compute(2) + 1


def test_the_optimizers_time_is_shared_by_parameters():
    work = stage_work(TINY, device="cpu", batches=1, warmup=0)
    sizes = [sum(p.numel() for p in stage.parameters()) for stage in measuring.stages_of(trainer_of(TINY))]
    both = work.client_optimizer + work.server_optimizer
    assert work.server_optimizer / both == pytest.approx(sizes[1] / sum(sizes))


def test_stage_times_are_measured_once_and_read_back_as_they_were():
    made = kept_stage_work(SORT, device="cpu", batches=1)
    assert kept_stage_work(SORT, device="cpu", batches=1) == made
    assert kept_stage_work(SORT, device="cpu", batches=2) != made, "one batch is too few"
    assert kept_stage_work(SORT, device="cpu", batches=1, fresh=True) != made
    (path,) = runtime.results_dir().glob("timing-stages-*.json")
    timing = read_kept(path)
    assert (timing.config, timing.devices, timing.repeats) == (SORT.to_dict(), ("cpu",) * 3, 1)
    assert results.all_records() == [], "it is no record of a run"
    path.write_text(path.read_text().replace(timing.environment["hardware"], "another machine"))
    here = kept_stage_work(SORT, device="cpu", batches=1)
    assert here.head_forward != timing.values["head_forward"], "another machine's is no measurement here"
    text = path.read_text()
    for damaged in (text[:-20], text.replace("head_forward", "head_backwards")):
        path.write_text(damaged)
        with pytest.raises(RecordError, match=r"not a readable timing.*measure again with fresh"):
            kept_stage_work(SORT, device="cpu", batches=1)


def test_codec_times_are_of_all_tensors_and_leave_the_codecs_alone():
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(4, 8, 16, 16, generator=generator) for name in ("activation 1", "gradient 2")}
    codecs = {"low rank": make_compressors("power_iteration", {"rank": "2,4"}), "none": make_compressors("none", {})}
    found = codec_times(codecs, tensors, repeats=2, warmup=1)
    assert all(codec.state is None for codec in codecs["low rank"])
    nbytes = [4 * rank * (8 + 256) * 4 + HEADER_BYTES for rank in (2, 4)]
    assert found["low rank"]["compression_ratio"] == pytest.approx(sum(nbytes) / (2 * 4 * 8 * 256 * 4))
    assert found["none"]["compression_ratio"] == pytest.approx(1, abs=0.01)
    assert found["low rank"]["seconds"] > found["none"]["encode"] > 0


def test_codecs_warm_up_before_they_count():
    class Starting(Identity):
        """Slow the first two times, as one that compiles its loops."""

        calls = 0

        def encode(self, x, *, room=0):
            Starting.calls += 1
            time.sleep(0.5 if Starting.calls < 3 else 0.0)
            return super().encode(x, room=room)

    found = codec_times({"codec": [Starting()]}, {"activation 1": torch.zeros(8)}, repeats=1, warmup=2)
    assert Starting.calls == 3 and found["codec"]["encode"] < 0.5


def test_runs_in_turn_count_after_the_warm_up():
    calls = []
    runs = {"slow": lambda: calls.append("slow") or time.sleep(0.02), "fast": lambda: calls.append("fast")}
    found = seconds_in_turn(runs, repeats=2, warmup=1)
    assert calls == ["slow", "fast"] * 3
    assert found["slow"] >= 0.02 > 10 * found["fast"]
