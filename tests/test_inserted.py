"""Inserted layers: the identity is exact, the kept rank decays on schedule, and a resumed run has the same bits."""

import copy

import pytest
import torch

from splitlib import experiment
from splitlib.compressors import HEADER_BYTES, make_compressor
from splitlib.compressors.deadzone import DeadZone
from splitlib.config import choices
from splitlib.data.text import vocabulary_size
from splitlib.errors import ConfigError
from splitlib.models.inserted import INSERTS, Decay, DecayingLinear, LinearInsert, make_insert
from splitlib.models.mobilenet import mobilenet_v2_tiny
from splitlib.models.roberta import roberta_tiny
from splitlib.optimization import Updater
from splitlib.partition import split
from splitlib.pipeline import Boundary, build_pipeline
from splitlib.progress import Progress
from splitlib.training import Trainer
from tests.support import TINY, trainer_of

DECAYING = TINY.replace(
    insert="decaying_linear",
    insert_options={"steps": 2, "rate": 0.8, "iterations": 3, "l1": 1e-3, "token_rate": 0.9},
)
LENGTH = 24


def inputs_of(size: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask with padding."""
    ids = torch.randint(4, vocabulary_size(), (size, LENGTH))
    mask = torch.ones_like(ids)
    mask[0, 15:] = 0
    return ids, mask


def one_step(trainer: Trainer) -> float:
    """Train on the first batch."""
    inputs, labels = next(iter(trainer.rest_of_epoch(0)))
    return trainer.step(inputs, labels)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("linear", {"ratio": 1.0}),
        ("decaying_linear", {}),
        ("decaying_linear", {"token_rate": 0.95}),
    ],
)
@pytest.mark.parametrize("partition", ["condition_1", "condition_2", "condition_3"])
def test_identity_start_at_full_rank_is_the_unsplit_model_bit_for_bit(name, options, partition):
    torch.manual_seed(0)
    unsplit = roberta_tiny(2).eval()
    stages = split(copy.deepcopy(unsplit), partition, insert=make_insert(name, **options), max_length=LENGTH)
    ids, mask = inputs_of()
    assert torch.equal(stages(ids, mask), unsplit(input_ids=ids, attention_mask=mask).logits)


@pytest.mark.parametrize("start", ["identity", "random"])
def test_linear_sends_its_share_of_the_width_and_restores_it(start):
    hidden = torch.randn(2, LENGTH, 64)
    sender, receiver = make_insert("linear", ratio=0.25, start=start).pair(64, LENGTH)
    sent = sender(hidden)
    assert sent.shape == (2, LENGTH, 16) and receiver(sent).shape == hidden.shape
    assert torch.equal(sent, hidden[..., :16]) == (start == "identity")
    restored = torch.cat([hidden[..., :16], torch.zeros(2, LENGTH, 48)], dim=-1)
    assert torch.equal(receiver(sent), restored) == (start == "identity")


def test_the_random_start_follows_the_seed():
    first, again, other = (trainer_of(TINY.replace(insert="linear", seed=s)).engine.state_dict() for s in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("rate", "iterations", "ratio"), [(0.9, 9, 0.387), (0.83, 5, 0.394), (1.0, 9, 1.0), (0.9 * 0.95, 9, 0.244)]
)
def test_the_schedule_ends_at_the_documents_ratios(rate, iterations, ratio):
    decay = Decay(768, steps=100, rate=rate, iterations=iterations)
    assert decay.kept(10**6) / 768 == pytest.approx(ratio, abs=1.5e-3)
    assert decay.kept(99) == 768 and decay.kept(iterations * 100) == decay.kept(10**6)
    assert decay.kept(iterations * 100 - 1) == decay.kept((iterations - 1) * 100)


def test_at_least_one_row_is_always_kept():
    assert Decay(4, steps=1, rate=0.1, iterations=9).kept(100) == 1


def test_each_layer_uses_only_the_kept_slice():
    sender, receiver = make_insert("decaying_linear", steps=1, rate=0.5, token_rate=0.5).pair(8, 6)
    assert [layer.steps_taken for layer in (*sender, *receiver)] == [0] * 4
    for layer in (*sender, *receiver):
        layer.step()
    hidden = torch.randn(2, 6, 8)
    sent = sender(hidden)
    assert torch.equal(sent, hidden[:, :3, :4])
    restored = receiver(sent)
    assert torch.equal(restored[:, :3, :4], sent) and restored.abs().sum() == sent.abs().sum()
    assert restored.shape == hidden.shape


@pytest.mark.parametrize("sends", [True, False])
def test_l1_pulls_by_the_sign_of_the_weight_only_what_is_about_to_be_cut(sends):
    """002 §1.2's listing takes the sign of the gradient: with no other loss that would be no pull at all."""
    layer = DecayingLinear(Decay(4, steps=10, rate=0.5, iterations=1), sends=sends, along_tokens=False, l1=0.1)
    weights = torch.tensor([[1.0, -2, 3, -4], [5, 6, -7, 8], [-1, 0, 1, -1], [2, -2, 0, 2]])
    layer.weight.data = weights if sends else weights.t().contiguous()
    layer.penalty().backward()
    wanted = torch.zeros(4, 4)
    wanted[2:] = 0.1 * weights[2:].sign()
    assert torch.equal(layer.weight.grad, wanted if sends else wanted.t())
    for _ in range(10):
        layer.step()
    assert layer.kept == 2 and layer.penalty() == 0, "after the last cut nothing is about to be cut"


@pytest.mark.parametrize("chunks", [1, 4])
def test_the_penalty_counts_once_a_batch(chunks):
    gradients = {}
    for l1 in (0.0, 0.5):
        config = DECAYING.replace(chunks=chunks, insert_options={**DECAYING.insert_options, "l1": l1})
        trainer = trainer_of(config)
        assert one_step(trainer) > 0
        layer = next(m for m in trainer.engine.modules() if isinstance(m, DecayingLinear))
        gradients[l1] = layer.weight.grad.clone()
    kept = int(64 * 0.8)
    difference = gradients[0.5] - gradients[0.0]
    assert difference[:kept].abs().max() == 0
    assert torch.allclose(difference[kept:], 0.5 * torch.eye(64)[kept:], atol=1e-6)


def test_the_loss_reported_is_without_the_penalty():
    with_penalty = DECAYING.replace(insert_options={**DECAYING.insert_options, "l1": 10.0})
    without = DECAYING.replace(insert_options={**DECAYING.insert_options, "l1": 0.0})
    assert one_step(trainer_of(with_penalty)) == one_step(trainer_of(without))


def test_a_loss_scale_changes_no_step():
    """fp16's, a power of two: the penalty's gradient is scaled as the batch's is, and both are divided again."""
    weights = {}
    for precision in ("fp32", "fp16"):
        layer = DecayingLinear(Decay(8, steps=1, rate=0.5, iterations=2), sends=True, along_tokens=False, l1=0.5)
        config = TINY.replace(precision=precision, optimizer="sgd", lr=0.1)
        updater = Updater(layer, config, total_steps=4, device=torch.device("cpu"))
        updater.scale(layer(torch.ones(2, 3, 8)).square().mean()).backward()
        updater.step()
        weights[precision] = layer.weight.detach()
    assert torch.equal(weights["fp16"], weights["fp32"]) and not torch.equal(weights["fp32"], torch.eye(8))


@pytest.mark.parametrize("chunks", [1, 4])
def test_steps_count_batches_whatever_the_micro_batches_and_evaluations(chunks):
    trainer = trainer_of(DECAYING.replace(chunks=chunks, epochs=1))
    layers = [module for module in trainer.engine.modules() if isinstance(module, DecayingLinear)]
    assert len(layers) == 8  # two cuts, two sides, two sets
    trainer.fit(_nowhere(), Progress("test", 1))
    assert [layer.steps_taken for layer in layers] == [6] * 8
    assert {layer.kept for layer in layers} == {int(64 * 0.8**3), int(24 * 0.9**3)}


def _nowhere():
    from splitlib.runtime import checkpoints_dir

    return checkpoints_dir() / "unused.pt"


def test_bytes_on_the_wire_shrink_with_the_rank():
    trainer = trainer_of(DECAYING)
    traffic, shares = trainer.engine.traffic, []
    for inputs, labels in trainer.rest_of_epoch(0):
        sent, uncompressed = traffic.sent_bytes, traffic.uncompressed_bytes
        trainer.step(inputs, labels)
        assert traffic.uncompressed_bytes - uncompressed == 2 * 2 * 16 * 24 * 64 * 4, "of the tensors before the layers"
        shares.append((traffic.sent_bytes - sent) / (traffic.uncompressed_bytes - uncompressed))
    kept = [int(64 * 0.8**k) * int(24 * 0.9**k) / (64 * 24) for k in (0, 0, 1, 1, 2, 2)]
    assert shares == pytest.approx(kept, abs=3e-3)  # and headers
    assert shares[-1] < shares[0]


@pytest.mark.parametrize("stop_after", [1, 2, 7])
def test_a_resumed_run_goes_on_at_the_same_rank_with_the_same_bits(stop_after, tmp_path):
    whole = trainer_of(DECAYING)
    whole.fit(tmp_path / "whole.pt", Progress("test", 1))

    stopped = trainer_of(DECAYING)
    _stop_after(stopped, stop_after, tmp_path / "stopped.pt")
    resumed = trainer_of(DECAYING)
    resumed.restore(tmp_path / "stopped.pt")
    assert {layer.steps_taken for layer in resumed.updater.decaying} == {stop_after}
    resumed.fit(tmp_path / "stopped.pt", Progress("test", 1))

    assert resumed.state.history == whole.state.history
    assert resumed.engine.traffic == whole.engine.traffic
    found = resumed.engine.state_dict()
    for name, tensor in whole.engine.state_dict().items():
        assert torch.equal(tensor, found[name]), name


def _stop_after(trainer: Trainer, steps: int, checkpoint) -> None:
    """Interrupt a run while step number ``steps`` is running, as Ctrl-C does."""
    import os
    import signal

    step, taken = trainer.step, iter(range(1, 1000))

    def pressing(inputs, labels):
        if next(taken) == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return step(inputs, labels)

    trainer.step = pressing
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(checkpoint, Progress("test", 1))


def test_inserted_layers_train_beside_lora():
    trainer = trainer_of(DECAYING.replace(lora_rank=4))
    before = [layer.weight.clone() for layer in trainer.updater.decaying]
    one_step(trainer)
    assert all(not torch.equal(old, layer.weight) for old, layer in zip(before, trainer.updater.decaying, strict=True))


def test_the_boundary_knows_the_sender_before_it():
    trainer = trainer_of(TINY.replace(insert="linear", insert_options={"ratio": 0.25}))
    one_step(trainer)
    boundaries = [module for module in trainer.engine.modules() if isinstance(module, Boundary)]
    assert [boundary.shrinkage() for boundary in boundaries] == [4.0, 4.0]


def test_the_ratio_of_conv_inserts_counts_what_they_save():
    """0.0676 of the elements cross with the layers of type 2; at 64 pixels the two cuts weigh as they do at 224."""
    codec = make_compressor("none")
    stages = split(mobilenet_v2_tiny(10), "conv_insert_type_2")
    pipeline = build_pipeline(
        stages.parts, devices=[torch.device("cpu")] * 3, chunks=2, activations=codec, gradients=codec
    ).train()
    pipeline(torch.randn(4, 3, 64, 64)).sum().backward()
    wide, sent = 32 * 32 * 32 + 1280 * 2 * 2, 20 * 8 * 8 + 320 * 2 * 2
    assert pipeline.traffic.uncompressed_bytes == 2 * 4 * 4 * wide
    assert pipeline.traffic.sent_bytes == 2 * 4 * 4 * sent + 8 * HEADER_BYTES
    assert sent / wide == pytest.approx(0.0676, abs=1e-4)


def test_every_insert_can_be_chosen():
    assert ("none", *INSERTS) == choices.INSERTS


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("conv", {}, "unknown insert 'conv'; choose from linear, decaying_linear"),
        ("linear", {"rate": 0.5}, "insert 'linear' has no parameter 'rate'; it takes ratio, start"),
        ("linear", {"ratio": "half"}, "ratio must be float, not 'half'"),
        ("linear", {"ratio": 1.5}, r"ratio must be in \(0, 1\], not 1.5"),
        ("linear", {"start": "zeros"}, "start must be one of identity, random, not 'zeros'"),
        ("decaying_linear", {"steps": 0}, "steps must be at least 1, not 0"),
        ("decaying_linear", {"iterations": 0}, "iterations must be at least 1, not 0"),
        ("decaying_linear", {"rate": 0.0}, r"rate must be in \(0, 1\], not 0.0"),
        ("decaying_linear", {"token_rate": 1.1}, r"token_rate must be in \[0, 1\], not 1.1"),
        ("decaying_linear", {"l1": float("nan")}, "l1 must be at least 0 and finite, not nan"),
    ],
)
def test_mistakes_are_one_clear_line(name, options, words):
    with pytest.raises(ConfigError, match=words) as error:
        make_insert(name, **options)
    assert "\n" not in str(error.value)


def test_a_wrong_option_is_found_before_the_data_is_loaded(tmp_path):
    wrong = TINY.replace(insert="linear", insert_options={"rank": 3}, train_samples=10**6)
    with pytest.raises(ConfigError, match="no parameter 'rank'"):
        experiment.run(wrong, device="cpu")


def test_nothing_is_inserted_where_there_is_no_text_cut():
    insert = make_insert("linear")
    with pytest.raises(ConfigError, match="is for the cuts of a text model, not for partition 'none'"):
        split(roberta_tiny(2), "none", insert=insert)


@pytest.mark.parametrize("made", [lambda: LinearInsert(start="zeros"), lambda: DeadZone(scale="token")])
def test_a_choice_is_checked_however_the_options_are_made(made):
    with pytest.raises(ConfigError, match="must be one of"):
        made()
