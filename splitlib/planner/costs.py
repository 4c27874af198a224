"""What a model's layers and the compressors at its cuts cost on one device: measured once, kept as one JSON file.

The file lies in ``results/`` under a name that holds a hash of everything the numbers depend on: model, data, batch,
precision, device, hardware and versions. A machine or a package that changes makes another file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from splitlib.config import RunConfig
from splitlib.errors import ConfigError, RecordError
from splitlib.files import file_stem, write_text
from splitlib.results import TIMING_PREFIX
from splitlib.runtime import environment, results_dir
from splitlib.version import __version__

SCHEMA = 3  # raise it when the same file would mean other numbers
_SHOWN = (1, 2, SCHEMA)
"""Also read, where a file is named: schema 1 measured power iteration on a tensor that it had encoded before."""
ACTIVATION, GRADIENT = "activation", "gradient"
# What of a config changes a layer's time or the tensors at a cut. Where it is cut, what compresses, and how long it
# trains do not.
DEPENDS_ON = (
    "task", "data", "train_samples", "image_size", "images", "max_length", "model", "weights", "lora_rank",
    "lora_alpha", "batch_norm", "batch_size", "optimizer", "momentum", "precision", "seed",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One unit of the model (:func:`splitlib.models.units.units`), whatever the micro-batch."""

    name: str
    macs: int
    """Of one sample, forward, by torch's counter."""
    parameters: int
    """That train."""


@dataclass(frozen=True, kw_only=True)
class LayerTimes:
    """Seconds of each layer for one micro-batch of one size, medians; and what leaves each layer."""

    forward: tuple[float, ...]
    """The last one with the loss."""
    backward: tuple[float, ...]
    """0 where nothing up to the layer trains."""
    nbytes: tuple[int, ...]
    """Of the tensor that leaves each layer, uncompressed; its gradient has as many."""
    beside_nbytes: int
    """Of what crosses the first cut beside it: an attention mask."""
    repeats: int
    """Micro-batches in each median."""


@dataclass(frozen=True, kw_only=True)
class CodecCost:
    """What one compressor makes of one tensor at one cut."""

    nbytes: int
    """On the wire: payload and frame."""
    encode: float
    """Seconds, median."""
    decode: float
    """Seconds, median."""
    error: float
    """Mean squared error over the tensor's variance, of a micro-batch not seen before; 0 is exact."""
    unequal: float | None = None
    """How unequally a text's tokens arrive (:func:`splitlib.compressors.unequal_gain`); None for other tensors."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Everything measured for one model and batch on one device."""

    depends_on: Mapping[str, Any]
    """The config's settings that the numbers depend on."""
    device: str
    data_label: str
    data_fingerprint: str
    layers: tuple[Layer, ...]
    named_cuts: Mapping[str, tuple[int, int]]
    """Units before each of the two cuts, by partition."""
    optimizer: float
    """Seconds of one step over all layers, median."""
    sizes: Mapping[int, LayerTimes] = field(default_factory=dict)
    """By samples in a micro-batch."""
    codecs: Mapping[str, CodecCost] = field(default_factory=dict)
    """By :func:`codec_key`."""
    environment: Mapping[str, Any]
    splitlib_version: str = __version__
    created: str

    def adding(self, *, sizes: Mapping[int, LayerTimes] = {}, codecs: Mapping[str, CodecCost] = {}) -> Costs:
        """Return a copy that knows more."""
        return replace(self, sizes={**self.sizes, **sizes}, codecs={**self.codecs, **codecs})

    def times(self, size: int) -> LayerTimes:
        """Return the layers' times of a micro-batch; ConfigError if this size was not measured."""
        if size not in self.sizes:
            known = ", ".join(map(str, sorted(self.sizes))) or "none"
            raise ConfigError(
                f"no times were measured for micro-batches of {size} samples, but of {known}; measure again"
            )
        return self.sizes[size]

    def codec(self, key: str) -> CodecCost:
        """Return what a compressor costs at a cut; ConfigError if that was not measured."""
        if key not in self.codecs:
            raise ConfigError(f"no costs were measured for {key}; measure again")
        return self.codecs[key]

    def table(self, size: int) -> pd.DataFrame:
        """Return one row for each layer, by its number from 1: what a cut right after it splits and carries.

        MACs are of one sample, ``kilobytes`` (10^3 bytes, uncompressed; none after the last layer) and milliseconds of
        a micro-batch of ``size`` samples.
        """
        times = self.times(size)
        numbers = pd.RangeIndex(1, len(self.layers) + 1, name="layer")
        columns = {
            "name": [layer.name for layer in self.layers],
            "macs": [layer.macs for layer in self.layers],
            "kilobytes": [*(n / 1e3 for n in times.nbytes[:-1]), float("nan")],
            "forward_ms": [1e3 * seconds for seconds in times.forward],
            "backward_ms": [1e3 * seconds for seconds in times.backward],
        }
        return pd.DataFrame(columns, index=numbers)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Costs:
        """Rebuild from :meth:`to_dict`'s output, read from JSON."""
        values = dict(values)
        if values.pop("schema") not in _SHOWN:
            raise ValueError("it is of another version of splitlib")
        return cls(
            **{
                **values,
                "layers": tuple(Layer(**layer) for layer in values["layers"]),
                "named_cuts": {name: (first, second) for name, (first, second) in values["named_cuts"].items()},
                "sizes": {int(size): _layer_times(each) for size, each in values["sizes"].items()},
                "codecs": {key: CodecCost(**each) for key, each in values["codecs"].items()},
            }
        )


