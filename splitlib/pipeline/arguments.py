"""What :func:`~splitlib.pipeline.inprocess.build_pipeline` and its pipeline are given, checked before anything runs."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from splitlib.compressors import Compressor
from splitlib.config import RunConfig
from splitlib.errors import ConfigError
from splitlib.models.units import as_unit, first_layer
from splitlib.options import option_choices
from splitlib.runtime import pick_device

Devices = torch.device | str | Sequence[torch.device | str] | None


def stages_of(parts: Iterable[nn.Module]) -> list[nn.Module]:
    """Return the stages as modules that map a tuple of tensors to a tuple of tensors.

    Raises:
        ConfigError: one is no module, shares a weight with another, or begins by overwriting what crossed its cut.
    """
    if not isinstance(parts, Iterable):
        kind = type(parts).__name__
        raise ConfigError(f"stages are a list of modules, such as [model[:2], model[2:4], model[4:]], not a {kind}")
    stages = list(parts)
    if not stages:
        raise ConfigError("a pipeline needs at least one stage, not none")
    for index, stage in enumerate(stages):
        if not isinstance(stage, nn.Module):
            raise ConfigError(f"stage {index} must be a torch.nn.Module, not {stage!r}")
        first = first_layer(stage)
        if index and getattr(first, "inplace", False):
            raise ConfigError(
                f"stage {index} begins with {first}, which would overwrite what crossed the cut; "
                "take inplace=False, or cut behind it"
            )
    _check_weights_are_apart(stages)
    return [as_unit(stage) for stage in stages]


def _check_weights_are_apart(stages: Sequence[nn.Module]) -> None:
    """Refuse a weight of two stages: each side of a cut has its own, and torchgpipe says so less clearly."""
    owners: dict[nn.Parameter, int] = {}
    for index, stage in enumerate(stages):
        for name, weight in stage.named_parameters():
            if (owner := owners.setdefault(weight, index)) != index:
                raise ConfigError(
                    f"stages {owner} and {index} share the weight {name!r} {list(weight.shape)}; "
                    "copy it, or cut where both uses are in one stage"
                )


def devices_of(devices: Devices, stages: Sequence[nn.Module]) -> list[torch.device]:
    """Return a device for each stage; without any, that of its weights, or of the stage before if it has none.

    Raises:
        ConfigError: there is no such device, or not one for all stages or for each.
    """
    if devices is None:
        found = [torch.device("cpu")]
        for stage in stages:
            weight = next(stage.parameters(), None)
            found.append(found[-1] if weight is None else weight.device)
        return found[1:]
    each = [devices] * len(stages) if isinstance(devices, str | torch.device) else list(devices)
    if len(each) != len(stages):
        wanted = f"{len(stages)} stages need {len(stages)} devices"
        raise ConfigError(f"{wanted}, not {len(each)}; list one for each, or name one for all")
    return [device if isinstance(device, torch.device) else pick_device(device) for device in each]


def codecs_of(what: str, codecs: Compressor | Sequence[Compressor], cuts: int) -> list[Compressor]:
    """Return a compressor of its own for each cut; raise ConfigError if one is none, or their number is another."""
    each = [codecs] * cuts if isinstance(codecs, Compressor | str) else list(codecs)
    for codec in each:
        if not isinstance(codec, Compressor):
            raise ConfigError(f"{what} must be compressors, such as make_compressor('sort'), not {codec!r}")
    if len(each) != cuts:
        raise ConfigError(f"{cuts} cuts need one compressor, or {cuts}, not {len(each)}")
    return [copy.deepcopy(codec) for codec in each]


def check_chunks(chunks: int) -> None:
    """Refuse what is no number of micro-batches."""
    if not isinstance(chunks, int) or chunks < 1:
        raise ConfigError(f"chunks, the number of micro-batches, must be at least 1, not {chunks!r}")


def check_choices(**settings: str) -> None:
    """Refuse a value that a run's setting of this name cannot have either."""
    choices = option_choices({"": RunConfig})
    for name, value in settings.items():
        if value not in choices[name]:
            raise ConfigError(f"{name} must be one of {', '.join(choices[name])}, not {value!r}")


def check_inputs(inputs: Any) -> None:
    """Refuse inputs of a batch that are no tuple of tensors."""
    wrong = [x for x in inputs if not isinstance(x, Tensor)] if isinstance(inputs, tuple | list) else [inputs]
    if wrong or not inputs:
        kind = type(wrong[0]).__name__ if wrong else "nothing"
        raise ConfigError(f"inputs are tensors, as in pipeline(x) and train_batch((x,), labels, step=0), not {kind}")
