"""What makes a config impossible, each told in one line with its remedy.

Settings that a run would ignore are refused too: they would give one run two keys.
"""

from __future__ import annotations

import math
import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import fields
from itertools import pairwise

from splitlib.config.choices import (
    DEFAULT_ADAM_BETA2,
    DEFAULT_ADAM_EPS,
    DEFAULT_BATCH_NORM,
    DEFAULT_MOMENTUM,
    DEFAULT_STAGES,
    FLOAT_OPTIONS,
    FREE_PARTITIONS,
    PARTITIONS,
    POLYNOMIAL_END,
    STRIDE,
    TWO_SIDED,
    VISION_MODELS,
    Scalar,
)
from splitlib.errors import ConfigError

if typing.TYPE_CHECKING:
    from splitlib.config.run import RunConfig

# What an optimizer multiplies with each other has to stay below float32's largest number, 3.4e38.
_LARGEST, _LARGEST_DECAY = 1e30, 1e6


def check_types(config: RunConfig) -> None:
    """Refuse values of the wrong type; whole numbers become floats where floats belong."""
    hints = typing.get_type_hints(type(config))
    for f in fields(config):
        value, wanted = getattr(config, f.name), hints[f.name]
        if isinstance(value, int | float) and not isinstance(value, bool) and wanted is float:
            object.__setattr__(config, f.name, _as_float(f.name, value))
            continue
        if typing.get_origin(wanted) is Mapping:
            _check_options(f.name, value)
            object.__setattr__(config, f.name, {option: _option(option, own) for option, own in value.items()})
            continue
        allowed = typing.get_args(wanted) or (wanted,)
        if isinstance(value, bool) or not isinstance(value, tuple(t for t in allowed if isinstance(t, type))):
            names = " or ".join("nothing" if t is type(None) else getattr(t, "__name__", str(t)) for t in allowed)
            raise ConfigError(f"{f.name} must be {names}, not {value!r}")


def _as_float(name: str, value: float) -> float:
    try:
        return float(value) + 0.0  # -0.0 would be equal and have another key
    except OverflowError:
        raise ConfigError(f"{name} is too large a number; use one below {_LARGEST:g}") from None


def _option(name: str, value: Scalar) -> Scalar:
    """Return an option's value, fractions as floats, also where each cut has its own: ``"0.5,1"`` is ``"0.5,1.0"``."""
    if name not in FLOAT_OPTIONS or isinstance(value, bool):
        return value
    if not isinstance(value, str):
        return _as_float(name, value)
    try:
        return ",".join(str(_as_float(name, float(part))) for part in value.split(",")) if "," in value else value
    except ValueError:  # told where the options are read
        return value


def _check_options(name: str, options: object) -> None:
    if not isinstance(options, Mapping):
        raise ConfigError(f"{name} must be a mapping, such as {{'bits': 8}}, not {options!r}")
    for option, value in options.items():
        plain = isinstance(value, str) or (isinstance(value, int | float) and abs(value) <= sys.float_info.max)
        if not isinstance(option, str) or not plain:
            raise ConfigError(f"{name} must have names and numbers or words, such as {{'bits': 8}}, not {options!r}")


def check_choices(config: RunConfig) -> None:
    """Refuse what is not among a field's choices."""
    for f in fields(config):
        choices, value = f.metadata["choices"], getattr(config, f.name)
        if choices and value not in choices:
            raise ConfigError(f"unknown {f.name} {value!r}; choose from {', '.join(choices)}")


def check_ranges(config: RunConfig) -> None:
    """Refuse numbers out of range."""
    at_least_one = (
        "train_samples",
        "eval_samples",
        "image_size",
        "max_length",
        "chunks",
        "epochs",
        "batch_size",
        "replicas",
        "lora_alpha",
    )
    for name in at_least_one:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")
    for name, most in (("lora_rank", math.inf), ("weight_decay", _LARGEST_DECAY), ("seed", (1 << 64) - 1)):
        if not 0 <= getattr(config, name) <= most:
            upto = "" if math.isinf(most) else f" and at most {most}"
            raise ConfigError(f"{name} must be at least 0{upto}, not {getattr(config, name)}")
    for name in ("lr", "adam_eps"):
        if not 0 < getattr(config, name) <= _LARGEST:
            raise ConfigError(f"{name} must be a positive number up to {_LARGEST:g}, not {getattr(config, name)}")
    for name in ("momentum", "adam_beta2", "warmup"):
        if not 0 <= getattr(config, name) < 1:
            raise ConfigError(f"{name} must be in [0, 1), not {getattr(config, name)}")


