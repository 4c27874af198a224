"""The code of two machines in one process: the same bits as torchgpipe, and errors where a wire goes wrong."""

import pytest
import torch

from splitlib import experiment
from splitlib.data import load_task
from splitlib.errors import ConfigError, PayloadError, PeerError, SplitlibError
from splitlib.pipeline.remote.client import RemotePipeline
from splitlib.pipeline.remote.control import LocalControl
from splitlib.pipeline.remote.endpoint import Endpoint
from splitlib.pipeline.remote.kept import KeptSteps
from splitlib.pipeline.remote.link import Link
from splitlib.pipeline.remote.transport import LocalTransport
from splitlib.pipeline.remote.wire import (
    ACTIVATION_1,
    ACTIVATION_2,
    FROM_CLIENT,
    FROM_SERVER,
    GRADIENT_1,
    GRADIENT_2,
    KINDS,
    Frame,
    decode_frame,
    read_frame,
)
from splitlib.progress import Progress
from splitlib.results import record_path
from splitlib.runtime import checkpoints_dir
from splitlib.timeline import ACTIVITIES
from splitlib.training import Trainer
from tests.support import TINY, TINY_VISION, trainer_of

TEXT = TINY.replace(engine="simulated", train_samples=48, chunks=3)
VISION = TINY_VISION.replace(engine="simulated", eval_samples=21, epochs=2)


def fitted(config, tmp_path, **options):
    """A trainer after its run, with its engine still open."""
    trainer = experiment.prepare(config, None, torch.device("cpu"), **options)
    with trainer.opened():
        trainer.fit(tmp_path / "checkpoint.pt", Progress("test", 1))
    return trainer


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"compressor": "cast"},
        {"compressor": "uniform", "gradient_compressor": "sort"},
        {"compressor": "uniform", "compressor_options": {"bits": 4, "block": 64}},
        {"compressor": "fast"},
        {"compressor": "sort", "compressor_options": {"zstd": 1}},
        {"compressor": "sort", "compressor_options": {"codes": "context"}},
        {"compressor": "deadzone", "gradient_compressor": "deadzone", "gradient_options": {"scale": "row"}},
        {"compressor": "topk", "compressor_options": {"random": 0.1, "values": "float8"}},
        {"compressor": "power_iteration", "compressor_options": {"rank": "3,7"}},
        {"compressor": "sort", "coding": "change"},
        {"compressor": "uniform", "compressor_options": {"bits": 2}, "error_feedback": "gradients"},
        {"precision": "bf16"},
        {"optimizer": "sgd", "momentum": 0.9, "scheduler": "cosine", "warmup": 0.3},
    ],
    ids=lambda change: ", ".join(map(str, change.values())) or "plain",
)
@pytest.mark.parametrize("config", [TEXT, VISION], ids=["text", "vision"])
def test_gpipe_has_the_in_process_engines_bits(config, change):
    config = config.replace(**change)
    assert_same_record(experiment.run(config), experiment.run(config.replace(engine="in_process")))


@pytest.mark.parametrize(
    "change",
    [
        {"lora_rank": 4},
        {"partition": "condition_2"},
        {"partition": "condition_3"},
        {"padding": "skipped"},
        {"padding": "skipped", "compressor": "power_iteration", "compressor_options": {"rank": 3}},
        {"padding": "skipped", "lora_rank": 4, "partition": "custom", "cuts": "1,5"},  # a head that waits for nothing
        {"padding": "skipped", "compressor": "sort", "coding": "change", "error_feedback": "gradients"},
        {"insert": "linear"},
        {"insert": "decaying_linear", "insert_options": {"steps": 2, "rate": 0.5, "l1": 0.01, "token_rate": 0.9}},
    ],
    ids=lambda change: ", ".join(map(str, change.values())),
)
def test_what_only_text_has_keeps_its_bits_too(change):
    config = TEXT.replace(**change)
    assert_same_record(experiment.run(config), experiment.run(config.replace(engine="in_process")))


def test_inserted_convolutions_keep_their_bits():
    config = VISION.replace(partition="conv_insert_type_2", image_size=64, epochs=1)
    assert_same_record(experiment.run(config), experiment.run(config.replace(engine="in_process")))