def _layer_times(values: Mapping[str, Any]) -> LayerTimes:
    lists = {name: tuple(values[name]) for name in ("forward", "backward", "nbytes")}
    return LayerTimes(**{**values, **lists})


def codec_key(spec: str, direction: str, cut: int, size: int) -> str:
    """Return the name of one compressor's costs.

    >>> codec_key("uniform:bits=4", "gradient", 3, 8)
    'uniform:bits=4, gradient at cut 3, micro-batch 8'
    """
    return f"{spec}, {direction} at cut {cut}, micro-batch {size}"


def depends_on(config: RunConfig) -> dict[str, Any]:
    """Return the settings of ``config`` that the costs depend on."""
    return {name: value for name, value in config.identity().items() if name in DEPENDS_ON}


def costs_path(config: RunConfig, device: torch.device) -> Path:
    """Return where the costs of ``config`` on ``device`` of this machine lie, whether they exist or not."""
    identity = [SCHEMA, depends_on(config), str(device), environment(device), __version__]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    return results_dir() / f"{_name(config, device)}-{key}.json"


def recorded_costs(config: RunConfig, device: torch.device) -> Path | None:
    """Return the latest costs of ``config`` on such a device of any machine, for :func:`~splitlib.planner.plan`.

    None if there are none. Unlike times measured here they say how fast another machine is: they are for showing a plan
    that was made before.
    """
    found = {}
    for path in results_dir().glob(f"{_name(config, device)}-*.json"):
        with suppress(ConfigError):  # those of other settings
            found[path] = read_costs(path, config).created
    return max(found, key=found.__getitem__, default=None)


def _name(config: RunConfig, device: torch.device) -> str:
    words = [config.task, config.data, config.model_name, device.type]
    return f"{TIMING_PREFIX}plan-{file_stem(words)}"


def save_costs(costs: Costs, path: Path) -> None:
    """Write the costs, whole or not at all."""
    write_text(path, json.dumps(costs.to_dict(), indent=1, allow_nan=False) + "\n")


def read_costs(path: Path, config: RunConfig, *, remedy: str = "delete it, or measure again with --fresh") -> Costs:
    """Read costs and check that they are ``config``'s; ``remedy`` is what to do where the file holds none.

    Raises:
        RecordError: the file is missing or damaged.
        ConfigError: it was made for other settings.
    """
    try:
        costs = Costs.from_dict(json.loads(path.read_text(encoding="utf-8")))
        wanted, found = json.loads(json.dumps(depends_on(config))), costs.depends_on
        different = [name for name in DEPENDS_ON if wanted.get(name) != found.get(name)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecordError(f"{path} holds no readable costs ({error}); {remedy}") from error
    if different:
        name = different[0]
        was, is_now = (values.get(name, getattr(RunConfig, name, None)) for values in (found, wanted))
        raise ConfigError(f"{path} was measured with {name} {was!r}, not {is_now!r}; measure again")
    return costs
