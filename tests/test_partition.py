"""Composing the stages is the unsplit model, bit for bit, forward and backward, for every partition."""

import copy

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from splitlib.config import PARTITIONS
from splitlib.data.text import vocabulary_size
from splitlib.errors import ConfigError, DataError
from splitlib.models.mobilenet import mobilenet_v2, mobilenet_v2_tiny
from splitlib.models.roberta import ENCODERS, add_lora, longest_input, random_encoder, roberta_tiny
from splitlib.models.units import units
from splitlib.partition import CONV_INSERTS, even_cuts, split, unit_macs

LENGTH = 16
TINY_ENCODER = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}


def tiny_bert() -> nn.Module:
    """A BERT, whose classifier (pooler, dropout, linear) differs from RoBERTa's."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    return BertForSequenceClassification(BertConfig(vocab_size=200, num_labels=3, **sizes))


MODELS = {
    "mobilenet_v2_tiny": lambda: mobilenet_v2_tiny(10),
    "mobilenet_v2": lambda: mobilenet_v2(10, weights="random"),
    "roberta_tiny": lambda: roberta_tiny(2),
    "roberta_tiny with LoRA": lambda: add_lora(roberta_tiny(2), rank=4, alpha=8),
    "bert": tiny_bert,
}
CASES = [
    (name, partition)
    for name in MODELS
    for partition in PARTITIONS["vision" if "mobilenet" in name else "text"]
    if partition not in CONV_INSERTS
]


def example(name: str) -> tuple[torch.Tensor, ...]:
    """A batch of three, with one padded sentence."""
    if "mobilenet" in name:
        return (torch.randn(3, 3, 64, 64),)
    ids = torch.randint(4, vocabulary_size(), (3, LENGTH))
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0
    ids[0, 9:] = 1
    return ids, mask


def unsplit_logits(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Call the model as its own library does."""
    if len(inputs) == 1:
        return model(*inputs)
    return model(input_ids=inputs[0], attention_mask=inputs[1]).logits


@pytest.mark.parametrize(("name", "partition"), CASES)
def test_stages_compose_to_the_unsplit_model(name, partition):
    torch.manual_seed(0)
    unsplit = MODELS[name]().train()
    stages = split(copy.deepcopy(unsplit), partition)
    inputs = example(name)
    gradients = []
    for model, forward in ((unsplit, lambda: unsplit_logits(unsplit, inputs)), (None, lambda: stages(*inputs))):
        torch.manual_seed(1)  # the same dropout masks
        logits = forward()
        logits.square().sum().backward()
        parameters = model.named_parameters() if model else _by_original_name(unsplit, stages)
        gradients.append((logits, {key: p.grad for key, p in parameters}))
    (whole, whole_gradients), (cut, cut_gradients) = gradients
    assert torch.equal(whole, cut)
    assert whole_gradients.keys() == cut_gradients.keys()
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in cut_gradients.values())
    for key, gradient in whole_gradients.items():
        other = cut_gradients[key]
        assert (gradient is None and other is None) or torch.equal(gradient, other), key


def _by_original_name(unsplit, stages):
    """Pair the stages' parameters, in execution order, with the unsplit model's names by value."""
    wanted = {name: p for name, p in unsplit.named_parameters()}
    found = [p for part in stages.parts for p in part.parameters()]
    pairs = []
    for name, parameter in wanted.items():
        match = next(i for i, p in enumerate(found) if p.shape == parameter.shape and torch.equal(p, parameter))
        pairs.append((name, found.pop(match)))
    assert not found, "the stages hold parameters that the model does not"
    return pairs


@pytest.mark.parametrize(
    ("partition", "shapes"),
    [
        ("first_last", [(2, 32, 112, 112), (2, 1280, 7, 7)]),
        ("first_two_last_two", [(2, 16, 112, 112), (2, 320, 7, 7)]),
        ("conv_insert_wide", [(2, 32, 28, 28), (2, 320, 7, 7)]),
        ("conv_insert_type_1", [(2, 32, 112, 112), (2, 1280, 7, 7)]),
        ("conv_insert_type_2", [(2, 20, 28, 28), (2, 320, 7, 7)]),
        ("conv_insert_type_3", [(2, 16, 28, 28), (2, 100, 7, 7)]),
        ("conv_insert_counted", [(2, 20, 37, 37), (2, 360, 7, 7)]),
    ],
)
def test_shapes_at_the_vision_cuts_are_the_documents(partition, shapes):
    stages = split(mobilenet_v2(10, weights="random").eval(), partition)
    with torch.no_grad():
        first = stages.head((torch.zeros(2, 3, 224, 224),))
        second = stages.body(first)
    assert [tuple(first[0].shape), tuple(second[0].shape)] == shapes