def assert_same_record(apart, together) -> None:
    assert apart.history == together.history
    for name in ("activation_bytes", "gradient_bytes", "uncompressed_bytes", "parameters", "samples_seen"):
        assert getattr(apart, name) == getattr(together, name), name
    assert apart.weights_norm == pytest.approx(together.weights_norm, rel=1e-12)


def test_weights_end_with_the_same_bits(tmp_path):
    apart = fitted(VISION.replace(compressor="sort"), tmp_path)
    together = fitted(VISION.replace(compressor="sort", engine="in_process"), tmp_path)
    weights = [*apart.engine.state_dict().items(), *apart.engine._dial.session.body.state_dict().items()]
    expected = {name.partition("layers.")[2]: value for name, value in together.engine.state_dict().items()}
    assert len(weights) == len(expected) == len({name.partition("layers.")[2] for name, _ in weights})
    for name, value in weights:
        assert torch.equal(value, expected[name.partition("layers.")[2]]), name


@pytest.mark.parametrize("config", [TEXT, VISION], ids=["text", "vision"])
def test_1f1b_has_gpipes_gradients_up_to_rounding(config):
    one, other = (experiment.run(config.replace(schedule=name)) for name in ("1f1b", "gpipe"))
    for first, second in zip(one.history, other.history, strict=True):
        assert first.train_loss == pytest.approx(second.train_loss, rel=1e-4)
        assert first.eval_loss == pytest.approx(second.eval_loss, rel=1e-3)
    assert (one.activation_bytes, one.gradient_bytes) == (other.activation_bytes, other.gradient_bytes)


def test_1f1b_adds_up_the_unsplit_batchs_gradient(tmp_path):
    config = TEXT.replace(schedule="1f1b")
    gradients = {}
    for schedule in ("gpipe", "1f1b"):
        trainer = experiment.prepare(config.replace(schedule=schedule), None, torch.device("cpu"))
        inputs, labels = next(iter(trainer.rest_of_epoch(0)))
        with trainer.opened():
            trainer.engine.train()
            trainer.engine.train_batch(inputs, labels, step=0, scale=lambda loss: loss)
        gradients[schedule] = [p.grad for p in trainer.engine.parameters()]
    for one, other in zip(gradients["1f1b"], gradients["gpipe"], strict=True):
        torch.testing.assert_close(one, other)


def test_masks_of_a_batch_ahead_do_not_reach_back(tmp_path):
    """A gradient may be decoded after the next batch's first tensor has brought its mask."""
    trainer = experiment.prepare(TEXT.replace(padding="skipped"), None, torch.device("cpu"))
    with trainer.opened():
        place = trainer.engine.endpoint._place
        first, second = torch.tensor([[1, 0]]), torch.tensor([[1, 1]])
        place(Frame(kind=ACTIVATION_1, step=3), (first,))
        place(Frame(kind=ACTIVATION_1, step=4), (second,))
        assert torch.equal(place(Frame(kind=GRADIENT_2, step=3), ()).tokens, first.bool())
        assert torch.equal(place(Frame(kind=GRADIENT_2, step=4), ()).tokens, second.bool())


def test_the_clock_does_not_decide_a_bit(tmp_path):
    """A slow link changes who waits for whom, and no loss."""
    config = TEXT.replace(epochs=1, schedule="1f1b", compressor="power_iteration")
    slow = fitted(config, tmp_path, link=Link(rate_mbit=20, latency_ms=5))
    assert slow.state.history == fitted(config, tmp_path).state.history


# --- What travels ---


@pytest.fixture
def overheard(monkeypatch):
    """Every message that a transport carries."""
    messages, send = [], LocalTransport.send

    def listen(self, kind, message):
        messages.append(message.clone())
        send(self, kind, message)

    monkeypatch.setattr(LocalTransport, "send", listen)
    return messages


@pytest.mark.parametrize("config", [TEXT, VISION], ids=["text", "vision"])
def test_labels_and_inputs_never_leave_the_client(config, overheard, monkeypatch):
    said, send = [], LocalControl.send

    def listen(self, kind, **values):
        said.append(values)
        send(self, kind, **values)

    monkeypatch.setattr(LocalControl, "send", listen)
    experiment.run(config.replace(epochs=1))
    data = load_task(config)
    frames = [(read_frame(message), message) for message in overheard]
    assert {frame.kind for frame, _ in frames} == {*FROM_CLIENT, *FROM_SERVER}
    for frame, message in frames:
        tensor, beside = decode_frame(frame, message, torch.device("cpu"))
        assert tensor.is_floating_point() and tensor.ndim > 2, "activations and their gradients alone"
        assert len(beside) == (frame.kind == ACTIVATION_1 and config.kind == "text")
        for mask in beside:
            assert mask.unique().tolist() in ([0, 1], [1]), "an attention mask, no token"
    assert not any(name == "labels" for message in said for name in message)
    assert data.num_labels == said[0]["num_labels"]


