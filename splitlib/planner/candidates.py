"""What a plan chooses from: pairs of cuts, compressors, numbers of micro-batches; and how each is written.

A compressor is written ``name:option=value,...``, with ``+`` and another one where gradients get their own:
``uniform:bits=4+uniform:bits=8``. A slash separates the values of the two cuts: ``power_iteration:rank=3/7``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from splitlib.compressors import COMPRESSORS, Compressor, compressor_options, make_compressor, make_compressors
from splitlib.config import PARTITIONS, RunConfig
from splitlib.errors import ConfigError
from splitlib.planner.costs import Costs

Pair = tuple[int, int]
DEFAULT_COMPRESSORS = (
    "none",
    "cast",
    "uniform:bits=8",
    "uniform:bits=8,zstd=1",
    "uniform:bits=4",
    "uniform:bits=4+uniform:bits=8",
    "sort:bin_bits=2,level_bits=6",
    "power_iteration:rank=3/7",  # 000 §2.2
)
DEFAULT_CHUNKS = (1, 2, 4, 8)
ALL, NAMED = "all", "named"


# --- Compressors -----------------------------------------------------------------------------------------------------


def parse_compressor(text: str) -> dict[str, Any]:
    """Return the settings of a config that ``text`` means.

    >>> parse_compressor("power_iteration:rank=3/7+cast")["compressor_options"]
    {'rank': '3,7'}

    Raises:
        ConfigError: this is not how a compressor is written, or a name or option is unknown.
    """
    parts = text.strip().split("+")
    if len(parts) > 2:
        raise ConfigError(f"compressor {text!r} has {len(parts)} parts; write one, or activations' + gradients'")
    (name, options), *gradients = [_parse_one(part, text) for part in parts]
    gradient_name, gradient_options = gradients[0] if gradients else ("same", {})
    return {
        "compressor": name,
        "compressor_options": options,
        "gradient_compressor": gradient_name,
        "gradient_options": gradient_options,
    }


def _parse_one(part: str, text: str) -> tuple[str, dict[str, Any]]:
    name, _, rest = part.strip().partition(":")
    options = {}
    for setting in filter(None, rest.split(",")):
        option, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"compressor {text!r} is not written name:option=value,..., such as uniform:bits=4")
        options[option.strip()] = _value(option.strip(), value.strip().replace("/", ","))
    make_compressors(name, options)  # an unknown name or option is told here, before anything is measured
    return name, options


def _value(option: str, text: str) -> Any:
    defaults = compressor_options().get(option, {"": ""}).values()
    kind = type(next(iter(defaults)))
    try:
        return text if "," in text else kind(text)
    except ValueError:
        raise ConfigError(f"{option} must be {kind.__name__}, not {text!r}") from None


def compressor_text(config: RunConfig) -> str:
    """Return how the compressors of ``config`` are written; :func:`parse_compressor` reads it back."""
    text = _text(config.compressor, config.compressor_options)
    if config.gradient_compressor == "same":
        return text
    return f"{text}+{_text(config.gradient_compressor, config.gradient_options)}"


def _text(name: str, options: Mapping[str, Any]) -> str:
    words = ",".join(f"{option}={value}".replace(",", "/") for option, value in sorted(options.items()))
    return f"{name}:{words}" if words else name


def at_cuts(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """Return how a compressor is written at the first cut and at the second, without slashes.

    >>> at_cuts("power_iteration", {"rank": "3,7"})
    ('power_iteration:rank=3', 'power_iteration:rank=7')
    """
    first, second = ({}, {}) if not options else zip(*(_each(o, v) for o, v in options.items()), strict=True)
    return _text(name, dict(first)), _text(name, dict(second))


def _each(option: str, value: Any) -> tuple[tuple[str, Any], tuple[str, Any]]:
    first, second = (
        (part.strip() for part in value.split(",")) if isinstance(value, str) and "," in value else [value] * 2
    )
    return (option, first), (option, second)


def codec(spec: str) -> Compressor:
    """Return the compressor that one of :func:`at_cuts` names."""
    name, options = _parse_one(spec, spec)
    return make_compressor(name, **options)


@dataclass(frozen=True, kw_only=True)
class Compressors:
    """What encodes at the cuts of one choice."""

    text: str
    activations: tuple[str, str]
    """At the first cut and at the second, as :func:`at_cuts` writes them."""
    gradients: tuple[str, str]

    @classmethod
    def of(cls, config: RunConfig) -> Compressors:
        """Return those of ``config``."""
        return cls(
            text=compressor_text(config),
            activations=at_cuts(config.compressor, config.compressor_options),
            gradients=at_cuts(*config.effective_gradient_compressor),
        )


def chosen_compressors(config: RunConfig, given: Sequence[str] | None) -> list[Compressors]:
    """Return the compressors ``given``, else the usual ones and the config's own; each once.

    Raises:
        ConfigError: a compressor cannot be read, or there is none.
    """
    own = [] if config.compressor == "none" else [compressor_text(config)]
    texts = [*DEFAULT_COMPRESSORS, *own] if given is None else list(given)
    if not texts:
        raise ConfigError(f"no compressors to choose from; give some of {', '.join(COMPRESSORS)}")
    return list(dict.fromkeys(Compressors.of(config.replace(**parse_compressor(text))) for text in texts))


# --- Cuts ------------------------------------------------------------------------------------------------------------


def named_partitions(kind: str) -> tuple[str, ...]:
    """Return the partitions that only cut; those that insert layers are for training, the planner leaves them out."""
    return tuple(name for name in PARTITIONS[kind] if name != "none" and not name.startswith("conv_insert"))


def chosen_pairs(costs: Costs, given: str | Sequence[str | Pair]) -> dict[Pair, str]:
    """Return the pairs of cuts to compare, each with the name of its partition (``custom`` if it has none).

    Args:
        costs: of the model.
        given: ``all`` pairs, the ``named`` partitions, or some: a partition's name, ``"3,10"`` or ``(3, 10)``.

    Raises:
        ConfigError: a name is unknown, or the model has no such cut.
    """
    names: dict[Pair, str] = {}
    for name, pair in costs.named_cuts.items():
        names.setdefault(pair, name)  # two names for one pair: the first stands
    count = len(costs.layers)
    if given == ALL:
        wanted: list[Pair] = list(combinations(range(1, count), 2))
    elif given == NAMED:
        wanted = list(names)
    else:
        wanted = [_pair(each, costs) for each in ([given] if isinstance(given, str) else given)]
    if not wanted:
        raise ConfigError(f"no cuts to choose from; give {ALL}, {NAMED}, or pairs such as 3,10")
    return {pair: names.get(pair, "custom") for pair in dict.fromkeys(wanted)}


def _pair(given: str | Pair, costs: Costs) -> Pair:
    count = len(costs.layers)
    if isinstance(given, str) and not re.fullmatch(r"\d+,\d+", given):
        if given not in costs.named_cuts:
            known = ", ".join((ALL, NAMED, *costs.named_cuts))
            raise ConfigError(f"unknown cuts {given!r}; choose from {known}, or give a pair such as 3,10")
        return costs.named_cuts[given]
    first, second = map(int, given.split(",")) if isinstance(given, str) else given
    if not 1 <= first < second < count:
        raise ConfigError(
            f"cuts {first},{second} leave a part without layers; with {count} of them, 0 < first < second < {count}"
        )
    return first, second


# --- Micro-batches ---------------------------------------------------------------------------------------------------


def chosen_chunks(config: RunConfig, given: Sequence[int] | None) -> dict[int, int]:
    """Return the sizes of a micro-batch by number of micro-batches: those ``given``, else the usual and the config's.

    Torch cuts 10 samples into 4 of 3, 3, 3 and 1, and into no more than 5 where 8 are wanted; and batch norm refuses a
    single small image. Such a number is left out where it was not asked for.

    Raises:
        ConfigError: the batch cannot be cut into so many, or no config has them.
    """
    sizes = {}
    for chunks in given if given is not None else sorted({*DEFAULT_CHUNKS, config.chunks}):
        try:
            sizes[chunks] = _micro_batch(config, chunks)
        except ConfigError:
            if given is not None:
                raise
    if not sizes:
        raise ConfigError("no numbers of micro-batches to choose from; give some, such as 1 4 8")
    return sizes


def _micro_batch(config: RunConfig, chunks: int) -> int:
    """Return how many samples each of ``chunks`` micro-batches has; ConfigError if there cannot be so many."""
    batch = config.batch_size
    if not 1 <= chunks <= batch or math.ceil(batch / math.ceil(batch / chunks)) != chunks:
        raise ConfigError(f"a batch of {batch} cannot be cut into {chunks} micro-batches of one size, the last smaller")
    config.replace(chunks=chunks)  # refused where such a run would be
    return math.ceil(batch / chunks)
