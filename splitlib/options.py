"""Things chosen by name and options: each is a dataclass whose fields, with their defaults, are its options."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from splitlib.errors import ConfigError

T = TypeVar("T")


def described(default: Any, help: str, choices: Iterable[str] = ()) -> Any:
    """Return a dataclass field that is an option: its default, what the command line says of it, and what it may be.

    With ``choices`` it may be one of them alone, which :func:`check_choices` sees to; the command line names them
    behind ``help``. A whole number will do for an option whose default is a float:

    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Largest:
    ...     share: float = described(0.1, "share of the values that are sent, from 0.0001 to 1")
    >>> build("compressor", {"largest": Largest}, "largest", {"share": 1})
    Largest(share=1.0)
    """
    choices = tuple(choices)
    listed = f": {', '.join(choices)}" if choices else ""
    return dataclasses.field(default=default, metadata={"help": help + listed, "choices": choices})


def build(kind: str, classes: Mapping[str, type[T]], name: str, options: Mapping[str, Any]) -> T:
    """Return the ``kind`` called ``name`` with its options.

    Raises:
        ConfigError: the name or an option is unknown, or an option has the wrong type or an impossible value.
    """
    if name not in classes:
        raise ConfigError(f"unknown {kind} {name!r}; choose from {', '.join(classes)}")
    known = parameters(classes[name])
    for option, value in options.items():
        if option not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes no parameters"
            raise ConfigError(f"{kind} {name!r} has no parameter {option!r}; {takes}")
        if type(fitting(value, known[option])) is not type(known[option]):
            raise ConfigError(f"{name}: {option} must be {type(known[option]).__name__}, not {value!r}")
    return classes[name](**{option: fitting(value, known[option]) for option, value in options.items()})


def fitting(value: Any, default: Any) -> Any:
    """Return an option's value; a whole number as a float where its default is one.

    >>> fitting(1, 0.5), fitting(1, 8), fitting(True, 0.5)
    (1.0, 1, True)
    """
    whole = type(default) is float and type(value) is int and abs(value) <= sys.float_info.max
    return float(value) if whole else value


def check_choices(chosen: Any) -> None:
    """Refuse an instance of which an option is none of its choices; for ``__post_init__``.

    Raises:
        ConfigError: one is.
    """
    for option, choices in option_choices({"": type(chosen)}).items():
        if (value := getattr(chosen, option)) not in choices:
            raise ConfigError(f"{option} must be one of {', '.join(choices)}, not {value!r}")


def all_options(classes: Mapping[str, type]) -> dict[str, dict[str, Any]]:
    """Return every option of any of the classes, with the default each class gives it."""
    options: dict[str, dict[str, Any]] = {}
    for name, cls in classes.items():
        for option, default in parameters(cls).items():
            options.setdefault(option, {})[name] = default
    return options


def option_help(classes: Mapping[str, type]) -> dict[str, str]:
    """Return what each option of any of the classes means."""
    return {f.name: f.metadata.get("help", "") for cls in classes.values() for f in dataclasses.fields(cls) if f.init}


def option_choices(classes: Mapping[str, type]) -> dict[str, tuple[str, ...]]:
    """Return what each option of any of the classes may be, where that is a fixed set."""
    every = (f for cls in classes.values() for f in dataclasses.fields(cls))
    return {f.name: f.metadata["choices"] for f in every if f.metadata.get("choices")}


def parameters(cls: type) -> dict[str, Any]:
    """Return the options of one class with their defaults; fields that its constructor does not take are state."""
    return {f.name: f.default for f in dataclasses.fields(cls) if f.init}
