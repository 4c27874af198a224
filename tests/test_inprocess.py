"""torchgpipe in every mode: any number of stages, recomputation, batch norm and the loss of micro-batches."""

import copy
import threading

import pytest
import torch
from torch import nn

from splitlib.compressors import make_compressor
from splitlib.errors import ConfigError
from splitlib.models.mobilenet import FrozenStatistics, mobilenet_v2, mobilenet_v2_tiny
from splitlib.models.roberta import add_lora, roberta_tiny
from splitlib.partition import balanced_cuts, split, unit_macs
from splitlib.pipeline import build_pipeline
from splitlib.pipeline.recompute import recomputed
from tests.support import TINY, trainer_of

CPU = torch.device("cpu")
VISION = TINY.replace(
    task="cifar10", model="mobilenet_v2_tiny", image_size=32, chunks=4, optimizer="sgd", lr=0.05, epochs=1
)
LOW_RANK = {"compressor": "power_iteration", "compressor_options": {"rank": 2}}


def pipeline_of(model, partition, *, chunks=1, cuts=(), stages=3, codec="none", **modes):
    parts = split(model, partition, stages=stages, at=cuts).parts
    compressor = make_compressor(codec)
    return build_pipeline(
        parts, devices=[CPU] * len(parts), chunks=chunks, activations=compressor, gradients=compressor, **modes
    )


def gradients(module: nn.Module) -> dict[str, torch.Tensor]:
    """By the layer's own name, whatever the containers around it."""
    return {name: p.grad for name, p in module.named_parameters()}


def accumulated(model, images, labels, chunks):
    """Gradient accumulation on the unsplit model: each micro-batch's share of the batch's mean loss."""
    for part, wanted in zip(images.chunk(chunks), labels.chunk(chunks), strict=True):
        loss = nn.functional.cross_entropy(model(part), wanted) * len(wanted) / len(labels)
        loss.backward()
    return [p.grad for p in model.parameters()]


# --- The unsplit model's gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize("partition, cuts", [("first_last", ()), ("custom", (4,)), ("custom", (1, 2, 4, 6))])
def test_identity_equals_gradient_accumulation_on_the_unsplit_model(partition, cuts, size):
    torch.manual_seed(0)
    unsplit = mobilenet_v2_tiny(10).train()
    pipeline = pipeline_of(copy.deepcopy(unsplit), partition, chunks=4, cuts=cuts).train()
    images, labels = torch.randn(size, 3, 64, 64), torch.randint(0, 10, (size,))
    wanted = accumulated(unsplit, images, labels, 4)
    pipeline.train_batch((images,), labels, step=0, scale=lambda loss: loss)
    found = [p.grad for p in pipeline.parameters()]
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    statistics = [b for b in pipeline.buffers() if b.is_floating_point()]
    for one, other in zip(statistics, [b for b in unsplit.buffers() if b.is_floating_point()], strict=True):
        torch.testing.assert_close(one, other)


def test_sum_back_propagates_every_micro_batchs_mean_undivided():
    torch.manual_seed(0)
    model, images, labels = mobilenet_v2_tiny(10), torch.randn(8, 3, 32, 32), torch.randint(0, 10, (8,))
    mean, total = (
        pipeline_of(copy.deepcopy(model), "first_last", chunks=4, micro_batch_loss=kind).train()
        for kind in ("mean", "sum")
    )
    losses = [p.train_batch((images,), labels, step=0, scale=lambda loss: loss) for p in (mean, total)]
    assert losses[0] == losses[1], "what is reported is the batch's mean"
    for one, other in zip(mean.parameters(), total.parameters(), strict=True):
        torch.testing.assert_close(4 * one.grad, other.grad, rtol=1e-4, atol=1e-6)


# --- Recomputation ----------------------------------------------------------------------------------------------------


def trained(config):
    """Losses, weights (statistics included) and traffic after three steps."""
    trainer = trainer_of(config)
    batches = [batch for batch, _ in zip(trainer.rest_of_epoch(), range(3), strict=False)]
    losses = []
    for inputs, labels in batches:
        losses.append(trainer.step(inputs, labels))
        trainer.state.step += 1
    return (
        losses,
        trainer.engine.state_dict(),
        trainer.engine.traffic,
        [codec.state for codec in trainer.engine.compressors()],
    )


