"""What build_pipeline is given is checked before anything runs: one line with the value and the remedy."""

import copy

import pytest
import torch
from torch import nn

from splitlib.compressors import make_compressor
from splitlib.errors import ConfigError
from splitlib.models.mobilenet import mobilenet_v2_tiny
from splitlib.partition import split
from splitlib.pipeline import build_pipeline
from splitlib.pipeline.arguments import codecs_of, devices_of, stages_of

CPU = torch.device("cpu")


def three() -> list[nn.Module]:
    return [nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parts": nn.Linear(4, 2)}, r"stages are a list of modules, such as \[model\[:2\], .* not a Linear"),
        ({"parts": []}, "at least one stage"),
        ({"parts": [nn.Linear(4, 8), torch.relu]}, "stage 1 must be a torch.nn.Module, not <built-in method relu"),
        ({"devices": [CPU] * 2}, "3 stages need 3 devices, not 2; list one for each, or name one for all"),
        ({"devices": "tpu"}, "unknown device 'tpu'; use auto, cpu, cuda"),
        ({"chunks": 0}, "chunks, the number of micro-batches, must be at least 1, not 0"),
        ({"chunks": 2.5}, "must be at least 1, not 2.5"),
        ({"activations": "sort"}, r"activations must be compressors, such as make_compressor\('sort'\), not 'sort'"),
        ({"gradients": [None, None]}, "gradients must be compressors, .* not None"),
        ({"gradients": [make_compressor("none")] * 3}, "2 cuts need one compressor, or 2, not 3"),
        ({"precision": "float32"}, "precision must be one of fp32, bf16, fp16, not 'float32'"),
        ({"recompute": "sometimes"}, "recompute must be one of never, except_last, always, not 'sometimes'"),
        ({"batch_norm": "freeze"}, "batch_norm must be one of micro_batch, deferred, frozen, not 'freeze'"),
        ({"micro_batch_loss": "median"}, "micro_batch_loss must be one of mean, sum, not 'median'"),
    ],
)
def test_what_cannot_be_is_one_line_with_the_value_and_the_remedy(changes, words):
    with pytest.raises(ConfigError, match=words):
        build_pipeline(**{"parts": three(), **changes})


def test_a_weight_of_two_stages_is_refused_by_its_name():
    head, body, tail = three()
    tail = nn.Sequential(nn.ReLU(), body)
    with pytest.raises(ConfigError, match=r"stages 1 and 2 share the weight '.*weight' \[8, 8\]; copy it"):
        build_pipeline([head, body, tail])
    build_pipeline([head, nn.Sequential(body, body), copy.deepcopy(tail)])


def test_a_stage_may_not_begin_by_overwriting_what_crossed_the_cut():
    """Torch says of it, in the first batch, that the output of a custom function is a view."""
    overwriting = nn.Sequential(nn.Sequential(nn.ReLU(inplace=True)), nn.Linear(8, 2))
    with pytest.raises(
        ConfigError, match=r"stage 1 begins with ReLU\(inplace=True\).* take inplace=False, or cut behind"
    ):
        build_pipeline([nn.Linear(4, 8), overwriting])
    build_pipeline([nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 8)), nn.Linear(8, 2)])


def test_parts_of_a_split_model_stay_as_they_are():
    parts = split(mobilenet_v2_tiny(10), "first_last").parts
    assert all(stage is part for stage, part in zip(stages_of(parts), parts, strict=True))


def test_stages_stay_where_their_weights_are_unless_told_otherwise():
    stages = [nn.Linear(4, 8, device="meta"), nn.ReLU(), nn.Linear(8, 8), nn.ReLU()]
    meta = torch.device("meta")
    assert devices_of(None, stages) == [meta, meta, CPU, CPU]
    assert devices_of(None, [nn.ReLU()]) == [CPU]
    assert devices_of("cpu", stages) == devices_of(CPU, stages) == devices_of(["cpu", CPU, CPU, "cpu"], stages)
    assert devices_of(CPU, stages) == [CPU] * 4


def test_every_cut_has_a_compressor_of_its_own():
    codec = make_compressor("power_iteration", rank=2)
    one, other = codecs_of("gradients", codec, 2)
    assert one == other == codec and len({id(codec), id(one), id(other)}) == 3
