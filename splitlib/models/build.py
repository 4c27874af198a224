"""From a config to its unsplit model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from splitlib.config import RunConfig
from splitlib.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What 004 compares, and small ones of the same kinds.
REFERENCE_MODELS = (
    "mobilenet_v2",
    "mobilenet_v2_tiny",
    "roberta-base",
    "roberta_tiny",
    "vgg13",
    "vgg13_tiny",
    "resnet101",
    "amoebanet",
)

# Each model is imported where it is built: torchvision and transformers take seconds, and a run needs one of them.


def build_model(config: RunConfig, *, num_labels: int, hub: Path | None = None) -> nn.Module:
    """Return the model of ``config`` on the CPU in float32, unsplit.

    It maps images [B, 3, S, S], or token ids and their mask, [B, L] each, to logits [B, classes]; an encoder returns
    them as ``.logits``. Whatever starts at random draws from torch's global generator: seed it first.

    Raises:
        DataError: its weights or its sizes are missing, unreadable or of another kind of model.
        ConfigError: ``max_length`` is more than the model has positions for.
    """
    if config.kind == "vision":
        return _vision(config, num_labels, hub)
    model = _text(config, num_labels, hub)
    if config.lora_rank:
        from splitlib.models.roberta import add_lora

        assert config.lora_alpha is not None, "a config with a rank has one"
        add_lora(model, rank=config.lora_rank, alpha=config.lora_alpha)
    return model


def _vision(config: RunConfig, num_labels: int, hub: Path | None) -> nn.Module:
    from splitlib.models import mobilenet

    if config.model == "mobilenet_v2_tiny":
        return mobilenet.mobilenet_v2_tiny(num_labels)
    norm = mobilenet.FrozenStatistics if config.batch_norm == "frozen" else nn.BatchNorm2d
    return mobilenet.mobilenet_v2(num_labels, weights=config.weights, hub=hub, batch_norm=norm)


def _text(config: RunConfig, num_labels: int, hub: Path | None) -> PreTrainedModel:
    from splitlib.models import roberta

    name = str(config.model)
    if name == "roberta_tiny":
        model = roberta.roberta_tiny(num_labels)
    else:
        build = roberta.random_encoder if config.weights == "random" else roberta.pretrained_encoder
        model = build(name, num_labels, hub=hub)
    longest = roberta.longest_input(model)
    if config.max_length is not None and config.max_length > longest:
        raise ConfigError(f"max_length {config.max_length} is more than the {longest} tokens {name} has positions for")
    return model


def build_reference(name: str, num_labels: int) -> nn.Module:
    """Return a model of :data:`REFERENCE_MODELS` with random weights, for times and counts.

    >>> import torch
    >>> with torch.device("meta"):
    ...     sum(p.numel() for p in build_reference("vgg13", 1000).parameters())
    133047848

    Raises:
        ConfigError: the name is unknown.
    """
    if name not in REFERENCE_MODELS:
        raise ConfigError(f"unknown model {name!r}; choose from {', '.join(REFERENCE_MODELS)}")
    from splitlib.models import mobilenet, reference, roberta

    builders: Mapping[str, Callable[[int], nn.Module]] = {
        "mobilenet_v2": lambda labels: mobilenet.mobilenet_v2(labels, weights="random"),
        "mobilenet_v2_tiny": mobilenet.mobilenet_v2_tiny,
        "roberta-base": lambda labels: roberta.random_encoder("roberta-base", labels),
        "roberta_tiny": roberta.roberta_tiny,
        "vgg13": reference.vgg_13,
        "vgg13_tiny": reference.vgg_13_tiny,
        "resnet101": reference.resnet_101,
        "amoebanet": reference.amoebanet_d,
    }
    return builders[name](num_labels)
