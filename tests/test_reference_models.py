"""The models of 004's table of sizes, against what others publish of them."""

import pytest
import torch
from torch import nn

from splitlib.errors import ConfigError
from splitlib.models.build import REFERENCE_MODELS, build_reference
from splitlib.models.reference import AmoebaNetD


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "layers, filters, millions", [(18, 208, 82), (18, 416, 318), (18, 544, 542), (36, 544, 1050), (72, 512, 1800)]
)
def test_amoebanet_has_the_sizes_of_gpipes_table_1(layers, filters, millions):
    with torch.device("meta"):
        assert parameters(AmoebaNetD(layers, filters)) / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.parametrize(
    "name, count", [("vgg13", 133_047_848), ("resnet101", 44_549_160), ("mobilenet_v2", 3_504_872)]
)
def test_torchvisions_models_have_torchvisions_counts(name, count):
    with torch.device("meta"):
        assert parameters(build_reference(name, 1000)) == count


def test_amoebanet_reaches_every_parameter_from_the_logits():
    torch.manual_seed(0)
    model = AmoebaNetD(6, 32, num_labels=10)
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("layers, filters", [(4, 64), (0, 64), (3, 40), (3, 0)])
def test_amoebanet_refuses_sizes_it_cannot_have(layers, filters):
    with pytest.raises(ConfigError, match="layers in threes and filters in sixteens"):
        AmoebaNetD(layers, filters)


def test_tiny_vgg_has_vggs_layers():
    def kinds(model):
        return [type(m) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.MaxPool2d)]

    with torch.device("meta"):
        full = build_reference("vgg13", 10)
    tiny = build_reference("vgg13_tiny", 10)
    assert kinds(tiny) == kinds(full)
    assert tiny(torch.zeros(2, 3, 32, 32)).shape == (2, 10) and parameters(tiny) < 1e-3 * parameters(full)


def test_an_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=f"unknown model 'vgg16'; choose from {', '.join(REFERENCE_MODELS)}"):
        build_reference("vgg16", 10)
