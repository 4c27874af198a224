"""What the planner measures is what the engines send, and it is measured once."""

import itertools
import json

import pytest
import torch

from splitlib.compressors import BEFORE, after, decode, relative_error, unequal_gain
from splitlib.config import RunConfig
from splitlib.errors import ConfigError
from splitlib.measuring import batches as measuring
from splitlib.metering import count_macs
from splitlib.partition import split
from splitlib.pipeline.parts import make_parts
from splitlib.pipeline.remote.link import Link
from splitlib.pipeline.remote.simulated import SimulatedServer
from splitlib.planner import codecs, costs_path, plan, recorded_costs
from splitlib.planner.bench import Bench, Wanted, uncut
from splitlib.planner.candidates import codec
from splitlib.planner.choices import TOLERABLE_GAIN
from splitlib.planner.costs import depends_on, read_costs
from splitlib.progress import Progress
from tests.support import TINY, TINY_VISION, timing_of

CPU = torch.device("cpu")
SMALL = {"device": "cpu", "repeats": 1}


def sent_by_the_engine(config):
    """Bytes of one training batch on the wire by tensor, as client and server send it."""
    opened = measuring.over_link(SimulatedServer(hub=None, device=CPU), Link())
    timing = timing_of(config, devices=["cpu"], batches=1, warmup=0, link="any", opened=opened)
    return timing.tensor_bytes


@pytest.mark.parametrize(
    ("config", "cuts", "compressor", "unsent"),
    [
        (TINY_VISION, "2,6", "uniform:bits=4+cast", set()),
        (TINY, "condition_1", "power_iteration:rank=1/2", set()),
        (TINY.replace(lora_rank=2), "1,4", "none", {"gradient 1"}),
    ],
    ids=["vision", "text with a mask", "embeddings that do not train"],
)
def test_bytes_are_those_on_the_wire(config, cuts, compressor, unsent):
    (choice,) = plan(config, cuts=[cuts], compressors=[compressor], chunks=[2], **SMALL).choices
    found = sent_by_the_engine(choice.config.replace(engine="simulated"))
    messages = {name: getattr(choice.work, name.replace(" ", "_")) for name in choice.errors}
    assert {name for name, message in messages.items() if not message} == unsent
    assert {name: 2 * message.nbytes for name, message in messages.items() if message} == found
    assert choice.wire_bytes == sum(found.values())


def test_layers_are_those_of_the_model():
    (choice,) = (found := plan(TINY_VISION, cuts=["first_last"], compressors=["none"], chunks=[1], **SMALL)).choices
    (whole,) = make_parts(TINY_VISION.replace(partition="none", chunks=1), 10, None)
    image = (torch.zeros(1, 3, 32, 32),)
    assert sum(layer.macs for layer in found.client.layers) == count_macs(whole, image).total
    assert sum(layer.parameters for layer in found.client.layers) == sum(p.numel() for p in whole.parameters())
    values = split(whole.model, "first_last").head((torch.zeros(16, 3, 32, 32),))
    assert found.client.times(16).nbytes[0] == values[0].numel() * 4
    times = found.client.times(16)
    assert min(times.forward) > 0 and min(times.backward) > 0
    assert choice.work.head_forward == times.forward[0]
    assert choice.errors == dict.fromkeys(choice.errors, 0.0)


def test_timing_the_optimizer_leaves_the_weights_alone():
    bench = Bench(TINY.replace(weight_decay=0.5), None, CPU)
    before = [p.detach().clone() for p in bench.model.parameters()]
    bench.layers()
    assert all(map(torch.equal, bench.model.parameters(), before))


def test_codecs_warm_up_before_they_count(monkeypatch):
    seconds = iter([9.0, 9.0, 9.0, 9.0, 1.0, 2.0])  # encoding and decoding in turn, twice for nothing
    monkeypatch.setattr(codecs, "timed", lambda run, *arguments: (run(*arguments), next(seconds)))
    (cost,) = codecs.in_turn(["none"], torch.randn(4, 4), repeats=1)
    assert (cost.encode, cost.decode) == (1.0, 2.0)


def test_how_unequally_they_arrive_is_measured_of_a_texts_tokens_alone():
    tokens = torch.randn(4, 8, 32, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 0, 8).reshape(8, 1)
    spec = "sort:level_bits=3,bin_bits=1"
    (cost,) = codecs.in_turn([spec], tokens, repeats=1)
    assert cost.unequal == unequal_gain(tokens, decode(codec(spec).encode(tokens))) > TOLERABLE_GAIN
    (image,) = codecs.in_turn([spec], tokens.reshape(4, 8, 4, 8), repeats=1)
    assert image.unequal is None
    assert codecs.tokens_gain(tokens, torch.zeros_like(tokens)) == 1.0, "nothing arrives"


@pytest.mark.parametrize("size", [16, 8], ids=["whole batches", "halves"])
def test_compressors_meet_different_micro_batches_in_the_order_of_training(size):
    bench = Bench(TINY_VISION, None, CPU)
    steps = Progress("test", 1)
    (images,), labels = next(iter(bench.trainer.rest_of_epoch()))
    stream = list(itertools.islice(bench.micro_batches(size), BEFORE + 1))
    assert torch.equal(stream[0][0][0], images[:size]) and torch.equal(stream[0][1], labels[:size])
    assert not any(torch.equal(a[0][0], b[0][0]) for a, b in itertools.combinations(stream, 2))
    _, tensors = bench.passes(size, 0, steps)
    assert len(tensors) == BEFORE + 1
    specs = [Wanted(size, "activation", 2, f"power_iteration:rank=2,iterations={n}") for n in (1, 2)]
    for (_, cost), wanted in zip(bench.codecs(specs, tensors, 3, steps), specs, strict=True):
        *before, x = (each.at("activation", 2) for each in tensors)
        learnt = after(codec(wanted.spec), before)
        assert cost.error == relative_error(x, decode(learnt.encode(x)))