@pytest.mark.parametrize("mode", ["except_last", "always"])
@pytest.mark.parametrize(
    "config",
    [
        TINY.replace(chunks=4),  # has dropout
        TINY.replace(chunks=4, **LOW_RANK),  # learns from what it encodes
        TINY.replace(chunks=3, compressor="sort", partition="custom", cuts="2,4,6"),
        TINY.replace(chunks=2, lora_rank=2),
        VISION,
        VISION.replace(batch_norm="deferred", precision="bf16"),
    ],
    ids=["text", "low rank", "four stages", "lora", "vision", "deferred"],
)
def test_recomputing_changes_no_bit_and_no_byte(config, mode):
    losses, weights, traffic, learnt = trained(config)
    again = trained(config.replace(recompute=mode))
    assert again[0] == losses and len(set(losses)) == 3
    assert weights.keys() == again[1].keys()
    assert [name for name in weights if not torch.equal(weights[name], again[1][name])] == []
    assert again[2] == traffic
    assert all(a is b or torch.equal(a, b) for a, b in zip(learnt, again[3], strict=True))


@pytest.mark.parametrize("mode, runs", [("never", 4), ("except_last", 7), ("always", 8)])
def test_what_recomputes_runs_twice(mode, runs):
    pipeline = pipeline_of(mobilenet_v2_tiny(10), "first_last", chunks=4, recompute=mode).train()
    calls = []
    first_conv = next(m for m in pipeline.modules() if isinstance(m, nn.Conv2d))
    first_conv.register_forward_hook(lambda *_: calls.append(1))
    images, labels = torch.randn(4, 3, 64, 64), torch.arange(4)
    pipeline.train_batch((images,), labels, step=0, scale=lambda loss: loss)
    assert len(calls) == runs
    calls.clear()
    pipeline.eval()(images)
    assert len(calls) == 4, "evaluation has no backward pass to recompute for"


def test_a_short_batch_keeps_its_own_last_micro_batch():
    assert [recomputed("except_last", n) for n in (1, 2, 4)] == [0, 1, 3]


# --- Batch norm -------------------------------------------------------------------------------------------------------