def test_the_record_counts_payloads_and_the_endpoint_what_was_sent(overheard, tmp_path):
    trainer = experiment.prepare(TEXT.replace(compressor="uniform"), None, torch.device("cpu"))
    with trainer.opened():
        for inputs, labels in trainer.rest_of_epoch(0):
            trainer._timed_step(inputs, labels)
        counts = trainer.engine.endpoint.counts
        frames = [read_frame(message) for message in overheard]
        for kind in KINDS:
            if kind in counts:
                assert counts[kind].wire == sum(frame.nbytes for frame in frames if frame.kind == kind)
                assert counts[kind].payload == sum(frame.payload_nbytes for frame in frames if frame.kind == kind)
        traffic = trainer.engine.traffic
        assert traffic.activation_bytes == counts[ACTIVATION_1].payload + counts[ACTIVATION_2].payload
        assert traffic.gradient_bytes == counts[GRADIENT_1].payload + counts[GRADIENT_2].payload
        assert sum(map(len, overheard)) == sum(count.wire for count in counts.values())


def test_the_timeline_has_both_sides_of_a_batch():
    trainer = experiment.prepare(TEXT.replace(compressor="sort", chunks=2), None, torch.device("cpu"))
    with trainer.opened():
        inputs, labels = next(iter(trainer.rest_of_epoch(0)))
        trainer.step(inputs, labels)
        spans = trainer.engine.take_spans()
    seen = {(span.side, span.activity, span.what, span.micro_batch) for span in spans}
    for i in range(2):
        for work in ("head", "tail", "tail gradient", "head gradient"):
            assert ("client", "compute", work, i) in seen
        for work in ("body", "body gradient"):
            assert ("server", "compute", work, i) in seen
        for kinds, sender, receiver in ((FROM_CLIENT, "client", "server"), (FROM_SERVER, "server", "client")):
            for kind in kinds:
                assert {(sender, "encode", KINDS[kind], i), (sender, "send", KINDS[kind], i)} <= seen
                assert (receiver, "decode", KINDS[kind], i) in seen
    assert {span.activity for span in spans} == set(ACTIVITIES)
    assert all(span.end >= span.start for span in spans)
    assert all(span.nbytes > 0 for span in spans if span.activity == "send")
    first = {(span.activity, span.what, span.micro_batch): span for span in spans}
    sent, decoded = first["send", "activation 1", 0], first["decode", "activation 1", 0]
    assert sent.start < decoded.start < first["compute", "body", 0].start


@pytest.mark.parametrize("rate", [0.0, 1000.0])
def test_latency_delays_what_is_sent(rate):
    trainer = experiment.prepare(TEXT, None, torch.device("cpu"), link=Link(rate_mbit=rate, latency_ms=100))
    with trainer.opened():
        trainer.step(*next(iter(trainer.rest_of_epoch())))
        spans = trainer.engine.take_spans()
    sent, decoded = (
        {(span.what, span.micro_batch): span for span in spans if span.activity == activity}
        for activity in ("send", "decode")
    )
    assert len(sent) == 4 * 3
    assert all(decoded[place].start - sent[place].end > 0.09 for place in sent)


def test_the_servers_spans_are_told_by_the_clients_clock(monkeypatch):
    monkeypatch.setattr(LocalControl, "clock_offset", lambda self: 100.0)
    trainer = trainer_of(TEXT)
    with trainer.opened():
        trainer.step(*next(iter(trainer.rest_of_epoch())))
        spans = trainer.engine.take_spans()
    client, server = ({span.start for span in spans if span.side == side} for side in ("client", "server"))
    assert 90 < min(server) - max(client) < 110


# --- What goes wrong ---