def check_combinations(config: RunConfig, kind: str) -> None:
    """Refuse settings that contradict each other, or that this run would ignore."""
    partitions = PARTITIONS[kind] + FREE_PARTITIONS
    if config.partition not in partitions:
        raise ConfigError(
            f"unknown partition {config.partition!r} for a {kind} task; choose from {', '.join(partitions)}"
        )
    if config.batch_size < config.chunks:
        raise ConfigError(
            f"batch_size {config.batch_size} is smaller than chunks {config.chunks}; "
            "each micro-batch needs at least one sample"
        )
    if config.train_samples is not None and config.train_samples < config.batch_size:
        raise ConfigError(f"train_samples {config.train_samples} is smaller than batch_size {config.batch_size}")
    _check_kind(config, kind)
    if config.partition == "none" and (config.compressor != "none" or config.gradient_compressor != "same"):
        raise ConfigError(f"compressor {config.compressor!r} needs a cut: choose a partition other than 'none'")
    if config.insert == "none" and config.insert_options:
        raise ConfigError("insert_options need an insert other than 'none'")
    _check_coding(config, kind)
    _check_stages(config)
    _check_engine(config)
    if config.partition == "none" and config.insert != "none":
        raise ConfigError(f"insert {config.insert!r} needs a cut: choose a partition other than 'none'")
    if config.gradient_compressor == "same" and config.gradient_options:
        raise ConfigError("gradient_options need a gradient_compressor other than 'same'")
    if config.scheduler == "polynomial" and config.lr <= POLYNOMIAL_END:
        raise ConfigError(
            f"scheduler 'polynomial' ends at a learning rate of {POLYNOMIAL_END:g}, so lr {config.lr:g} would "
            "not fall; use a larger lr or another scheduler"
        )
    if config.optimizer != "sgd" and config.momentum != DEFAULT_MOMENTUM:
        raise ConfigError(f"momentum is for sgd; {config.optimizer} does not use it")
    if config.optimizer == "sgd" and (config.adam_eps, config.adam_beta2) != (DEFAULT_ADAM_EPS, DEFAULT_ADAM_BETA2):
        raise ConfigError("adam_eps and adam_beta2 are for adam and adamw; sgd does not use them")


def _check_coding(config: RunConfig, kind: str) -> None:
    """Refuse to code what never crosses, or by what the receiver could not know."""
    if config.padding == "skipped" and kind == "vision":
        raise ConfigError(f"padding 'skipped' is for text tasks; {config.task} has none")
    for name, value in {"padding": "skipped", "coding": "change", "error_feedback": "gradients"}.items():
        if getattr(config, name) != value:
            continue
        if config.partition == "none":
            raise ConfigError(f"{name} {value!r} needs a cut: choose a partition other than 'none'")
        if config.insert != "none":
            raise ConfigError(
                f"{name} {value!r} needs tensors of one shape at a cut, which insert {config.insert!r} changes"
            )
    gradients = config.effective_gradient_compressor[0]
    if config.coding == "change" and config.compressor == "none":
        raise ConfigError("coding 'change' needs a compressor: sent whole, a change is no smaller than the tensor")
    if config.error_feedback == "gradients" and gradients == "none":
        raise ConfigError("error_feedback 'gradients' needs a compressor for gradients: sent whole, they lose nothing")


def _check_stages(config: RunConfig) -> None:
    if config.stages < 2:
        raise ConfigError(f"stages must be at least 2, not {config.stages}; partition 'none' trains the model whole")
    if config.stages != DEFAULT_STAGES and config.partition != "balanced":
        raise ConfigError(f"stages {config.stages} needs the partition 'balanced'; {config.partition!r} has its own")
    if (config.partition == "custom") != bool(config.cuts):
        raise ConfigError("cuts and the partition 'custom' belong together: give both, such as --cuts 3,10, or neither")
    if not re.fullmatch(r"([0-9]{1,6}(,[0-9]{1,6})*)?", config.cuts):
        raise ConfigError(f"cuts must be numbers separated by commas, such as '3,10', not {config.cuts!r}")
    positions = config.cut_positions
    if any(first >= second for first, second in pairwise((0, *positions))):
        raise ConfigError(f"cuts must rise from at least 1, not {config.cuts!r}")


