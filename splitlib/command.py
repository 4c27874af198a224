"""From a config to the command line that means it, and to the flat parameters that a notebook or papermill takes.

Both are the same names and values: ``parameters`` has them, ``command_line`` writes them as options, and
:func:`from_parameters` reads them back. The command line's own parser gives the same config, bit for bit.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from splitlib.config import RunConfig
from splitlib.errors import ConfigError
from splitlib.pipeline.remote.link import Link
from splitlib.pipeline.remote.network import DEFAULT_PORT
from splitlib.profiles import PROFILES, document_settings, get_profile

Parameters = dict[str, int | float | str]
DEFAULT_SERVER = f"127.0.0.1:{DEFAULT_PORT}"
OPTION_PREFIXES: Mapping[str, str] = {
    "insert_options": "insert_",
    "compressor_options": "",
    "gradient_options": "gradient_",
}
"""What an option's name gets in front, on the command line and as a parameter, by the field of the config it is in."""


def option(name: str) -> str:
    """Return how the command line writes a setting.

    >>> option("level_bits")
    '--level-bits'
    """
    return "--" + name.replace("_", "-")


def command_line(config: RunConfig, *, server: str = DEFAULT_SERVER, link: Link | None = None) -> str:
    """Return the shortest command that trains ``config``, ready to paste into a shell.

    Args:
        config: what to run. One of engine ``two_machines`` becomes ``client``, any other ``run``.
        server: of two machines; by default where ``python -m splitlib server`` listens.
        link: of two machines, where it is shaped.

    >>> config = get_profile("quick").scale(document_settings("cola"))
    >>> command_line(config.replace(compressor="uniform", compressor_options={"bits": 4}))
    'python -m splitlib run --task cola --compressor uniform --bits 4'

    Raises:
        ConfigError: no parameters mean this config, or a link is given that nothing would be sent over.
    """
    values = parameters(config)
    words = ["run"]
    if config.engine == "two_machines":
        del values["engine"]
        words = ["client", "--server", server, *(link_arguments(link) if link else ())]
    elif link is not None and link.shaped:
        raise ConfigError(f"engine {config.engine!r} sends nothing over a link; use two_machines")
    if values["profile"] == "quick":
        del values["profile"]
    words += [word for name, value in values.items() for word in (option(name), str(value))]
    return shlex.join(["python", "-m", "splitlib", *words])


def link_arguments(link: Link) -> list[str]:
    """Return the options that shape a link.

    >>> link_arguments(Link(rate_mbit=50, latency_ms=10))
    ['--link', '50Mbit', '--latency', '10ms']
    """
    rate = ["--link", f"{_plain(link.rate_mbit)}Mbit"] if link.rate_mbit else []
    return rate + (["--latency", f"{_plain(link.latency_ms)}ms"] if link.latency_ms else [])


def _plain(number: float) -> str:
    """Return every digit of a number, without an exponent."""
    text = format(Decimal(repr(number)), "f")
    return text.removesuffix(".0")


def parameters(config: RunConfig) -> Parameters:
    """Return the fewest flat values that mean ``config``: a profile, the task, and what differs from its settings.

    An option of a compressor is a value of its own, named as on the command line: ``bits``, ``gradient_bits``.

    >>> config = get_profile("smoke").scale(document_settings("rte"))
    >>> parameters(config.replace(compressor="sort", compressor_options={"level_bits": 6}))
    {'profile': 'smoke', 'task': 'rte', 'compressor': 'sort', 'level_bits': 6}

    Raises:
        ConfigError: no parameters mean this config, which no config that can be run has been seen to do.
    """
    found = [values for name in PROFILES if (values := _from_profile(config, name)) is not None]
    if not found:
        raise ConfigError(f"no command line means the config {config.key}: one of its options has no name there")
    return min(found, key=len)  # of equals the first, quick before real


def from_parameters(values: Mapping[str, int | float | str]) -> RunConfig:
    """Return the config that :func:`parameters` means; also without a profile (quick) or task (cola).

    Raises:
        ConfigError: a name is unknown, or a value is impossible.
    """
    given = dict(values)
    profile, task = str(given.pop("profile", "quick")), str(given.pop("task", "cola"))
    return get_profile(profile).scale(document_settings(task), **_unflattened(given))


def _from_profile(config: RunConfig, profile: str) -> Parameters | None:
    """Return the values that mean ``config`` with ``profile``, or None where there are none."""
    wanted, chosen = config.to_dict(), get_profile(profile)
    document = document_settings(config.task)
    base = chosen.scale(document).to_dict()
    given = {name: value for name, value in wanted.items() if value != base[name]}
    for _ in wanted:
        try:
            made = chosen.scale(document, **given)
        except ConfigError:  # the profile's value beside one given does not fit: give what is not yet
            made = None
        missing = {n: v for n, v in wanted.items() if n not in given and (made is None or made.to_dict()[n] != v)}
        if not missing:
            break
        given |= missing
    given.pop("task", None)
    if made is None or made != config or any(value is None or value == {} for value in given.values()):
        return None  # "all samples" or "no options" where the profile has some cannot be given
    flat = {"profile": profile, "task": config.task, **_flattened(given)}
    return flat if from_parameters(flat).key == config.key else None


def _flattened(given: Mapping[str, Any]) -> Parameters:
    flat: Parameters = {}
    for name, value in given.items():
        if name in OPTION_PREFIXES:
            flat |= {OPTION_PREFIXES[name] + own: each for own, each in value.items()}
        else:
            flat[name] = value
    return flat


def _unflattened(given: Mapping[str, Any]) -> dict[str, Any]:
    fields = set(RunConfig.__dataclass_fields__)
    settings: dict[str, Any] = {name: value for name, value in given.items() if name in fields}
    for name, value in given.items():
        if name not in fields:
            field, prefix = next((f, p) for f, p in _BY_PREFIX if name.startswith(p))
            settings.setdefault(field, {})[name.removeprefix(prefix)] = value
    return settings


_BY_PREFIX = sorted(OPTION_PREFIXES.items(), key=lambda item: -len(item[1]))  # the empty prefix fits every name
