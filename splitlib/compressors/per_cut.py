"""Options that differ between the cuts: ``"3,7"`` is rank 3 at the first and rank 7 at the second (000 §2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from splitlib.compressors.base import Compressor
from splitlib.compressors.registry import make_compressor
from splitlib.errors import ConfigError

CUTS = 2  # client head | server body | client tail


def make_compressors(name: str, options: Mapping[str, Any], cuts: int = CUTS) -> list[Compressor]:
    """Return a compressor for each cut; an option of any codec may hold one value for each, separated by commas.

    >>> make_compressors("power_iteration", {"rank": "3,7"})
    [PowerIteration(rank=3, iterations=1), PowerIteration(rank=7, iterations=1)]

    Raises:
        ConfigError: as :func:`make_compressor`, or an option has more or fewer values than there are cuts.
    """
    values = {option: _each(option, value, cuts) for option, value in options.items()}
    return [make_compressor(name, **{option: each[cut] for option, each in values.items()}) for cut in range(cuts)]


def _each(option: str, value: Any, cuts: int) -> list[Any]:
    if not isinstance(value, str) or "," not in value:
        return [value] * cuts
    parts = [_number(part.strip()) for part in value.split(",")]
    if len(parts) != cuts:
        raise ConfigError(f"{option} {value!r} has {len(parts)} values; give one, or one for each of the {cuts} cuts")
    return parts


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
