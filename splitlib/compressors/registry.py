"""Compressors by name: the configs, the command line and the widgets build them all here."""

from __future__ import annotations

from typing import Any

from splitlib.compressors.base import Compressor
from splitlib.compressors.cast import Cast, Identity
from splitlib.compressors.deadzone import DeadZone
from splitlib.compressors.lowrank import PowerIteration
from splitlib.compressors.sort import FastQuantization, SortQuantization
from splitlib.compressors.topk import TopK
from splitlib.compressors.uniform import UniformQuantization
from splitlib.options import all_options, build

COMPRESSORS: dict[str, type[Compressor]] = {
    "none": Identity,
    "cast": Cast,
    "uniform": UniformQuantization,
    "sort": SortQuantization,
    "power_iteration": PowerIteration,
    "fast": FastQuantization,
    "deadzone": DeadZone,
    "topk": TopK,
}


def make_compressor(name: str, **options: Any) -> Compressor:
    """Return the compressor ``name`` with its parameters.

    >>> make_compressor("uniform", bits=4)
    UniformQuantization(zstd=0, codes='packed', bits=4, block=0)

    Raises:
        ConfigError: the name or a parameter is unknown, or a parameter has the wrong type or an impossible value.
    """
    return build("compressor", COMPRESSORS, name, options)


def compressor_options() -> dict[str, dict[str, Any]]:
    """Return every parameter of any compressor, with the default each compressor gives it.

    >>> compressor_options()["bits"]
    {'uniform': 8}
    """
    return all_options(COMPRESSORS)