def _check_engine(config: RunConfig) -> None:
    """Refuse combinations that an engine could only ignore."""
    if config.engine == "data_parallel":
        _check_data_parallel(config)
    elif config.replicas > 1:
        raise ConfigError(f"replicas {config.replicas} need the engine 'data_parallel'")
    _check_batch_norm(config)
    if config.engine not in TWO_SIDED:
        if config.schedule != "gpipe":
            raise ConfigError(f"schedule {config.schedule!r} is for two machines; {config.engine} runs gpipe's")
        return
    _check_in_process_only(config)
    if config.partition == "none":
        raise ConfigError(f"engine {config.engine!r} needs a cut: choose a partition other than 'none'")
    if config.cut_count != DEFAULT_STAGES - 1:
        raise ConfigError(f"engine {config.engine!r} has head, body and tail, not {config.cut_count + 1} stages")
    if config.precision == "fp16":
        raise ConfigError(
            "fp16 is for engine in_process: its loss scaling skips steps by the gradients of all stages, which no "
            "machine of two sees; use bf16 or fp32"
        )


def _check_batch_norm(config: RunConfig) -> None:
    if config.kind == "text":
        if config.batch_norm != DEFAULT_BATCH_NORM:
            raise ConfigError(
                f"batch_norm {config.batch_norm!r} is for vision models; {config.model} has no batch norm"
            )
        return
    if config.batch_norm == "frozen":
        if config.weights == "random":
            raise ConfigError("batch_norm 'frozen' needs weights 'pretrained': random ones have no statistics to keep")
        return
    batch = config.batch_size // config.replicas
    size = math.ceil(batch / config.chunks)
    made = math.ceil(batch / size)
    if batch - size * (made - 1) == 1 and int(config.image_size or 0) <= STRIDE:
        raise ConfigError(
            f"batch_size {config.batch_size} in {max(config.chunks, config.replicas)} parts leaves one with a single "
            f"image, whose last maps have one value a channel at {config.image_size} px: batch norm needs two; choose "
            f"another batch_size, or images of more than {STRIDE} px"
        )
    if config.batch_norm == "deferred" and made != config.chunks:
        raise ConfigError(
            f"batch_norm 'deferred' waits for all of {config.chunks} chunks, and {config.batch_size} samples make only "
            f"{made} micro-batches of {size}; choose a batch_size that chunks divide"
        )


def _check_data_parallel(config: RunConfig) -> None:
    if config.partition != "none":
        raise ConfigError(f"engine 'data_parallel' trains the model whole: partition 'none', not {config.partition!r}")
    if config.batch_size % config.replicas:
        raise ConfigError(f"batch_size {config.batch_size} must be a multiple of replicas {config.replicas}")
    if config.chunks > 1:
        raise ConfigError(f"chunks {config.chunks} need an engine with stages; 'data_parallel' has replicas instead")
    _check_in_process_only(config)


def _check_in_process_only(config: RunConfig) -> None:
    anywhere = {"recompute": ("never",), "batch_norm": ("micro_batch", "frozen"), "micro_batch_loss": ("mean",)}
    for name, values in anywhere.items():
        value = getattr(config, name)
        if value not in values:
            raise ConfigError(f"{name} {value!r} is for the engine 'in_process', not for {config.engine!r}")


def _check_kind(config: RunConfig, kind: str) -> None:
    """Refuse settings of the other kind of task: silently ignored, they would make two keys for one run."""
    if kind == "vision":
        if config.max_length is not None:
            raise ConfigError(f"max_length is for text tasks; {config.task} is a vision task")
        if config.lora_rank:
            raise ConfigError(f"lora_rank is for text tasks; {config.task} is a vision task")
        if config.insert != "none":
            raise ConfigError(
                f"insert {config.insert!r} is for text tasks; {config.task} is a vision task, whose inserts are the "
                "partitions conv_insert_..."
            )
        if config.model not in VISION_MODELS:
            raise ConfigError(f"unknown vision model {config.model!r}; choose from {', '.join(VISION_MODELS)}")
    else:
        if config.image_size is not None:
            raise ConfigError(f"image_size is for vision tasks; {config.task} is a text task")
        if config.images != "each":
            raise ConfigError(f"images {config.images!r} is for vision tasks; {config.task} is a text task")
        if config.model in VISION_MODELS:
            raise ConfigError(f"model {config.model!r} is for vision tasks; {config.task} is a text task")
    if config.lora_alpha is not None and not config.lora_rank:
        raise ConfigError("lora_alpha needs a lora_rank of at least 1")
    if config.weights == "pretrained" and str(config.model).endswith("_tiny"):
        raise ConfigError(f"there are no pretrained weights for {config.model}; use weights='random'")
