"""What both sides of a cut know and what it saves: padding stays, changes go for tensors, losses are paid back."""

import pytest
import torch

from splitlib import experiment
from splitlib.compressors import HEADER_BYTES, make_compressor
from splitlib.data.order import BatchOrder
from splitlib.errors import ConfigError
from splitlib.pipeline.channel import Channel, Coding, Place
from splitlib.progress import Progress
from tests.support import TINY, TINY_VISION, trainer_of

MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
CHANGE = {"compressor": "uniform", "compressor_options": {"bits": 2}, "coding": "change"}


def trained(config, steps=3):
    """Losses, gradients and traffic of a few steps."""
    trainer = trainer_of(config)
    losses, gradients = [], []
    for (inputs, labels), _ in zip(trainer.rest_of_epoch(), range(steps), strict=False):
        losses.append(trainer.step(inputs, labels))
        gradients.append([p.grad.clone() for p in trainer.engine.parameters() if p.grad is not None])
        trainer.state.step += 1
    return losses, gradients, trainer.engine.traffic


# --- Padding ---


@pytest.mark.parametrize("partition", ["condition_1", "condition_2", "condition_3"])
def test_without_padding_the_model_trains_the_same_and_less_crosses(partition):
    config = TINY.replace(chunks=2, partition=partition)
    losses, gradients, traffic = trained(config)
    kept_losses, kept_gradients, kept = trained(config.replace(padding="skipped"))
    assert kept_losses == pytest.approx(losses, rel=1e-6)
    for ours, whole in zip(kept_gradients, gradients, strict=True):
        assert len(ours) == len(whole)
        for one, other in zip(ours, whole, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    assert kept.uncompressed_bytes == traffic.uncompressed_bytes
    assert kept.sent_bytes < 0.9 * traffic.sent_bytes


@pytest.mark.parametrize("name", ["none", "cast", "uniform", "sort", "fast", "power_iteration", "deadzone", "topk"])
def test_real_tokens_alone_are_sent_and_padding_arrives_as_zeros(name):
    x = torch.randn(2, 4, 6)
    place = Coding(skip_padding=True).place(0, 0, mask=MASK, training=True)
    received, nbytes = Channel(make_compressor(name)).cross(x, place)
    alone = make_compressor(name).encode(x[MASK.bool()])
    assert nbytes == alone.nbytes
    assert received.shape == x.shape and not received[~MASK.bool()].any() and received[MASK.bool()].any()
    if name == "none":
        assert nbytes == HEADER_BYTES + 4 * 6 * 4 and torch.equal(received[MASK.bool()], x[MASK.bool()])


# --- Changes ---


def test_a_sample_seen_before_is_coded_by_its_change():
    """Small changes of large tensors: in two bits, the error is a share of the change, not of the tensor."""
    sender, receiver = (Channel(make_compressor("uniform", bits=2), samples=10) for _ in range(2))
    x, errors, sizes = 100 * torch.randn(4, 50), [], []
    for _ in range(3):
        place = Place(samples=torch.tensor([7, 1, 3, 9]))
        payload = sender.send(x, place)
        errors.append(float((receiver.receive(payload, place) - x).abs().max()))
        sizes.append(payload.nbytes)
        x = x + 0.5 * torch.randn(4, 50)
    assert sizes[1] == sizes[2] == HEADER_BYTES + 8 + 4 * 50 * 2 // 8 < sizes[0]
    assert errors[1] < 3 and errors[2] < 3, "a third of the change's range at most"
    assert float(make_error(x, bits=2)) > 20


def make_error(x, **options):
    """The largest error of uniform quantization by itself."""
    return (Channel(make_compressor("uniform", **options)).cross(x, Place())[0] - x).abs().max()


def test_a_batch_with_one_sample_never_seen_is_a_first_visit():
    channel, pairs = Channel(make_compressor("uniform", bits=2), samples=4), ([0, 1], [1, 2], [0, 2])
    sizes = [channel.cross(torch.randn(2, 600), Place(samples=torch.tensor(pair)))[1] for pair in pairs]
    assert sizes[1] == sizes[0] > 3 * sizes[2]


def test_both_sides_remember_the_same_and_one_process_needs_one_memory():
    sender, receiver, both = (Channel(make_compressor("sort"), samples=6) for _ in range(3))
    for step in range(4):
        x, place = torch.randn(2, 9), Place(samples=torch.tensor([step, 2]))
        received = receiver.receive(sender.send(x, place), place)
        assert torch.equal(received, both.cross(x, place)[0])
        for one in (sender, receiver):
            assert torch.equal(one.memory.tensors, both.memory.tensors)


def test_evaluation_neither_uses_nor_changes_the_memory():
    channel = Channel(make_compressor("uniform", bits=2), samples=6)
    channel.cross(torch.randn(2, 9), Place(samples=torch.tensor([0, 1])))
    before, x = channel.memory.tensors.clone(), torch.randn(2, 9)
    first, again = (channel.cross(x, Place(training=False)) for _ in range(2))
    assert torch.equal(first[0], again[0]) and first[1] == again[1]
    assert torch.equal(channel.memory.tensors, before)


def test_the_batches_order_is_the_loaders():
    config = TINY_VISION.replace(train_samples=50, batch_size=12, chunks=4)
    trainer = trainer_of(config)
    order = BatchOrder(50, 12, config.seed)
    for step in range(8):
        trainer.state.epoch, trainer.state.step = divmod(step, 4)
        _, labels = next(iter(trainer.rest_of_epoch()))
        assert labels.tolist() == [trainer.data.train[index][1] for index in order.at(step).tolist()]


def test_a_run_looks_its_samples_up_by_the_order_of_its_own_seed():
    config = TINY_VISION.replace(train_samples=50, batch_size=12, seed=5, **CHANGE)
    trainer = trainer_of(config)
    for step in range(8):
        trainer.state.epoch, trainer.state.step = divmod(step, 4)
        _, labels = next(iter(trainer.rest_of_epoch()))
        for part, answers in enumerate(labels.chunk(config.chunks)):
            place = trainer.engine.coding.place(step, part, mask=None, training=True)
            assert [trainer.data.train[index][1] for index in place.samples.tolist()] == answers.tolist()


def test_later_epochs_send_less_than_the_first():
    config = TINY_VISION.replace(train_samples=32, batch_size=16, epochs=3, gradient_compressor="none", **CHANGE)
    trainer, sent = trainer_of(config), []
    for step in range(6):
        trainer.state.epoch, trainer.state.step = divmod(step, 2)
        before = trainer.engine.traffic.activation_bytes
        trainer.step(*next(iter(trainer.rest_of_epoch())))
        sent.append(trainer.engine.traffic.activation_bytes - before)
    assert sent[0] == sent[1] and sent[2] == sent[3] == sent[4] == sent[5] < 0.3 * sent[0]


# --- Error feedback ---


def test_what_is_lost_is_paid_back():
    """Two levels, 0 and 1: 0.3 arrives as 0 each time, or, with what was lost added, as 1 in three of ten."""
    x = torch.full((100,), 0.3)
    x[0], x[1] = 0.0, 1.0
    means = {}
    for feedback in (False, True):
        channel = Channel(make_compressor("uniform", bits=1), feedback=feedback)
        means[feedback] = torch.stack([channel.cross(x, Place())[0] for _ in range(200)]).mean(0)
    assert not means[False][2:].any()
    torch.testing.assert_close(means[True], x, rtol=0, atol=0.02)


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("options", [{"feedback": True}, {"samples": 4}])
def test_what_is_no_number_crosses_and_is_gone_with_its_batch(bad, options):
    """Loss scaling sends inf now and then; remembered, it would make every later tensor NaN."""
    channel, place = Channel(make_compressor("uniform"), **options), Place(samples=torch.tensor([0, 3]))
    x = torch.randn(2, 9)
    spoilt = x.clone()
    spoilt[0, 4] = bad
    channel.cross(x, place)
    received = channel.cross(spoilt, place)[0]
    torch.testing.assert_close(received[0, 4], spoilt[0, 4], equal_nan=True)
    for _ in range(2):
        received = channel.cross(x, place)[0]
        torch.testing.assert_close(received, x, rtol=0, atol=0.05)


# --- As settings ---


@pytest.mark.parametrize(
    "change", [CHANGE, {**CHANGE, "padding": "skipped"}, {"compressor": "uniform", "error_feedback": "gradients"}]
)
def test_a_resumed_run_has_the_same_bits(change, tmp_path):
    config = TINY.replace(chunks=2, epochs=2, **change)
    whole = trainer_of(config)
    whole.fit(tmp_path / "whole.pt", Progress("test", 1))
    stopped = trainer_of(config)
    for (inputs, labels), _ in zip(stopped.rest_of_epoch(), range(2), strict=False):
        stopped._timed_step(inputs, labels)
    stopped.save(tmp_path / "stopped.pt")
    resumed = trainer_of(config)
    resumed.restore(tmp_path / "stopped.pt")
    resumed.fit(tmp_path / "stopped.pt", Progress("test", 1))
    assert resumed.state.history == whole.state.history
    assert resumed.engine.traffic == whole.engine.traffic


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"padding": "skipped", "partition": "none", "chunks": 1}, "padding 'skipped' needs a cut"),
        ({"coding": "change"}, "coding 'change' needs a compressor"),
        ({"error_feedback": "gradients"}, "error_feedback 'gradients' needs a compressor for gradients"),
        ({**CHANGE, "insert": "linear"}, "needs tensors of one shape"),
        ({"padding": "dropped"}, "unknown padding 'dropped'; choose from sent, skipped"),
    ],
)
def test_impossible_settings_are_one_clear_line(change, words):
    with pytest.raises(ConfigError, match=words):
        TINY.replace(**change)


def test_images_have_no_padding():
    with pytest.raises(ConfigError, match="padding 'skipped' is for text tasks; cifar10 has none"):
        TINY_VISION.replace(padding="skipped")


def test_settings_left_alone_keep_old_keys():
    assert TINY.key == TINY.replace(padding="sent", coding="tensor", error_feedback="none").key
    assert experiment.run(TINY).config.key != TINY.replace(padding="skipped").key
