"""One run is one frozen config; everything that decides its result stands here and nothing else does.

Where a run executes (device, number of data workers, where the hub mirror lies) is not part of it: those are arguments
of the functions that use them, and the result record notes them as provenance.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from splitlib.errors import ConfigError

# A record's key covers this number: raise it when the same config would no longer give the same result.
SCHEMA = 1
# Fields younger than the first records, each with the value that means what its absence meant. A key leaves them out at
# that value, so that the records of runs that do not use them stay valid.
_NEWER_FIELDS: Mapping[str, Any] = {"insert": "none", "insert_options": {}}

VISION_TASKS = ("cifar10", "cifar100", "food101")
TEXT_TASKS = ("cola", "rte")
VISION_MODELS = ("mobilenet_v2", "mobilenet_v2_tiny")
PARTITIONS = {
    "vision": (
        "none",
        "first_last",
        "first_two_last_two",
        "conv_insert_type_1",
        "conv_insert_type_2",
        "conv_insert_type_3",
        "conv_insert_wide",
        "conv_insert_counted",
        "even",
    ),
    "text": ("none", "condition_1", "condition_2", "condition_3", "even"),
}
# The layers of splitlib.models.inserted that go around the cuts of a text model.
INSERTS = ("none", "linear", "decaying_linear")
DEFAULT_MODEL = {"vision": "mobilenet_v2", "text": "roberta-base"}
DEFAULT_PARTITION = {"vision": "first_last", "text": "condition_1"}
DEFAULT_IMAGE_SIZE = 224
DEFAULT_MAX_LENGTH = 128
DEFAULT_MOMENTUM = 0.0
DEFAULT_ADAM_EPS = 1e-8
DEFAULT_ADAM_BETA2 = 0.999

Scalar = int | float | str


def task_kind(task: str) -> str:
    """Return ``"vision"`` or ``"text"``.

    >>> task_kind("rte")
    'text'
    """
    if task in VISION_TASKS:
        return "vision"
    if task in TEXT_TASKS:
        return "text"
    raise ConfigError(f"unknown task {task!r}; choose from {', '.join(VISION_TASKS + TEXT_TASKS)}")


def _setting(default: Any, help: str, choices: tuple[str, ...] = ()) -> Any:
    """A documented field: the command line and the notebooks show the same help and choices."""
    metadata = {"help": help, "choices": choices}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides the result of one training run.

    Fields left at ``None`` are filled in with the task's usual value, so two configs that mean the same run are equal
    and have the same :attr:`key`. Impossible values raise :class:`~splitlib.errors.ConfigError`.

    >>> config = RunConfig(task="rte", partition="condition_1", chunks=4)
    >>> config.model, config.max_length, config.image_size
    ('roberta-base', 128, None)
    >>> config == RunConfig(task="rte", model="roberta-base", partition="condition_1", chunks=4)
    True
    """

    # Data
    task: str = _setting("cola", "what to learn", VISION_TASKS + TEXT_TASKS)
    data: str = _setting("embedded", "real data, or the embedded stand-in that needs no download", ("embedded", "real"))
    train_samples: int | None = _setting(None, "train on the first N samples of a seeded shuffle (default: all)")
    eval_samples: int | None = _setting(None, "evaluate on N samples (default: all)")
    image_size: int | None = _setting(None, f"vision: pixels a side (default {DEFAULT_IMAGE_SIZE})")
    max_length: int | None = _setting(None, f"text: tokens, padded and truncated (default {DEFAULT_MAX_LENGTH})")

    # Model
    model: str | None = _setting(
        None,
        "mobilenet_v2, mobilenet_v2_tiny; roberta-base, roberta_tiny, or a BERT-type encoder on the hub or in a folder",
    )
    weights: str = _setting("pretrained", "where training starts", ("pretrained", "random"))
    lora_rank: int = _setting(0, "text: rank of the LoRA adapters on query and value; 0 trains every weight")
    lora_alpha: int | None = _setting(None, "LoRA scale is alpha / rank (default: the rank)")

    # Split
    partition: str | None = _setting(
        None,
        "where the model is cut; none trains it whole. "
        + " ".join(
            f"{kind}: {', '.join(p[1:])} (default {DEFAULT_PARTITION[kind]})." for kind, p in PARTITIONS.items()
        ),
    )
    chunks: int = _setting(1, "micro-batches a batch is cut into")
    insert: str = _setting("none", "text: layers inserted around each cut, which train with the model", INSERTS)
    insert_options: Mapping[str, Scalar] = _setting({}, "parameters of the inserted layers")
    compressor: str = _setting("none", "what encodes activations at a cut")
    compressor_options: Mapping[str, Scalar] = _setting(
        {}, "parameters of the compressor; '3,7': 3 at one cut, 7 at the other"
    )
    gradient_compressor: str = _setting("same", "what encodes gradients at a cut; same: as the activations")
    gradient_options: Mapping[str, Scalar] = _setting({}, "parameters of the gradients' compressor")

    # Training
    epochs: int = _setting(20, "passes over the training data")
    batch_size: int = _setting(32, "samples an optimizer step sees")
    optimizer: str = _setting("adamw", "update rule", ("sgd", "adam", "adamw"))
    lr: float = _setting(2e-5, "peak learning rate")
    momentum: float = _setting(DEFAULT_MOMENTUM, "of SGD")
    weight_decay: float = _setting(0.0, "of the optimizer (decoupled in adamw)")
    adam_eps: float = _setting(DEFAULT_ADAM_EPS, "epsilon of adam and adamw")
    adam_beta2: float = _setting(DEFAULT_ADAM_BETA2, "second beta of adam and adamw")
    scheduler: str = _setting(
        "polynomial", "learning rate after warm-up", ("constant", "cosine", "polynomial", "linear")
    )
    warmup: float = _setting(0.0, "share of all steps spent warming up linearly")
    precision: str = _setting("fp32", "fp32, or autocast to bf16 (CPU, CUDA) or fp16 (CUDA)", ("fp32", "bf16", "fp16"))
    seed: int = _setting(0, "of initialisation, data order, augmentation and dropout")

    def __post_init__(self) -> None:
        _check_types(self)
        kind = task_kind(self.task)
        self._fill_defaults(kind)
        _check_choices(self)
        _check_ranges(self)
        _check_combinations(self, kind)

    def _fill_defaults(self, kind: str) -> None:
        """Replace ``None`` by the task's usual value, once, so that equal runs compare equal."""

        def fill(name: str, value: Any) -> None:
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

        fill("model", DEFAULT_MODEL[kind])
        fill("partition", DEFAULT_PARTITION[kind])
        if kind == "vision":
            fill("image_size", DEFAULT_IMAGE_SIZE)
        else:
            fill("max_length", DEFAULT_MAX_LENGTH)
        if self.lora_rank:
            fill("lora_alpha", self.lora_rank)
        for name in ("insert_options", "compressor_options", "gradient_options"):
            object.__setattr__(self, name, types.MappingProxyType(dict(sorted(getattr(self, name).items()))))

    @property
    def kind(self) -> str:
        """``"vision"`` or ``"text"``."""
        return task_kind(self.task)

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that name this config's record; equal configs have equal keys."""
        values = self.to_dict()
        for name, default in _NEWER_FIELDS.items():
            if values[name] == default:
                del values[name]
        canonical = json.dumps({"schema": SCHEMA, **values}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def __hash__(self) -> int:
        return hash(self.key)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, one for each field."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """Build a config from :meth:`to_dict`'s output; an unknown name raises ConfigError and lists the known ones."""
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(f"unknown setting {unknown[0]!r}; the settings are {', '.join(known)}")
        return cls(**values)

    def replace(self, **changes: Any) -> RunConfig:
        """Return a validated copy with some fields changed.

        Changing ``task`` to one of the other kind resets what only the first kind has.
        """
        values = {**self.to_dict(), **changes}
        if "task" in changes and task_kind(changes["task"]) != self.kind:
            for name in {"model", "partition", "image_size", "max_length"} - set(changes):
                values[name] = None
        return RunConfig.from_dict(values)

    @property
    def effective_gradient_compressor(self) -> tuple[str, Mapping[str, Scalar]]:
        """Name and options of the compressor that gradients really get."""
        if self.gradient_compressor == "same":
            return self.compressor, self.compressor_options
        return self.gradient_compressor, self.gradient_options


def _check_types(config: RunConfig) -> None:
    hints = typing.get_type_hints(RunConfig)
    for f in fields(config):
        value, wanted = getattr(config, f.name), hints[f.name]
        if isinstance(value, int) and not isinstance(value, bool) and wanted is float:
            object.__setattr__(config, f.name, float(value))
            continue
        if isinstance(value, Mapping) and typing.get_origin(wanted) is Mapping:
            continue
        allowed = typing.get_args(wanted) or (wanted,)
        if isinstance(value, bool) or not isinstance(value, tuple(t for t in allowed if isinstance(t, type))):
            names = " or ".join("nothing" if t is type(None) else getattr(t, "__name__", str(t)) for t in allowed)
            raise ConfigError(f"{f.name} must be {names}, not {value!r}")


def _check_choices(config: RunConfig) -> None:
    for f in fields(config):
        choices, value = f.metadata["choices"], getattr(config, f.name)
        if choices and value not in choices:
            raise ConfigError(f"unknown {f.name} {value!r}; choose from {', '.join(choices)}")


def _check_ranges(config: RunConfig) -> None:
    at_least_one = ("train_samples", "eval_samples", "image_size", "max_length", "chunks", "epochs", "batch_size")
    for name in at_least_one:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")
    for name in ("lora_rank", "weight_decay", "seed"):
        if not getattr(config, name) >= 0:
            raise ConfigError(f"{name} must be at least 0, not {getattr(config, name)}")
    for name in ("lr", "adam_eps"):
        if not 0 < getattr(config, name) < float("inf"):
            raise ConfigError(f"{name} must be a positive number, not {getattr(config, name)}")
    for name in ("momentum", "adam_beta2", "warmup"):
        if not 0 <= getattr(config, name) < 1:
            raise ConfigError(f"{name} must be in [0, 1), not {getattr(config, name)}")


def _check_combinations(config: RunConfig, kind: str) -> None:
    if config.partition not in PARTITIONS[kind]:
        raise ConfigError(
            f"unknown partition {config.partition!r} for a {kind} task; choose from {', '.join(PARTITIONS[kind])}"
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
    if config.partition == "none" and config.insert != "none":
        raise ConfigError(f"insert {config.insert!r} needs a cut: choose a partition other than 'none'")
    if config.gradient_compressor == "same" and config.gradient_options:
        raise ConfigError("gradient_options need a gradient_compressor other than 'same'")
    if config.optimizer != "sgd" and config.momentum != DEFAULT_MOMENTUM:
        raise ConfigError(f"momentum is for sgd; {config.optimizer} does not use it")
    if config.optimizer == "sgd" and (config.adam_eps, config.adam_beta2) != (DEFAULT_ADAM_EPS, DEFAULT_ADAM_BETA2):
        raise ConfigError("adam_eps and adam_beta2 are for adam and adamw; sgd does not use them")


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
        if config.model in VISION_MODELS:
            raise ConfigError(f"model {config.model!r} is for vision tasks; {config.task} is a text task")
    if config.lora_alpha is not None and not config.lora_rank:
        raise ConfigError("lora_alpha needs a lora_rank of at least 1")
    if config.weights == "pretrained" and str(config.model).endswith("_tiny"):
        raise ConfigError(f"there are no pretrained weights for {config.model}; use weights='random'")


def setting_fields() -> tuple[dataclasses.Field[Any], ...]:
    """The fields of :class:`RunConfig` with their help, for command lines and widgets."""
    return fields(RunConfig)
