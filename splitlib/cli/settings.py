"""Settings on the command line: every field of a config as an option, and a config from what was given."""

from __future__ import annotations

import argparse
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from splitlib.command import OPTION_PREFIXES, option
from splitlib.compressors import COMPRESSORS
from splitlib.config import RunConfig, setting_fields
from splitlib.errors import ConfigError
from splitlib.models.inserted import INSERTS
from splitlib.options import all_options, option_help
from splitlib.profiles import PROFILES, document_settings, get_profile

DEFAULT_TASK, DEFAULT_PROFILE = "cola", "quick"
DEFAULTS = f"""\
Each starts from the document's value for the task, shrunk by the profile. The defaults shown are those of
--task {DEFAULT_TASK} --profile {DEFAULT_PROFILE}; with others they differ."""


def add_profile(parser: argparse.ArgumentParser, default: str = DEFAULT_PROFILE, among: Collection[str] = ()) -> None:
    """Add what the settings start from, any profile or some."""
    offered = {name: profile.summary for name, profile in PROFILES.items() if name in (among or PROFILES)}
    text = "; ".join(f"{name}: {summary}" for name, summary in offered.items())
    parser.add_argument("--profile", default=default, choices=offered, help=f"{text} (default {default})")


def add_hub(group: Any) -> None:
    """Add where real data and weights come from."""
    where = "a local mirror of the hub (default: $SPLITLIB_HUB, else the hub)"
    group.add_argument("--hub", type=Path, metavar="PATH", help=where)


def add_link(group: Any) -> None:
    """Add the link between client and server."""
    rate, latency = "such as 50Mbit or 1Gbit (default: as fast as it goes)", "one way, such as 10ms (default: none)"
    group.add_argument("--link", default="", metavar="RATE", help=rate)
    group.add_argument("--latency", default="", metavar="TIME", help=latency)


def usual_settings(**changes: Any) -> dict[str, Any]:
    """Return the fields of the config that a command line without settings means, but for ``changes``."""
    return get_profile(DEFAULT_PROFILE).scale(document_settings(DEFAULT_TASK), **changes).to_dict()


def add_settings(
    parser: argparse.ArgumentParser,
    title: str,
    *,
    without: Collection[str] = (),
    usual: Mapping[str, Any] | None = None,
) -> None:
    """Add every field of the config but some; ``without`` also takes names of the fields that hold options.

    The help names the values that are ``usual`` as defaults.
    """
    usual = usual or {}
    settings = parser.add_argument_group(title, DEFAULTS if usual else None)
    hints = typing.get_type_hints(RunConfig)
    for f in setting_fields():
        if typing.get_origin(hints[f.name]) is not Mapping and f.name not in without:
            _add_setting(settings, f.name, _scalar_type(hints[f.name]), **f.metadata, default=usual.get(f.name))
    codecs = "parameters of the compressors (3,7 means 3 at the first cut, 7 at the second)"
    _add_options(parser, "parameters of the inserted layers", without, INSERTS, {"insert_options": ""})
    helps = {"compressor_options": "activations (and gradients): ", "gradient_options": "gradients alone: "}
    _add_options(parser, codecs, without, COMPRESSORS, helps)


def _add_options(
    parser: argparse.ArgumentParser,
    title: str,
    without: Collection[str],
    classes: Mapping[str, type],
    helps: Mapping[str, str],
) -> None:
    """Add every option of ``classes``, for each mapping of the config that ``helps`` names."""
    fields = {field: help for field, help in helps.items() if field not in without}
    group, meanings = parser.add_argument_group(title) if fields else None, option_help(classes)
    for field, help in fields.items():
        for name, defaults in all_options(classes).items():
            known = ", ".join(f"{owner} (default {default})" for owner, default in defaults.items())
            kind, flag = type(next(iter(defaults.values()))), OPTION_PREFIXES[field] + name
            _add_setting(group, flag, _per_cut(kind), f"{help}{meanings[name]}; of {known}", dest=f"{field}:{name}")


def _per_cut(kind: type) -> Callable[[str], Any]:
    """Return a reader of one value of ``kind``, or of one for each cut: how many is checked where compressors are made.

    A server compares them with a client's as they are written, so both must write ``0.5,1`` as ``0.5,1.0``.
    """

    def read(text: str) -> Any:
        return ",".join(str(kind(part.strip())) for part in text.split(",")) if "," in text else kind(text)

    read.__name__ = kind.__name__  # what argparse calls it
    return read


def _add_setting(
    group: Any,
    name: str,
    kind: Callable[[str], Any],
    help: str,
    choices: Sequence[str] = (),
    default: int | float | str | None = None,
    dest: str | None = None,
) -> None:
    text = help + (f": {', '.join(choices)}" if choices else "")
    if default not in (None, "") and "(default" not in help:  # which some say themselves, for want of a value
        text += f" (default {default})"
    flag, metavar = option(name), kind.__name__.upper()
    group.add_argument(
        flag, dest=dest or f"setting:{name}", type=kind, choices=choices or None, help=text, metavar=metavar
    )


def _scalar_type(hint: Any) -> type:
    """Return ``int`` for ``int | None``, and so on."""
    return next((t for t in typing.get_args(hint) if t is not type(None)), hint)


def config_from_options(options: argparse.Namespace) -> RunConfig:
    """Return the config a parsed ``run``, ``client`` or ``pair`` command line means; the last two are two machines."""
    settings = given_settings(options)
    if options.command.two_machines and settings.setdefault("engine", "two_machines") != "two_machines":
        raise ConfigError(f"client and pair are two machines: leave out --engine {settings['engine']}, or use 'run'")
    document = document_settings(settings.pop("task", DEFAULT_TASK))
    return get_profile(options.profile).scale(document, **settings)


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of a config that a parsed command line names."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    settings = {name.removeprefix("setting:"): v for name, v in given.items() if name.startswith("setting:")}
    for field in OPTION_PREFIXES:
        prefix = f"{field}:"
        values = {name.removeprefix(prefix): v for name, v in given.items() if name.startswith(prefix)}
        if values:
            settings[field] = values
    return settings