def running(pipeline):
    norm = next(m for m in pipeline.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    return norm.running_mean, norm.running_var, norm.num_batches_tracked


def test_deferred_batch_norm_moves_once_a_batch_towards_the_biased_variance():
    torch.manual_seed(0)
    model, images = mobilenet_v2_tiny(10), torch.randn(8, 3, 32, 32)
    before = copy.deepcopy(model.features[0][1])
    stem = model.features[0][0](images).detach()
    each, deferred = (
        pipeline_of(copy.deepcopy(model), "first_last", chunks=4, batch_norm=kind).train()
        for kind in ("micro_batch", "deferred")
    )
    torch.testing.assert_close(each(images), deferred(images))  # both normalise by the micro-batch
    assert running(each)[2] == 4 and running(deferred)[2] == 1
    mean, variance, _ = running(deferred)
    wanted = before.running_var * 0.9 + 0.1 * stem.var((0, 2, 3), correction=0)
    torch.testing.assert_close(mean, 0.1 * stem.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(variance, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", [True, False])
def test_frozen_batch_norm_is_that_of_evaluation_in_either_mode(mode):
    frozen, images = FrozenStatistics(3).train(mode), torch.randn(4, 3, 2, 2)
    frozen.running_mean.uniform_()
    before, evaluated = copy.deepcopy(frozen.state_dict()), nn.BatchNorm2d(3).eval()
    evaluated.load_state_dict(before)
    assert torch.equal(frozen(images), evaluated(images))
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())


def test_frozen_batch_norm_makes_no_difference_between_one_micro_batch_and_four():
    torch.manual_seed(0)
    images, labels = torch.randn(8, 3, 32, 32), torch.randint(0, 10, (8,))
    losses, grads, norms = {}, {}, {}
    for kind in (nn.BatchNorm2d, FrozenStatistics):
        torch.manual_seed(0)
        model = mobilenet_v2(10, weights="random", batch_norm=kind)
        model.classifier[0].p = 0.0  # each micro-batch draws another dropout
        for chunks in (1, 4):
            pipeline = pipeline_of(copy.deepcopy(model), "first_last", chunks=chunks).train()
            losses[kind, chunks] = pipeline.train_batch((images,), labels, step=0, scale=lambda loss: loss)
            grads[kind, chunks] = [p.grad for p in pipeline.parameters()]
            norms[kind, chunks] = running(pipeline)
    own, frozen = (abs(losses[kind, 1] - losses[kind, 4]) for kind in (nn.BatchNorm2d, FrozenStatistics))
    assert frozen < 1e-5 < 1e-3 < own
    for one, other in zip(grads[FrozenStatistics, 1], grads[FrozenStatistics, 4], strict=True):
        assert one is not None and one.abs().sum() > 0, "scale and shift train"
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    mean, variance, batches = norms[FrozenStatistics, 4]
    assert mean.eq(0).all() and variance.eq(1).all() and batches == 0
    assert norms[nn.BatchNorm2d, 4][2] == 4


# --- Stages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", [2, 3, 5])
def test_balanced_stages_share_the_work_and_lose_nothing(stages):
    model = mobilenet_v2(10, weights="random").train()
    cuts, costs = balanced_cuts(model, stages), unit_macs(model)
    shares = [sum(costs[a:b]) for a, b in zip((0, *cuts), (*cuts, len(costs)), strict=True)]
    assert len(shares) == stages and max(shares) - min(shares) <= 2 * max(costs)
    parts = split(model, "balanced", stages=stages).parts
    assert [len(part) for part in parts] == [b - a for a, b in zip((0, *cuts), (*cuts, len(costs)), strict=True)]


def test_more_stages_than_layers():
    with pytest.raises(ConfigError, match="stages must be from 2 to this MobileNetV2's 9 units, not 40"):
        balanced_cuts(mobilenet_v2_tiny(10), 40)


def test_cuts_behind_the_last_layer():
    with pytest.raises(ConfigError, match=r"partition 'custom' at 2, 9 needs more layers than the 9 units"):
        split(mobilenet_v2_tiny(10), "custom", at=(2, 9))


def test_four_stages_train_and_every_cut_counts():
    config = TINY.replace(partition="balanced", stages=4, compressor="uniform", compressor_options={"bits": "8,4,2"})
    trainer = trainer_of(config)
    assert [codec.bits for codec in trainer.engine.compressors()] == [8, 8, 4, 4, 2, 2]
    inputs, labels = next(iter(trainer.rest_of_epoch()))
    trainer.step(inputs, labels)
    assert 0.125 < trainer.engine.traffic.compression_ratio < 0.16  # (8 + 4 + 2) / 3 of 32 bits, and headers


def test_lora_in_a_pipeline_sends_no_gradient_to_a_frozen_head():
    pipeline = pipeline_of(
        add_lora(roberta_tiny(2), rank=2, alpha=2), "custom", cuts=(1, 5), recompute="always"
    ).train()
    ids = torch.randint(4, 40, (4, 8))
    pipeline.train_batch((ids, torch.ones_like(ids)), torch.arange(4) % 2, step=0, scale=lambda loss: loss)
    assert pipeline.traffic.gradient_bytes < 0.6 * pipeline.traffic.activation_bytes


class _Place(nn.Module):
    """Notes which thread computes."""

    def __init__(self, seen: list, error: Exception | None = None) -> None:
        super().__init__()
        self.seen, self.error = seen, error

    def forward(self, values):
        self.seen.append((threading.current_thread(), torch.is_grad_enabled()))
        if self.error is not None and len(self.seen) > 3:
            raise self.error
        return values


def places(*devices: str, error: Exception | None = None) -> list:
    """Which thread ran each stage on each of two micro-batches, and whether it kept a graph."""
    seen: list = []
    parts = [_Place(seen) for _ in devices[:-1]] + [_Place(seen, error)]
    codec = make_compressor("none")
    where = [torch.device(device) for device in devices]
    pipeline = build_pipeline(parts, devices=where, chunks=2, activations=codec, gradients=codec)
    with torch.no_grad():
        pipeline(torch.ones(4, 3))
    return seen


def test_on_the_cpu_alone_stages_run_in_the_callers_thread():
    """Threads could do nothing at once there, and their OpenMP threads spin on each other's cores."""
    assert places("cpu", "cpu", "cpu:0") == [(threading.current_thread(), False)] * 6


def test_an_error_in_a_stage_is_raised_in_the_caller():
    with pytest.raises(ZeroDivisionError, match="in the last stage"):
        places("cpu", "cpu", error=ZeroDivisionError("in the last stage"))


# --- A model of one's own ---------------------------------------------------------------------------------------------


class _Masked(nn.Module):
    """Takes hidden states and a mask, and passes the mask on."""

    def __init__(self, last: bool = False) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(6, 6), last

    def forward(self, values):
        hidden, mask = values
        hidden = self.layer(hidden) * mask.unsqueeze(-1)
        return hidden.sum(1) if self.last else (hidden, mask)


def own_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 16), nn.Dropout(0.5), nn.Linear(16, 5))


def cut_in_three(model: nn.Sequential) -> list[nn.Module]:
    return [model[:2], model[2:4], model[4:]]


def test_a_pipeline_of_plain_modules_trains_the_model_they_are_of():
    """By default nothing is compressed, and one micro-batch is the batch: the model's own steps, bit for bit."""
    model, (x, labels) = own_model().eval(), (torch.randn(12, 20), torch.randint(5, (12,)))  # eval: without dropout
    unsplit, pipeline = copy.deepcopy(model), build_pipeline(cut_in_three(model))
    before = copy.deepcopy(model.state_dict())
    for trained in (unsplit, pipeline):
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(trained(x), labels).backward()
            optimizer.step()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, unsplit.state_dict()[name]) and not torch.equal(weight, before[name])


