"""One run is one frozen config; everything that decides its result stands here and nothing else does.

Where a run executes (device, number of data workers, where the hub mirror lies) is not part of it: those are arguments
of the functions that use them, and the result record notes them as provenance.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from splitlib.config.checks import check_choices, check_combinations, check_ranges, check_types
from splitlib.config.choices import (
    COMPRESSORS,
    DEFAULT_ADAM_BETA2,
    DEFAULT_ADAM_EPS,
    DEFAULT_BATCH_NORM,
    DEFAULT_IMAGE_SIZE,
    DEFAULT_MAX_LENGTH,
    DEFAULT_MODEL,
    DEFAULT_MOMENTUM,
    DEFAULT_PARTITION,
    DEFAULT_STAGES,
    ENGINES,
    FREE_PARTITIONS,
    INSERTS,
    KIND_ONLY,
    PARTITIONS,
    SCHEDULES,
    TEXT_TASKS,
    VISION_TASKS,
    Scalar,
    task_kind,
)
from splitlib.errors import ConfigError

# A record's key covers this number: raise it when the same config would mean another run. New random draws change the
# digits but not the meaning, as another version of torch does; a record names the versions that made it.
SCHEMA = 1
KEY_DIGITS = 12
"""Hexadecimal digits of a config's key."""
# Fields younger than the first records, each with the value that means what its absence meant. A key leaves them out at
# that value, so that the records of runs that do not use them stay valid.
_NEWER_FIELDS: Mapping[str, Any] = {
    "insert": "none",
    "insert_options": {},
    "stages": 3,
    "cuts": "",
    "recompute": "never",
    "batch_norm": "micro_batch",
    "micro_batch_loss": "mean",
    "replicas": 1,
    "engine": "in_process",
    "schedule": "gpipe",
    "images": "each",
    "padding": "sent",
    "coding": "tensor",
    "error_feedback": "none",
}

