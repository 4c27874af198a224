"""Compressors by name: the configs, the command line and the widgets build them all here."""

from __future__ import annotations

import dataclasses
from typing import Any

from splitlib.compressors.base import Compressor
from splitlib.compressors.cast import Cast, Identity
from splitlib.compressors.lowrank import PowerIteration
from splitlib.compressors.sort import FastQuantization, SortQuantization
from splitlib.compressors.uniform import UniformQuantization
from splitlib.errors import ConfigError

COMPRESSORS: dict[str, type[Compressor]] = {
    "none": Identity,
    "cast": Cast,
    "uniform": UniformQuantization,
    "sort": SortQuantization,
    "power_iteration": PowerIteration,
    "fast": FastQuantization,
}


def make_compressor(name: str, **options: Any) -> Compressor:
    """Return the compressor ``name`` with its parameters.

    >>> make_compressor("uniform", bits=4)
    UniformQuantization(zstd=0, bits=4, block=0)

    Raises:
        ConfigError: the name or a parameter is unknown, or a parameter has the wrong type or an impossible value.
    """
    if name not in COMPRESSORS:
        raise ConfigError(f"unknown compressor {name!r}; choose from {', '.join(COMPRESSORS)}")
    known = _parameters(COMPRESSORS[name])
    for option, value in options.items():
        if option not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes no parameters"
            raise ConfigError(f"compressor {name!r} has no parameter {option!r}; {takes}")
        if type(value) is not type(known[option]):
            raise ConfigError(f"{name}: {option} must be {type(known[option]).__name__}, not {value!r}")
    return COMPRESSORS[name](**options)


def compressor_options() -> dict[str, dict[str, Any]]:
    """Return every parameter of any compressor, with the default each compressor gives it.

    >>> compressor_options()["bits"]
    {'uniform': 8}
    """
    options: dict[str, dict[str, Any]] = {}
    for name, cls in COMPRESSORS.items():
        for option, default in _parameters(cls).items():
            options.setdefault(option, {})[name] = default
    return options


def _parameters(cls: type[Compressor]) -> dict[str, Any]:
    return {f.name: f.default for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
