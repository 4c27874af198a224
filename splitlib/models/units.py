"""A model as units in order of execution: what a partition divides.

Every unit maps a tuple of tensors to a tuple of tensors, as every stage does, and so does the whole model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from splitlib.errors import ConfigError

if TYPE_CHECKING:
    from torchvision.models import MobileNetV2

Values = tuple[Tensor, ...]
Encoder = Any  # a transformers model or one of its layers, whose parts torch's types do not know


class Unit(nn.Module):
    """Maps a tuple of tensors to a tuple of tensors."""


class Plain(Unit):
    """Any other module as a unit, called as torchgpipe calls one: with one tensor, or with a tuple of several."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, values: Values) -> Values:
        """Return what the layer makes of the tensors; raise ConfigError if that is neither tensor nor tuple of them."""
        made = self.layer(values[0] if len(values) == 1 else values)
        made = made if isinstance(made, tuple) else (made,)
        if not made or not all(isinstance(x, Tensor) for x in made):
            kinds = ", ".join(type(x).__name__ for x in made) or "nothing"
            raise ConfigError(
                f"a {type(self.layer).__name__} returns {kinds}; a stage returns a tensor, or a tuple of tensors"
            )
        return made


class OnFirst(Unit):
    """Apply ``layer`` to the first of the tensors and pass the others on."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, values: Values) -> Values:
        """Return the tensors with the layer's output for the first one."""
        return (self.layer(values[0]), *values[1:])


class Sender(OnFirst):
    """An inserted layer that shrinks what its stage sends; a stage that has one ends with it."""

    shrinkage = 1.0
    """Elements before over elements after, in the last forward pass: what the cut would carry without this layer."""

    def forward(self, values: Values) -> Values:
        """Return the tensors with the first one shrunk."""
        sent = super().forward(values)
        self.shrinkage = values[0].numel() / max(sent[0].numel(), 1)
        return sent


class _VisionClassifier(nn.Module):
    """MobileNetV2's global average pool and classifier: [B, C, H, W] to logits [B, classes]."""

    def __init__(self, model: MobileNetV2) -> None:
        super().__init__()
        self.classifier = model.classifier

    def forward(self, features: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(features, (1, 1))
        return self.classifier(torch.flatten(pooled, 1))


class _Embeddings(nn.Module):
    """Token ids [B, L] to hidden states [B, L, D]."""

    def __init__(self, model: Encoder) -> None:
        super().__init__()
        self.embeddings = model.base_model.embeddings

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.embeddings(input_ids=input_ids)


class _SelfAttention(Unit):
    """A layer's self-attention with its output dense, residual and norm."""

    def __init__(self, layer: Encoder, model: Encoder) -> None:
        from transformers.masking_utils import create_bidirectional_mask

        super().__init__()
        self.attention = layer.attention
        self._mask_of, self._config = create_bidirectional_mask, model.config

    def forward(self, values: Values) -> Values:
        hidden, mask = values
        extended = self._mask_of(config=self._config, inputs_embeds=hidden, attention_mask=mask)
        return self.attention(hidden, extended)[0], mask


class _FeedForward(nn.Module):
    """The rest of a layer: its feed-forward network with residual and norm."""

    def __init__(self, layer: Encoder) -> None:
        super().__init__()
        self.intermediate, self.output = layer.intermediate, layer.output

    def forward(self, hidden: Tensor) -> Tensor:
        return self.output(self.intermediate(hidden), hidden)


class _TextClassifier(Unit):
    """Hidden states and mask to (logits,): RoBERTa's own head, or BERT's pooler, dropout and linear layer."""

    def __init__(self, model: Encoder) -> None:
        super().__init__()
        pooler = getattr(model.base_model, "pooler", None)
        self.layers = nn.Sequential(pooler, model.dropout, model.classifier) if pooler else model.classifier

    def forward(self, values: Values) -> Values:
        return (self.layers(values[0]),)


class Whole(Unit):
    """The unsplit model, called as its library calls it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, values: Values) -> Values:
        """Return (logits,)."""
        if is_encoder(self.model):
            input_ids, mask = values
            return (self.model(input_ids=input_ids, attention_mask=mask).logits,)
        return (self.model(*values),)


def as_unit(module: nn.Module) -> nn.Module:
    """Return ``module`` if it is a unit or a sequence of them, else as one.

    >>> [type(as_unit(module)).__name__ for module in (nn.ReLU(), nn.Sequential(OnFirst(nn.ReLU())))]
    ['Plain', 'Sequential']
    """
    return module if isinstance(first_layer(module), Unit) else Plain(module)


def first_layer(module: nn.Module) -> nn.Module:
    """Return the layer that a module, or a sequence of modules, begins with."""
    while isinstance(module, nn.Sequential) and len(module):
        module = module[0]
    return module


def is_encoder(model: nn.Module) -> bool:
    """Return whether ``model`` is one of transformers', without importing that for a vision run."""
    return hasattr(model, "base_model")


def units(model: nn.Module) -> list[Unit]:
    """Return ``model`` as units in order of execution, sharing its layers.

    MobileNetV2: stem conv + bn, the stem's ReLU6, each block, classifier. A BERT-type encoder: embeddings, then
    self-attention and feed-forward of each layer in turn, classifier.

    Raises:
        ConfigError: the model is neither.
    """
    if is_encoder(model):
        base: Encoder = model.base_model
        halves = [
            half
            for layer in base.encoder.layer
            for half in (_SelfAttention(layer, model), OnFirst(_FeedForward(layer)))
        ]
        return [OnFirst(_Embeddings(model)), *halves, _TextClassifier(model)]
    from torchvision.models import MobileNetV2

    if isinstance(model, MobileNetV2):
        (conv, norm, _), *blocks = model.features
        # torchvision's ReLU6 works in place; behind a cut its input is not its own.
        layers = [nn.Sequential(conv, norm), nn.ReLU6(), *blocks, _VisionClassifier(model)]
        return [OnFirst(layer) for layer in layers]
    raise ConfigError(
        f"cannot split a {type(model).__name__}; use MobileNetV2 or a BERT-type encoder, or cut it yourself and give "
        "build_pipeline the stages: of an nn.Sequential [model[:2], model[2:4], model[4:]]"
    )
