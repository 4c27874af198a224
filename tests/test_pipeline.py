"""The boundary and the in-process pipeline: right gradients, right bytes."""

import copy
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from splitlib.compressors import HEADER_BYTES, decode, make_compressor
from splitlib.data.text import vocabulary_size
from splitlib.errors import ConfigError
from splitlib.models.mobilenet import mobilenet_v2_tiny
from splitlib.models.roberta import roberta_tiny
from splitlib.partition import split
from splitlib.pipeline import Boundary, Engine, Traffic, build_pipeline

CPU = torch.device("cpu")


def text_batch(size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and a mask with padding in every sentence, so that each micro-batch is masked the same way."""
    ids = torch.randint(4, vocabulary_size(), (size, 12))
    mask = torch.ones_like(ids)
    mask[:, 10:] = 0
    return ids, mask


def without_dropout(model: torch.nn.Module) -> torch.nn.Module:
    """Dropout draws per micro-batch, so gradients compare without it."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def pipeline_of(model, partition, *, chunks=1, codec="none", precision="fp32", **options):
    """A pipeline on the CPU with one compressor both ways."""
    stages = split(model, partition)
    compressor = make_compressor(codec, **options)
    return build_pipeline(
        stages.parts,
        devices=[CPU] * len(stages.parts),
        chunks=chunks,
        activations=compressor,
        gradients=compressor,
        precision=precision,
    )


def test_boundary_compresses_forward_and_backward_each_with_its_own():
    activations, gradients = make_compressor("uniform", bits=4), make_compressor("uniform", bits=2)
    traffic = Traffic()
    boundary = Boundary(activations, gradients, traffic)
    x = torch.randn(50, requires_grad=True)
    upstream = torch.randn(50)
    (out,) = boundary((x,))
    out.backward(upstream)
    assert torch.equal(out, decode(activations.encode(x)))
    assert torch.equal(x.grad, decode(gradients.encode(upstream)))
    assert traffic.activation_bytes == activations.encode(x).nbytes
    assert traffic.gradient_bytes == gradients.encode(upstream).nbytes
    assert traffic.uncompressed_bytes == 2 * 50 * 4


def test_the_skipped_identity_counts_what_its_payload_would_weigh():
    codec, traffic = make_compressor("none"), Traffic()
    x = torch.randn(3, 5, requires_grad=True)
    Boundary(codec, codec, traffic)((x,))[0].sum().backward()
    assert traffic.activation_bytes == traffic.gradient_bytes == codec.encode(x).nbytes == HEADER_BYTES + 60


def test_evaluation_is_compressed_but_not_metered():
    traffic = Traffic()
    boundary = Boundary(make_compressor("uniform", bits=2), make_compressor("none"), traffic).eval()
    x = torch.randn(20)
    assert not torch.equal(boundary((x,))[0], x)
    assert traffic.sent_bytes == 0


def test_no_count_is_lost_where_stages_on_several_devices_share_the_meter():
    """``+=`` with a call at its right stored a sum that other threads had added to meanwhile."""

    def shrinkage() -> float:
        time.sleep(1e-4)
        return 1.0

    codec, traffic = make_compressor("none"), Traffic()

    def stage(_) -> None:
        boundary = Boundary(codec, codec, traffic, shrinkage)
        for _ in range(20):
            boundary((torch.randn(3, 5, requires_grad=True),))[0].sum().backward()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(stage, range(4)))
    assert traffic.uncompressed_bytes == 4 * 20 * 2 * 60
    assert traffic.activation_bytes == traffic.gradient_bytes == 4 * 20 * (HEADER_BYTES + 60)


@pytest.mark.parametrize("partition", ["none", "condition_1", "condition_2", "condition_3", "even"])
def test_micro_batches_add_up_to_the_unsplit_gradient(partition):
    torch.manual_seed(0)
    unsplit = without_dropout(roberta_tiny(2)).train()
    pipeline = pipeline_of(copy.deepcopy(unsplit), partition, chunks=4).train()
    inputs, labels = text_batch(), torch.randint(0, 2, (8,))
    logits = unsplit(input_ids=inputs[0], attention_mask=inputs[1]).logits
    torch.nn.functional.cross_entropy(logits, labels).backward()
    torch.nn.functional.cross_entropy(pipeline(*inputs), labels).backward()
    wanted = sorted(p.grad.double().norm().item() for p in unsplit.parameters() if p.grad is not None)
    found = sorted(p.grad.double().norm().item() for p in pipeline.parameters() if p.grad is not None)
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("partition", ["first_last", "first_two_last_two", "even"])
def test_one_micro_batch_is_the_unsplit_model_bit_for_bit(partition):
    torch.manual_seed(0)
    unsplit = mobilenet_v2_tiny(10).train()
    pipeline = pipeline_of(copy.deepcopy(unsplit), partition).train()
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(unsplit(images), pipeline(images))


def test_bytes_on_the_wire_are_exact():
    pipeline = pipeline_of(
        mobilenet_v2_tiny(10), "first_last", chunks=2, codec="sort", level_bits=6, bin_bits=2
    ).train()
    pipeline(torch.randn(4, 3, 32, 32)).sum().backward()
    elements = [2 * 32 * 16 * 16, 2 * 1280 * 1 * 1]  # of each micro-batch at each cut
    message = sum(n + HEADER_BYTES + 8 * 4 for n in elements)  # a byte an element, four bins' tables
    assert pipeline.traffic.activation_bytes == pipeline.traffic.gradient_bytes == 2 * message
    assert pipeline.traffic.uncompressed_bytes == 2 * 2 * 4 * sum(elements)


def test_evaluation_keeps_no_graph():
    pipeline = pipeline_of(roberta_tiny(2), "condition_1", chunks=2).eval()
    with torch.no_grad():
        assert not pipeline(*text_batch()).requires_grad


def test_bf16_reaches_every_stage():
    seen = []
    model = roberta_tiny(2)
    pipeline = pipeline_of(model, "condition_1", precision="bf16").train()
    for module in pipeline.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda m, args, out: seen.append(out.dtype))
    pipeline(*text_batch()).float().sum().backward()
    assert len(seen) == 4 * 6 + 2 and set(seen) == {torch.bfloat16}


def test_fp16_on_a_cpu_is_refused_with_the_documents_reason():
    with pytest.raises(ConfigError, match="layer normalisation does not train in 16 bits"):
        pipeline_of(roberta_tiny(2), "condition_1", precision="fp16")


def test_as_many_devices_as_stages():
    stages = split(roberta_tiny(2), "condition_1")
    codec = make_compressor("none")
    with pytest.raises(ConfigError, match="3 stages need 3 devices, not 1"):
        build_pipeline(stages.parts, devices=[CPU], chunks=1, activations=codec, gradients=codec)


def test_an_engine_must_say_how_it_trains():
    with pytest.raises(TypeError, match="abstract"):
        Engine()
