"""What is captured is what crosses: the right shapes, the right gradients, nothing compressed."""

import itertools

import pytest
import torch

from splitlib.capture import micro_batches_at_cuts, tensors_at_cuts, tensors_of_batch
from splitlib.config import RunConfig
from splitlib.data import load_task, train_batches
from splitlib.models import build_model
from splitlib.partition import split
from tests.support import trainer_of

TINY = RunConfig(
    task="cifar10", model="mobilenet_v2_tiny", weights="random", image_size=32, train_samples=32, batch_size=8, chunks=2
)


def test_shapes_at_both_cuts_and_directions():
    found = tensors_at_cuts(TINY.replace(compressor="uniform", compressor_options={"bits": 1}), device="cpu")
    assert list(found) == ["activation 1", "activation 2", "gradient 1", "gradient 2"]
    assert found["activation 1"].shape == found["gradient 1"].shape == (8, 32, 16, 16)
    assert found["activation 2"].shape == found["gradient 2"].shape == (8, 1280, 1, 1)
    assert found["activation 1"].unique().numel() > 1000, "not quantized to one bit"


def test_micro_batches_come_in_the_order_of_training():
    found = micro_batches_at_cuts(TINY, 5, device="cpu")
    first = tensors_at_cuts(TINY, device="cpu")
    for name, micro_batches in found.items():
        assert len(micro_batches) == 5 and {len(x) for x in micro_batches} == {4}
        assert torch.equal(torch.cat(micro_batches[:2]), first[name])
    activations = found["activation 1"]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(activations, 2)), "of different samples"


def test_captured_raw_whatever_is_coded():
    change = {"compressor": "uniform", "compressor_options": {"bits": 2}, "coding": "change"}
    plain = tensors_at_cuts(TINY, device="cpu")
    coded = tensors_at_cuts(TINY.replace(error_feedback="gradients", **change), device="cpu")
    assert all(torch.equal(coded[name], x) for name, x in plain.items())


@pytest.mark.parametrize("training", [True, False])
def test_a_trainer_is_left_as_it_was(training):
    trainer = trainer_of(TINY.uncompressed(chunks=1))
    batch = next(iter(trainer.rest_of_epoch()))
    engine = trainer.engine.train(training)
    before = {name: x.clone() for name, x in engine.state_dict().items()}
    found = tensors_of_batch(trainer, *batch)
    assert engine.training == training and all(parameter.grad is None for parameter in engine.parameters())
    assert all(torch.equal(x, before[name]) for name, x in engine.state_dict().items())
    assert all(torch.equal(x, found[name]) for name, x in tensors_of_batch(trainer, *batch).items())


def test_a_batch_that_fails_leaves_no_hooks():
    trainer = trainer_of(TINY.uncompressed(chunks=1))
    _, labels = next(iter(trainer.rest_of_epoch()))
    with pytest.raises(RuntimeError):
        tensors_of_batch(trainer, (torch.zeros(8, 5, 32, 32),), labels)
    assert not any(boundary._forward_hooks for boundary in trainer.engine.boundaries())


def test_gradients_are_those_of_the_loss():
    found = tensors_at_cuts(TINY, device="cpu")
    data = load_task(TINY)
    torch.manual_seed(TINY.seed)
    stages = split(build_model(TINY, num_labels=10).train(), "first_last")
    (images,), labels = next(iter(train_batches(data, batch_size=8, seed=TINY.seed, epoch=0)))
    (first,) = stages.head((images,))
    first.retain_grad()
    (second,) = stages.body((first,))
    second.retain_grad()
    torch.nn.functional.cross_entropy(stages.tail((second,))[0], labels).backward()
    assert torch.equal(found["activation 1"], first)
    assert torch.allclose(found["gradient 1"], first.grad, atol=1e-7)
    assert torch.allclose(found["gradient 2"], second.grad, atol=1e-7)
