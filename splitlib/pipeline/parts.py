"""From a config to what the engines run: the same stages, weights and compressors on every machine that builds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