def test_bytes_of_ones_own_model_are_those_of_its_payloads():
    activations = make_compressor("sort", level_bits=4, bin_bits=2)
    gradients = make_compressor("sort", level_bits=6, bin_bits=2)
    pipeline = build_pipeline(cut_in_three(own_model()), chunks=4, activations=activations, gradients=gradients)
    pipeline(torch.randn(32, 20)).sum().backward()
    sent = torch.randn(8, 16)  # of a micro-batch, at either cut
    assert pipeline.traffic.activation_bytes == 8 * activations.encode(sent).nbytes
    assert pipeline.traffic.gradient_bytes == 8 * gradients.encode(sent).nbytes
    assert pipeline.traffic.uncompressed_bytes == 2 * 8 * 4 * 8 * 16


def test_each_call_in_training_draws_new_dropout_as_a_step_of_its_own():
    x, labels = torch.randn(8, 20), torch.randint(5, (8,))
    pipeline = build_pipeline(cut_in_three(own_model()), chunks=2)
    first, second = pipeline(x), pipeline(x)
    assert not torch.equal(first, second)
    wanted = [nn.functional.cross_entropy(logits, labels).item() for logits in (first, second)]
    assert [pipeline.train_batch((x,), labels, step=step) for step in (0, 1)] == wanted, "as a run's first two steps"
    assert pipeline.train_batch((x,), labels, step=2) not in wanted
    pipeline.eval()
    assert torch.equal(pipeline(x), pipeline(x))


def test_a_stage_that_runs_twice_draws_the_dropout_of_its_own_step():
    """Two calls, then one backward pass through both: the first had been run again with the second's dropout."""
    x, found = torch.randn(8, 20), []
    for recompute in ("never", "always"):
        model = own_model()
        pipeline = build_pipeline(cut_in_three(model), chunks=2, recompute=recompute)
        (pipeline(x) - pipeline(2 * x)).square().sum().backward()
        found.append([p.grad for p in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_mask_crosses_beside_the_first_tensor_as_it_is():
    codec = make_compressor("uniform", bits=4)
    pipeline = build_pipeline([_Masked(), _Masked(), _Masked(last=True)], chunks=2, activations=codec, gradients=codec)
    hidden, mask = torch.randn(4, 3, 6), torch.tensor([[1, 1, 0]] * 4)
    made = pipeline(hidden, mask)
    assert made.shape == (4, 6)
    made.sum().backward()
    assert pipeline.traffic.activation_bytes == 4 * codec.encode(hidden[:2]).nbytes
    changed = torch.cat([hidden[:, :2], torch.randn(4, 1, 6)], dim=1)
    plain = build_pipeline([_Masked(), _Masked(last=True)])
    assert torch.equal(plain(hidden, mask), plain(changed, mask))


class _Returns(nn.Module):
    """Returns what a function makes of its tensor."""

    def __init__(self, made) -> None:
        super().__init__()
        self.layer, self.made = nn.Linear(20, 20), made

    def forward(self, x):
        return self.made(self.layer(x))


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (
            [_Returns(lambda x: {"x": x}), nn.Identity()],
            "a _Returns returns dict; a stage returns a tensor, or a tuple",
        ),
        ([nn.Identity(), _Returns(lambda x: (x, None))], "a _Returns returns Tensor, NoneType; a stage returns"),
        ([nn.Identity(), _Returns(lambda x: ())], "a _Returns returns nothing; a stage returns"),
        ([nn.Identity(), _Returns(lambda x: (x, x))], "the last stage returns 2 tensors; return one"),
        ([_Returns(lambda x: (x, 2 * x)), nn.Identity()], "1 of the 1 tensors that cross a cut beside the first need"),
    ],
)
def test_a_stage_that_returns_what_cannot_cross_is_told_what_can(stages, words):
    with pytest.raises(ConfigError, match=words):
        build_pipeline(stages)(torch.randn(4, 20))


def test_inputs_are_tensors_one_after_the_other():
    pipeline, x = build_pipeline(cut_in_three(own_model())), torch.randn(4, 20)
    for wrong in (lambda: pipeline((x,)), lambda: pipeline(), lambda: pipeline.train_batch(x, None, step=0)):
        with pytest.raises(ConfigError, match=r"inputs are tensors, as in pipeline\(x\) and train_batch\(\(x,\), "):
            wrong()


def test_the_loss_is_back_propagated_as_it_is_unless_scaled():
    x, labels, found = torch.randn(4, 20), torch.randint(5, (4,)), []
    for options in ({}, {"scale": lambda loss: loss}, {"scale": lambda loss: 2 * loss}):
        model = own_model()
        build_pipeline(cut_in_three(model)).train_batch((x,), labels, step=0, **options)
        found.append(model[0].weight.grad)
    assert torch.equal(found[0], found[1]) and torch.equal(2 * found[0], found[2])