def test_devices_and_links_that_nothing_would_use_are_refused(tmp_path):
    """A record named three devices where the first had computed everything, and a link was dropped."""
    cpu, other = torch.device("cpu"), torch.device("meta")
    with pytest.raises(ConfigError, match="'simulated' computes a side on one device, not on cpu,meta; name one"):
        experiment.prepare(TEXT, None, [cpu, other, other])
    slow, alone = Link(rate_mbit=1), TEXT.replace(engine="in_process")
    with pytest.raises(ConfigError, match="'in_process' sends nothing over a link; use simulated or two_machines"):
        experiment.prepare(alone, None, cpu, link=slow)
    replicas = alone.replace(engine="data_parallel", partition="none", chunks=1)
    with pytest.raises(ConfigError, match="'data_parallel' sends nothing over a link"):
        experiment.run(replicas, device="cpu", link=slow)
    assert not (tmp_path / "results").exists()
    assert experiment.prepare(TEXT, None, [cpu] * 3, link=slow) and experiment.prepare(alone, None, cpu, link=Link())


@pytest.mark.parametrize("kind", [ACTIVATION_1, GRADIENT_1, ACTIVATION_2, GRADIENT_2], ids=KINDS.get)
@pytest.mark.parametrize("where", [20, 60, -1], ids=["frame", "payload header", "body"])
def test_a_damaged_frame_ends_the_run_with_an_error(kind, where, monkeypatch):
    send = LocalTransport.send

    def damage(self, sent, message):
        if sent == kind:
            message[where] ^= 4
        send(self, sent, message)

    monkeypatch.setattr(LocalTransport, "send", damage)
    with pytest.raises(SplitlibError, match=r"(frame|payload).* (corrupted|is \d+|has \d+|version)"):
        experiment.run(TEXT)


def test_a_frame_out_of_place_ends_the_run_with_an_error(monkeypatch):
    send, held = Endpoint.send, []

    def swap(self, frame, x, beside=()):
        if frame.kind == ACTIVATION_2 and frame.micro_batch < 2 and not held:
            held.append((frame, x, beside))
            return
        send(self, frame, x, beside)
        if frame.kind == ACTIVATION_2 and len(held) == 1:
            held.append(None)
            send(self, *held[0])

    monkeypatch.setattr(Endpoint, "send", swap)
    with pytest.raises(PayloadError, match=r"expected activation 2, micro-batch 0 of 3.*received .* micro-batch 1"):
        experiment.run(TEXT)


def test_an_error_on_the_server_reaches_the_client(monkeypatch):
    def fail(self, i):
        raise ZeroDivisionError("a bug in the body")

    monkeypatch.setattr("splitlib.pipeline.remote.server._ServerBatch.body_gradient", fail)
    with pytest.raises(PeerError, match="the simulated server was lost at step 0: it ended: a bug in the body"):
        experiment.run(TEXT)


def test_a_server_that_does_not_say_it_finished_leaves_nothing_open(monkeypatch):
    send = LocalControl.send
    monkeypatch.setattr(LocalControl, "send", lambda self, kind, **v: kind == "finished" or send(self, kind, **v))
    monkeypatch.setattr("splitlib.pipeline.remote.client._SAVING_SECONDS", 0.2)
    trainer = trainer_of(TEXT)
    with pytest.raises(PeerError, match=r"gave no answer within 0\.2 s"), trainer.opened():
        endpoint = trainer.engine.endpoint
    assert trainer.engine._control is trainer.engine._endpoint is None
    assert not any(thread.is_alive() for thread in endpoint._threads)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"partition": "none"}, "engine 'simulated' needs a cut"),
        ({"precision": "fp16"}, "fp16 is for engine in_process"),
        ({"engine": "in_process", "schedule": "1f1b"}, "schedule '1f1b' is for two machines"),
    ],
)
def test_impossible_settings_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        TEXT.replace(**change)


def test_two_machines_need_a_server():
    with pytest.raises(ConfigError, match="needs a server: start one with python -m splitlib server"):
        experiment.run(TEXT.replace(engine="two_machines"))


