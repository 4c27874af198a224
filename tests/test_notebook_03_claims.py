"""What notebook 03 says in prose and builds upon, checked by other routes than its own cells."""

import dataclasses

import pytest
import torch

from splitlib import reported, run
from splitlib.capture import tensors_at_cuts
from splitlib.compressors import decode, make_compressor
from splitlib.profiles import DOCUMENT_SETTINGS, get_profile

SMOKE = get_profile("smoke")
VISION = SMOKE.scale(DOCUMENT_SETTINGS["cifar100"])
ABLATIONS = ("001_2.1_cifar10_ablation", "001_2.1_rte_ablation")


def test_on_embedded_data_the_three_vision_tasks_are_one():
    """CIFAR-10's runs stand in the tables of the other two, so they must be the runs those would be."""
    config = VISION.replace(compressor="sort", compressor_options={"level_bits": 3, "bin_bits": 1})
    found = [run(config.replace(task=task)) for task in ("cifar10", "cifar100", "food101")]
    assert len({record.data_fingerprint for record in found}) == 1
    assert len({dataclasses.astuple(record.last) for record in found}) == 1


def test_the_ablation_has_the_settings_cifar100_and_food101_take():
    told = reported.load("001_2.1_cifar10_settings").iloc[0]
    for task in ("cifar100", "food101"):
        taken = DOCUMENT_SETTINGS[task]
        names = ("epochs", "lr", "batch_size", "scheduler", "optimizer")
        assert [getattr(taken, name) for name in names] == [told[name] for name in names]


def test_a_quarter_of_the_bits_is_the_default_and_six_bits_have_none():
    default = reported.load("001_2_default_bits")
    assert [round(bits / 4) for bits in default["bits"]] == default["bin_bits"].tolist()
    drawn = {int(bits) for name in ABLATIONS for bits in reported.load(name).query("compressor == 'sort'")["bits"]}
    assert [bits for bits in sorted(drawn) if bits % 4] == [6]
    assert round(6 / 4) == 2


@pytest.fixture
def vision_tensors():
    return tensors_at_cuts(VISION)


def test_only_the_second_cut_carries_a_relus_output(vision_tensors):
    first, second = vision_tensors["activation 1"], vision_tensors["activation 2"]
    assert first.min() < 0
    assert second.min() == 0 and (second == 0).float().mean() > 0.3


def test_every_zero_of_a_relu_comes_back(vision_tensors):
    """At 3 + 1 bits they are what the original's decoder leaves unwritten."""
    x = vision_tensors["activation 2"]
    decoded = decode(make_compressor("sort", level_bits=3, bin_bits=1).encode(x))
    assert decoded.min() == 0
    assert torch.equal(decoded[x == 0], x[x == 0])