def test_costs_of_schema_1_are_shown_and_never_taken_for_new_ones(tmp_path):
    """They have power iteration on a tensor that it had encoded before."""
    one = {"cuts": ["condition_1"], "compressors": ["none"], "chunks": [1], **SMALL}
    found = plan(TINY, **one)
    values = json.loads(costs_path(TINY, CPU).read_text())
    assert values["schema"] == 3
    (tmp_path / "old.json").write_text(json.dumps(values | {"schema": 1}))
    assert plan(TINY, measured=tmp_path / "old.json", **one).choices == found.choices


def test_measured_once_and_only_what_is_missing():
    options = {"cuts": ["condition_1"], "chunks": [2], **SMALL}
    plan(TINY, compressors=["none"], **options)
    path = costs_path(TINY, CPU)
    before = path.read_bytes()
    plan(TINY, compressors=["none"], link=Link(rate_mbit=1), **options)
    plan(TINY.replace(epochs=7, lr=1e-4, seed=TINY.seed), compressors=["none"], **options)
    assert path.read_bytes() == before, "another link, or a longer training, measures nothing"

    plan(TINY, compressors=["cast"], **options)
    old, new = json.loads(before), json.loads(path.read_bytes())
    assert {key: new["codecs"][key] for key in old["codecs"]} == old["codecs"]
    assert len(new["codecs"]) == 2 * len(old["codecs"]) == 8
    assert (new["sizes"], new["created"]) == (old["sizes"], old["created"])

    plan(TINY, compressors=["none"], fresh=True, **options)
    again = json.loads(path.read_bytes())
    assert again["sizes"] != old["sizes"] and set(again["codecs"]) == set(old["codecs"])


def test_what_the_numbers_depend_on_names_the_file(monkeypatch):
    changes = ({}, {"max_length": 20}, {"lora_rank": 2}, {"seed": 1}, {"train_samples": 64})
    assert len({costs_path(TINY.replace(**change), CPU) for change in changes}) == 5
    same = ({"partition": "condition_2"}, {"compressor": "cast"}, {"chunks": 1}, {"epochs": 9})
    assert {costs_path(TINY.replace(**change), CPU) for change in same} == {costs_path(TINY, CPU)}
    threads, path = torch.get_num_threads(), costs_path(TINY, CPU)
    torch.set_num_threads(threads + 1)
    try:
        assert costs_path(TINY, CPU) != path, "other hardware, other times"
    finally:
        torch.set_num_threads(threads)


def test_frozen_batch_norm_is_planned_as_such(tmp_path):
    """Its layers are measured as they train, and its costs never pass for those of a micro-batch's own statistics."""
    own = RunConfig(task="cifar10")
    frozen = own.replace(batch_norm="frozen")
    assert uncut(frozen).batch_norm == "frozen" and uncut(own).batch_norm == "micro_batch"
    assert costs_path(frozen, CPU) != costs_path(own, CPU)
    plan(TINY_VISION, cuts=["first_last"], compressors=["none"], chunks=[1], **SMALL)
    values = json.loads(costs_path(TINY_VISION, CPU).read_text())
    (tmp_path / "costs.json").write_text(json.dumps(values | {"depends_on": depends_on(own)}))
    assert read_costs(tmp_path / "costs.json", own).layers
    with pytest.raises(ConfigError, match="measured with batch_norm 'micro_batch', not 'frozen'"):
        read_costs(tmp_path / "costs.json", frozen)


def test_images_augmented_with_other_draws_have_costs_of_their_own():
    """One file served both, although errors and coded bytes are of the tensors that the draws lead to."""
    each = RunConfig(task="cifar10")
    assert costs_path(each.replace(images="resident"), CPU) != costs_path(each, CPU)
    assert "images" not in depends_on(each), "files from before keep their names"


def test_layers_are_measured_without_what_codes_the_cuts():
    """Without its compressor, feedback of what the gradients lost was no config at all."""
    coded = RunConfig(task="cola", compressor="sort", coding="change", error_feedback="gradients", padding="skipped")
    assert uncut(coded) == RunConfig(task="cola", partition="none")


def test_coarser_quantization_is_smaller_and_worse():
    specs = ["uniform:bits=8", "uniform:bits=4", "uniform:bits=2"]
    found = plan(TINY_VISION, cuts=["first_last"], compressors=specs, chunks=[1], **SMALL)
    table = found.table().set_index("compressor").loc[specs]
    assert table["wire_bytes"].is_monotonic_decreasing
    assert table["activation_error"].is_monotonic_increasing and table["gradient_error"].is_monotonic_increasing


def test_costs_of_another_machine_are_found_by_what_they_are_of():
    """The latest of these settings, whatever its name says of hardware and versions."""
    assert recorded_costs(TINY, CPU) is None
    one = {"cuts": ["condition_1"], "compressors": ["none"], "chunks": [1], **SMALL}
    here = plan(TINY, **one)
    path, other = costs_path(TINY, CPU), TINY.replace(max_length=20)
    elsewhere = path.rename(path.with_stem(f"{path.stem[:-12]}elsewhere"))
    older = json.loads(elsewhere.read_text()) | {"created": "2020-01-01T00:00:00+00:00"}
    path.with_stem(f"{path.stem[:-12]}older").write_text(json.dumps(older))
    assert recorded_costs(TINY, CPU) == elsewhere and recorded_costs(other, CPU) is None
    assert plan(TINY, measured=elsewhere, **one).choices == here.choices