@pytest.mark.parametrize("stop_after", [1, 2, 4])
@pytest.mark.parametrize("compressor", ["sort", "power_iteration"])
def test_a_stopped_run_goes_on_with_the_same_bits_on_both_sides(stop_after, compressor, monkeypatch):
    config = TEXT.replace(compressor=compressor)
    whole = experiment.run(config)
    _cut_power(monkeypatch, stop_after)
    with pytest.raises(RuntimeError, match="power cut"):
        experiment.run(config, fresh=True)
    record_path(config).unlink()
    resumed = experiment.run(config)
    assert resumed.history == whole.history
    assert (resumed.activation_bytes, resumed.gradient_bytes) == (whole.activation_bytes, whole.gradient_bytes)


def _cut_power(monkeypatch, steps: int) -> None:
    """Checkpoint every step; fail once, after ``steps`` of them; fail for good if a step is taken twice."""
    step, taken = Trainer.step, []

    def stop(self, inputs, labels):
        taken.append(self.steps_done)
        if len(taken) == steps + 1:
            raise RuntimeError("power cut")
        assert taken.count(self.steps_done) <= 1 + (self.steps_done == steps)
        return step(self, inputs, labels)

    monkeypatch.setattr(Trainer, "step", stop)
    monkeypatch.setattr("splitlib.training.CHECKPOINT_SECONDS", 0.0)


def test_a_run_that_diverges_ends_with_its_record_as_in_one_process():
    """Its last epoch is short: both sides count the steps that were taken, not those of whole epochs."""
    config = TEXT.replace(lr=1e30, optimizer="sgd")
    record = experiment.run(config)
    assert record.diverged and record.samples_seen % (config.train_samples or 0) > 0
    assert record.samples_seen == experiment.run(config.replace(engine="in_process")).samples_seen


def test_both_sides_start_over_when_asked_to(monkeypatch):
    with monkeypatch.context() as patch:
        _cut_power(patch, 2)
        with pytest.raises(RuntimeError, match="power cut"):
            experiment.run(TEXT)
    assert len(list(checkpoints_dir().glob("*-server-*.pt"))) == 2, "the last two steps"
    assert experiment.run(TEXT, fresh=True).history == experiment.run(TEXT.replace(engine="in_process")).history
    assert not list(checkpoints_dir().iterdir()), "a complete run leaves no checkpoint"


def test_a_server_without_the_clients_step_refuses_with_what_it_has(monkeypatch):
    _cut_power(monkeypatch, 3)
    with pytest.raises(RuntimeError, match="power cut"):
        experiment.run(TEXT)
    (checkpoints_dir() / f"{TEXT.key}-server-3.pt").unlink()
    with pytest.raises(PeerError, match=r"goes on from step 3, of which the server has no checkpoint \(it has: 2\)"):
        experiment.run(TEXT)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda engine, batch: engine.keep(5), "the client saves step 5; the server is at step 0"),
        (
            lambda engine, batch: engine.train_batch(*batch, step=5, scale=lambda loss: loss),
            "the client sent a batch of step 5; the server is at step 0",
        ),
    ],
    ids=["checkpoint", "batch"],
)
def test_a_client_at_another_step_is_refused(ask, words):
    trainer = trainer_of(TEXT)
    batch = next(iter(trainer.rest_of_epoch()))
    with pytest.raises(PeerError, match=words), trainer.opened():
        ask(trainer.engine.train(), batch)


def test_a_servers_checkpoint_of_other_data_is_refused():
    KeptSteps(TEXT, "one").save(3, {"model": {}})
    assert KeptSteps(TEXT, "one").load(3)["model"] == {}
    with pytest.raises(PeerError, match="is of other data or another version"):
        KeptSteps(TEXT, "another").load(3)


def test_a_client_that_died_before_its_own_checkpoint_goes_on_from_the_one_before(monkeypatch):
    """The server saves first; the client is killed in between."""
    whole = experiment.run(TEXT)
    keep = RemotePipeline.keep

    def die(self, step):
        keep(self, step)
        if step == 2:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        _cut_power(patch, 99)
        patch.setattr(RemotePipeline, "keep", die)
        with pytest.raises(RuntimeError, match="killed"):
            experiment.run(TEXT, fresh=True)
    record_path(TEXT).unlink()
    assert trained_from(TEXT, "-fresh") == 1
    assert experiment.run(TEXT).history == whole.history


def trained_from(config, kind: str = "") -> int:
    """The step the client's checkpoint holds."""
    trainer = trainer_of(config)
    trainer.restore(checkpoints_dir() / f"{config.key}{kind}.pt")
    return trainer.steps_done
