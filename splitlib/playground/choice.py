"""What the playground's controls say, as plain values: one choice is one config, one link and the words to copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from splitlib.compressors import COMPRESSORS
from splitlib.config import RunConfig
from splitlib.errors import ConfigError
from splitlib.options import parameters
from splitlib.pipeline.remote.link import Link
from splitlib.profiles import PROFILES, Profile, document_settings, get_profile

SAME = "same"
MODELS = {
    "vision": ("mobilenet_v2_tiny", "mobilenet_v2"),
    "text": ("roberta_tiny", "sentence-transformers/all-MiniLM-L6-v2", "roberta-base"),
}
# What a machine without the hub can build at random; every other model comes with its weights.
_BUILT_IN = ("mobilenet_v2", "roberta-base")
LIMITS: Mapping[str, tuple[float, float]] = {
    "mbit": (1.0, 1e5),
    "latency_ms": (0.0, 1e4),
    "batch_size": (1, 4096),
    "chunks": (1, 32),
    "epochs": (1, 20),
}
"""Of the numbers that controls can show."""
_FILLED = ("batch_size", "chunks", "epochs")  # where 0 takes what the profile would
_OPTIONS_EXAMPLE = "'level_bits 6, bin_bits 2'"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Everything the controls say. Empty words and zeros take what the profile would."""

    profile: str = "quick"
    data: str = ""
    """``embedded`` or ``real``."""
    hub: str = ""
    """Local mirror of the hub; where data comes from, no part of the config."""
    task: str = "cifar10"
    model: str = ""
    partition: str = ""
    cuts: str = ""
    """Of the partition ``custom``."""
    batch_size: int = 0
    chunks: int = 4
    compressor: str = "none"
    options: Mapping[str, Any] = field(default_factory=dict)
    gradient_compressor: str = SAME
    gradient_options: Mapping[str, Any] = field(default_factory=dict)
    mbit: float = 50.0
    """Of the link, each direction."""
    latency_ms: float = 10.0
    epochs: int = 2

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if value == 0 and name in _FILLED:
                continue
            if not (isinstance(value, int | float) and low <= value <= high):
                raise ConfigError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")

    def config(self) -> RunConfig:
        """Return the run this choice means.

        Raises:
            ConfigError: no run can be like this; the message says why and what to change.
        """
        document, scaled = document_settings(self.task), self._profile()
        made: dict[str, Any] = {"chunks": self.chunks} if self.chunks else {}
        made |= {"epochs": self.epochs} if self.epochs else {}
        made |= {"batch_size": self.batch_size} if self.batch_size else {}
        made |= {"partition": self.partition} if self.partition else {}
        made |= {"cuts": self.cuts} if self.partition == "custom" else {}
        made |= {"model": self.model, "weights": weights_of(self.model, scaled.data)} if self.model else {}
        gradients = {} if self.gradient_compressor == SAME else dict(self.gradient_options)
        return scaled.scale(
            document,
            **made,
            compressor=self.compressor,
            compressor_options=dict(self.options),
            gradient_compressor=self.gradient_compressor,
            gradient_options=gradients,
        )

    def link(self) -> Link:
        """Return the link, the same in both directions."""
        return Link(rate_mbit=self.mbit, latency_ms=self.latency_ms)

    def filled(self) -> Choice:
        """Return the choice with the profile's values in place of empty ones, as controls show it."""
        scaled = self._profile()
        config = scaled.scale(document_settings(self.task))
        given = {
            "data": self.data or scaled.data,
            "model": self.model or str(config.model),
            "partition": self.partition or str(config.partition),
            "batch_size": self.batch_size or config.batch_size,
            "chunks": self.chunks or config.chunks,
            "epochs": self.epochs or min(config.epochs, int(LIMITS["epochs"][1])),
        }
        return self.replace(**given)

    def replace(self, **changes: Any) -> Choice:
        """Return a copy with some values changed."""
        return Choice(**{**{f.name: getattr(self, f.name) for f in fields(self)}, **changes})

    def parameters(self) -> dict[str, Any]:
        """Return the notebook's parameters that open it on this choice."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["options"], values["gradient_options"] = words(self.options), words(self.gradient_options)
        return values

    @classmethod
    def from_parameters(cls, **values: Any) -> Choice:
        """Return the choice that a notebook's parameters name; options are words: ``level_bits 6, bin_bits 2``.

        >>> Choice.from_parameters(compressor="uniform", options="bits 4").options
        {'bits': 4}
        """
        codecs = {"options": values.get("compressor", "none"), "gradient_options": values.get("gradient_compressor")}
        for name, compressor in codecs.items():
            if isinstance(values.get(name), str):
                values[name] = read_words(str(compressor), values[name])
        return cls(**values)

    def _profile(self) -> Profile:
        """Return the profile, or for data that is not the profile's the one that is made for them."""
        chosen = get_profile(self.profile)
        if self.data in ("", chosen.data):
            return chosen
        if self.data not in ("embedded", "real"):
            raise ConfigError(f"unknown data {self.data!r}; use embedded or real, or leave it empty for the profile's")
        return PROFILES["quick" if self.data == "embedded" else "real"]


def weights_of(model: str, data: str) -> str:
    """Return where training starts: from pretrained weights, unless there are none or the data needs no download."""
    random = model.endswith("_tiny") or (data == "embedded" and model in _BUILT_IN)
    return "random" if random else "pretrained"


def words(options: Mapping[str, Any]) -> str:
    """Return options in words, in the order of their names.

    >>> words({"level_bits": 6, "bin_bits": 2})
    'bin_bits 2, level_bits 6'
    """
    return ", ".join(f"{name} {options[name]}" for name in sorted(options))


def read_words(compressor: str, text: str) -> dict[str, Any]:
    """Return the options that :func:`words` wrote; ConfigError where the compressor has none of that name."""
    known = parameters(COMPRESSORS[compressor]) if compressor in COMPRESSORS else {}
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition(" ")
        if name not in known:
            takes = ", ".join(known) or "none"
            raise ConfigError(f"compressor {compressor!r} has no option {name!r}; its options are: {takes}")
        try:
            found[name] = type(known[name])(value.strip())
        except ValueError:
            raise ConfigError(f"option {part!r} has no number; write options as {_OPTIONS_EXAMPLE}") from None
    return found