# What crosses a cut whole and as it is; inserted layers are part of the model.
_UNCOMPRESSED: Mapping[str, Any] = {
    "compressor": "none",
    "compressor_options": {},
    "gradient_compressor": "same",
    "gradient_options": {},
    "padding": "sent",
    "coding": "tensor",
    "error_feedback": "none",
}


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
    and have the same :attr:`key`, but for options: they are part of the key as they are given, fractions as floats, and
    a default written out makes another key than one left out. Impossible values raise
    :class:`~splitlib.errors.ConfigError`; options are checked where compressors and inserts are made.

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
    image_size: int | None = _setting(None, "vision: pixels a side")
    images: str = _setting(
        "each",
        "vision: each decoded and augmented by itself on the CPU; or all resident on the training device, where whole "
        "batches are augmented, with other draws",
        ("each", "resident"),
    )
    max_length: int | None = _setting(None, "text: tokens, padded and truncated")

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
        + " ".join(f"{kind}: {', '.join(p[1:])} (default {DEFAULT_PARTITION[kind]})." for kind, p in PARTITIONS.items())
        + f" Both: {', '.join(FREE_PARTITIONS)}.",
    )
    chunks: int = _setting(1, "micro-batches a batch is cut into")
    stages: int = _setting(DEFAULT_STAGES, "parts of the partition balanced, of equal shares of the work each")
    cuts: str = _setting("", "where the partition custom cuts, such as '3,10': units before each cut")
    insert: str = _setting("none", "text: layers inserted around each cut, which train with the model", INSERTS)
    insert_options: Mapping[str, Scalar] = _setting({}, "parameters of the inserted layers")
    compressor: str = _setting("none", "what encodes activations at a cut", COMPRESSORS)
    compressor_options: Mapping[str, Scalar] = _setting(
        {}, "parameters of the compressor; '3,7': 3 at one cut, 7 at the other"
    )
    gradient_compressor: str = _setting(
        "same", "what encodes gradients at a cut; same: as the activations", ("same", *COMPRESSORS)
    )
    gradient_options: Mapping[str, Scalar] = _setting({}, "parameters of the gradients' compressor")
    padding: str = _setting(
        "sent",
        "text: whether padding crosses the cuts, which no model reads; skipped sends the real tokens alone",
        ("sent", "skipped"),
    )
    coding: str = _setting(
        "tensor",
        "what of an activation is encoded: all of it, or its change since the sample was last seen (AQ-SGD)",
        ("tensor", "change"),
    )
    error_feedback: str = _setting(
        "none", "what the last tensor lost is added to the next: of no tensors, or of gradients", ("none", "gradients")
    )
    engine: str = _setting(
        "in_process",
        "what runs the stages: torchgpipe, the two machines' code in one process, or two machines; "
        "or replicas of the unsplit model, one process each",
        ENGINES,
    )
    schedule: str = _setting(
        "gpipe",
        "between client and server: all micro-batches forward and then back, or each back as soon as it can",
        SCHEDULES,
    )
    replicas: int = _setting(1, "data_parallel: processes, each with a device and an equal share of every batch")
    recompute: str = _setting(
        "never",
        "run a micro-batch's stages again in the backward pass, to save memory",
        ("never", "except_last", "always"),
    )
    batch_norm: str = _setting(
        DEFAULT_BATCH_NORM,
        "what normalises a micro-batch: its own statistics, which move the running ones at once or after the whole "
        "batch (deferred, as torchgpipe does it), or the pretrained ones, which stay as they are (frozen)",
        ("micro_batch", "deferred", "frozen"),
    )
    micro_batch_loss: str = _setting(
        "mean", "what is back-propagated: the batch's mean, or the sum of its micro-batches' means", ("mean", "sum")
    )

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
        check_types(self)
        kind = task_kind(self.task)
        self._fill_defaults(kind)
        check_choices(self)
        check_ranges(self)
        check_combinations(self, kind)
        object.__setattr__(self, "cuts", ",".join(map(str, self.cut_positions)))  # "03,10" is the same run

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
        if self.lora_rank > 0:
            fill("lora_alpha", self.lora_rank)
        for name in ("insert_options", "compressor_options", "gradient_options"):
            object.__setattr__(self, name, types.MappingProxyType(dict(sorted(getattr(self, name).items()))))

    @property
    def kind(self) -> str:
        """``"vision"`` or ``"text"``."""
        return task_kind(self.task)

    @property
    def model_name(self) -> str:
        """The model's name without its owner: ``roberta-base`` of ``FacebookAI/roberta-base``."""
        return str(self.model).rsplit("/", 1)[-1]

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that name this config's record; equal configs have equal keys."""
        canonical = json.dumps({"schema": SCHEMA, **self.identity()}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:KEY_DIGITS]

    def __hash__(self) -> int:
        return hash(self.key)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, one for each field."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}

    def identity(self) -> dict[str, Any]:
        """Return the fields that tell this run from others; a younger one that says nothing new is left out.

        >>> "batch_norm" in RunConfig(task="cifar10").identity()
        False
        """
        return {
            name: value
            for name, value in self.to_dict().items()
            if name not in _NEWER_FIELDS or value != _NEWER_FIELDS[name]
        }

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

        Changing ``task`` to one of the other kind resets what only the first kind has, and a ``lora_alpha`` that is the
        rank's goes with ``lora_rank``.

        >>> RunConfig(task="cola", lora_rank=8).replace(lora_rank=16).lora_alpha
        16
        """
        values = self.to_dict()
        if "task" in changes and (kind := task_kind(changes["task"])) != self.kind:
            for name in ("model", *KIND_ONLY[self.kind]):
                del values[name]
            if values["partition"] not in PARTITIONS[kind] + FREE_PARTITIONS:
                del values["partition"]
        if "lora_rank" in changes and values.get("lora_alpha") == self.lora_rank:
            del values["lora_alpha"]
        return RunConfig.from_dict({**values, **changes})

    def uncompressed(self, **changes: Any) -> RunConfig:
        """Return a validated copy whose tensors cross the cuts whole and as they are, with other fields changed too.

        >>> RunConfig(compressor="sort", error_feedback="gradients").uncompressed() == RunConfig()
        True
        """
        return self.replace(**{**_UNCOMPRESSED, **changes})

    @property
    def cut_positions(self) -> tuple[int, ...]:
        """Units before each cut of the partition ``custom``; empty for the others."""
        return tuple(map(int, self.cuts.split(","))) if self.cuts else ()

    @property
    def cut_count(self) -> int:
        """How often the partition cuts the model."""
        if self.partition == "none":
            return 0
        return len(self.cut_positions) if self.partition == "custom" else self.stages - 1

    @property
    def effective_gradient_compressor(self) -> tuple[str, Mapping[str, Scalar]]:
        """Name and options of the compressor that gradients really get."""
        if self.gradient_compressor == "same":
            return self.compressor, self.compressor_options
        return self.gradient_compressor, self.gradient_options


def setting_fields() -> tuple[dataclasses.Field[Any], ...]:
    """The fields of :class:`RunConfig` with their help, for command lines and widgets."""
    return fields(RunConfig)
