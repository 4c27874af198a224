"""From a config to what the engines run: the same stages, weights and compressors on every machine that builds them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from splitlib.compressors import Compressor, make_compressors
from splitlib.config import DEFAULT_MAX_LENGTH, RunConfig
from splitlib.models import build_model
from splitlib.models.inserted import Insert, make_insert
from splitlib.partition import split
from splitlib.runtime import turn_to_draw


@dataclass(frozen=True, kw_only=True)
class Codecs:
    """The compressors of a config, one for each cut."""

    activations: list[Compressor]
    gradients: list[Compressor]


def make_codecs(config: RunConfig) -> Codecs:
    """Return the compressors of ``config``; raise ConfigError if a name or an option is impossible."""
    name, options = config.effective_gradient_compressor
    cuts = config.cut_count
    activations = make_compressors(config.compressor, config.compressor_options, max(cuts, 1))
    gradients = make_compressors(name, options, max(cuts, 1))
    # A wrong option is an error without cuts too.
    return Codecs(activations=activations[:cuts], gradients=gradients[:cuts])


def configured_insert(config: RunConfig) -> Insert | None:
    """Return what ``config`` inserts around the cuts; raise ConfigError if an option is impossible."""
    return make_insert(config.insert, **config.insert_options) if config.insert != "none" else None


def make_parts(config: RunConfig, num_labels: int, hub: Path | None) -> tuple[nn.Module, ...]:
    """Return the stages' layers: one part for the unsplit model, else head, body and tail, or as many as there are.

    Random weights follow from the config's seed alone, so client and server build the same model and each keeps its
    own parts of it.

    Raises:
        SplitlibError: a setting is impossible, or weights are missing.
    """
    insert = configured_insert(config)
    length = config.max_length or DEFAULT_MAX_LENGTH
    stages, at = config.stages, config.cut_positions
    with turn_to_draw() as generator:
        generator.manual_seed(config.seed)
        model = build_model(config, num_labels=num_labels, hub=hub)
        return split(model, str(config.partition), insert=insert, max_length=length, stages=stages, at=at).parts


def trains(*parts: nn.Module) -> bool:
    """Say whether any parameter of ``parts`` trains: only then does a gradient have to come back to them."""
    return any(parameter.requires_grad for part in parts for parameter in part.parameters())


def weights_norm(*parts: nn.Module) -> float:
    """Return the L2 norm of all floating-point weights and statistics of ``parts``, frozen ones included.

    It tells two files of weights for one model apart. Unlike a hash it can be compared between machines whose
    processors round what starts at random differently: see :func:`same_weights`.

    >>> weights_norm(nn.BatchNorm1d(2), nn.BatchNorm1d(2))  # two weights and two variances of 1 in each
    2.8284271247461903
    """
    tensors = [tensor for part in parts for tensor in part.state_dict().values() if tensor.is_floating_point()]
    return math.hypot(*(torch.linalg.vector_norm(tensor, dtype=torch.float64).item() for tensor in tensors))


def same_weights(one: float, other: float) -> bool:
    """Say whether two norms of :func:`weights_norm` differ by no more than rounding."""
    return math.isclose(one, other, rel_tol=1e-6)