@pytest.mark.parametrize("name", CONV_INSERTS)
def test_conv_inserts_train_and_restore_the_shape_if_their_stride_divides_it(name):
    stages, images = split(mobilenet_v2(10, weights="random"), name), torch.randn(2, 3, 64, 64)
    stages(images).sum().backward()
    for sender in (stages.head[-1], stages.body[-1]):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in sender.parameters())
    side = 30 if name == "conv_insert_counted" else 32
    assert stages.body[0](stages.head((images,)))[0].shape == (2, 32, side, side)


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_type_of_encoder_is_itself_when_split(kind):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **TINY_ENCODER)).eval()
    ids, mask = example("roberta_tiny")
    with torch.no_grad():
        wanted = model(input_ids=ids, attention_mask=mask).logits
        for partition in ("condition_1", "condition_3"):
            assert torch.equal(split(model, partition)(ids, mask), wanted)
        ids = torch.randint(4, 200, (1, longest_input(model)))
        split(model, "condition_1")(ids, torch.ones_like(ids))  # has a position for each token


def test_an_encoder_that_splitting_would_change_is_refused(tmp_path):
    AutoConfig.for_model("mpnet", **TINY_ENCODER).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="is of type 'mpnet'; what can be split here are bert, "):
        random_encoder(str(tmp_path), 2)


@pytest.mark.parametrize(
    ("partition", "head", "tail"),
    [
        ("condition_1", ["embeddings", "attention0", "ffn0"], ["attention11", "ffn11", "classifier"]),
        ("condition_2", ["embeddings", "attention0"], ["attention11", "ffn11", "classifier"]),
        ("condition_3", ["embeddings", "attention0"], ["classifier"]),
    ],
)
def test_text_conditions_put_the_documents_layers_on_the_client(partition, head, tail):
    model = random_encoder("roberta-base", 2)
    halves = [f"{half}{layer}" for layer in range(12) for half in ("attention", "ffn")]
    order = ["embeddings", *halves, "classifier"]
    stages = split(model, partition)
    sizes = [[sum(p.numel() for p in unit.parameters()) for unit in part] for part in stages.parts]
    by_name = dict(zip(order, [sum(p.numel() for p in unit.parameters()) for unit in units(model)], strict=True))
    assert sizes[0] == [by_name[name] for name in head]
    assert sizes[2] == [by_name[name] for name in tail]
    assert len(sizes[1]) == len(order) - len(head) - len(tail)


def test_even_split_gives_the_server_about_half_the_work():
    model = mobilenet_v2(10, weights="random")
    costs = unit_macs(model)
    first, second = even_cuts(model)
    assert 0.45 < sum(costs[first:second]) / sum(costs) < 0.55


def test_an_even_splits_client_has_equal_shares_at_both_ends():
    model = roberta_tiny(2)
    costs = unit_macs(model)
    first, second = even_cuts(model)
    assert abs(sum(costs[:first]) - sum(costs[second:])) <= max(costs)


def test_an_even_split_leaves_every_layer_its_own_mode():
    """It counts MACs in evaluation mode, and once gave all layers the whole model's mode back: frozen ones trained."""
    model = mobilenet_v2_tiny(10).train()
    model.classifier.eval()
    modes = [layer.training for layer in model.modules()]
    split(model, "even")
    assert [layer.training for layer in model.modules()] == modes


def test_splitting_draws_no_random_numbers():
    for model in (mobilenet_v2_tiny(10), roberta_tiny(2)):
        before = torch.get_rng_state()
        split(model, "even")
        assert torch.equal(before, torch.get_rng_state())


def test_unknown_partition_and_model():
    with pytest.raises(
        ConfigError, match="unknown partition 'condition_1' for a vision model; choose from none, first"
    ):
        split(mobilenet_v2_tiny(10), "condition_1")
    with pytest.raises(
        ConfigError, match=r"cannot split a Linear; .* or cut it yourself and give build_pipeline the stages"
    ):
        split(nn.Linear(2, 2), "first_last")


@pytest.mark.parametrize("at", [(), (0, 3), (-3, 3), (4, 4)])
def test_cuts_of_ones_own_rise_from_the_first_unit(at):
    """Without any, the model came back whole."""
    with pytest.raises(ConfigError, match=r"needs cuts that rise from at least 1, not \[.*\]; say how many units"):
        split(mobilenet_v2_tiny(10), "custom", at=at)
