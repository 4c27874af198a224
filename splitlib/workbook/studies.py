"""The study notebooks as ``run_all.py`` sees them: number, title, question and parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from papermill import inspect_notebook

from splitlib.errors import ConfigError

STANDARD_PARAMETERS = {"profile": "str", "data": "str", "hub": "str", "fresh": "bool"}
"""What every notebook's parameters cell starts with; ``run_all.py`` has an option for each."""
COUNTS = ("seeds", "samples")
"""Parameters that count something; 0 takes the profile's number."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One line of a parameters cell, ``name: type = default  # help``."""

    name: str
    type: str
    default: str
    help: str

    def parse(self, text: str) -> bool | int | float | str:
        """Return ``text`` as this parameter's type; ConfigError if it is none.

        >>> Parameter(name="epochs", type="int", default="2", help="").parse("5")
        5
        """
        if self.type not in _PARSERS:
            raise ConfigError(f"parameter {self.name!r} is of type {self.type}: set it in the notebook")
        try:
            return _PARSERS[self.type](text)
        except ValueError:
            raise ConfigError(
                f"parameter {self.name!r} is of type {self.type} (default {self.default}), not {text!r}"
            ) from None


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


_PARSERS: Mapping[str, Callable[[str], bool | int | float | str]] = {
    "bool": _parse_bool,
    "int": int,
    "float": float,
    "str": str,
}


@dataclass(frozen=True, kw_only=True)
class StudyNotebook:
    """One notebook, before it runs."""

    path: Path
    title: str
    question: str
    parameters: Mapping[str, Parameter]

    @property
    def name(self) -> str:
        """The file's name without its ending, such as ``01_cola``."""
        return self.path.stem

    @property
    def number(self) -> str:
        """The two digits the name starts with."""
        return self.name[:2]

    @property
    def own_parameters(self) -> tuple[Parameter, ...]:
        """The parameters no other option of ``run_all.py`` sets."""
        return tuple(p for p in self.parameters.values() if p.name not in STANDARD_PARAMETERS)


def read_studies(folder: Path) -> tuple[StudyNotebook, ...]:
    """Read every ``NN_name.ipynb`` of ``folder``, in order; ConfigError if there is none or one is no study."""
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise ConfigError(f"no notebooks named NN_name.ipynb in {folder}")
    return tuple(_read_study(path) for path in paths)


def _read_study(path: Path) -> StudyNotebook:
    try:
        cells = nbformat.read(path, as_version=4).cells
        found = inspect_notebook(path)
    except Exception as error:  # damaged JSON, a missing key or a missing kernel name: each library has its own
        raise ConfigError(f"cannot read the notebook {path}: {error}") from error
    parameters = {
        name: Parameter(name=name, type=p["inferred_type_name"], default=p["default"], help=p["help"])
        for name, p in found.items()
    }
    wrong = [n for n, kind in STANDARD_PARAMETERS.items() if n not in parameters or parameters[n].type != kind]
    if wrong:
        raise ConfigError(f"the parameters cell of {path} needs {wrong[0]}: {STANDARD_PARAMETERS[wrong[0]]}")
    title, question = _title_and_question(cells)
    return StudyNotebook(path=path, title=title, question=question, parameters=parameters)


def _title_and_question(cells: Sequence[Any]) -> tuple[str, str]:
    """The first heading without its number, and the first paragraph after it up to its question mark."""
    text = next((cell.source for cell in cells if cell.cell_type == "markdown"), "")
    heading, _, rest = text.strip().partition("\n")
    paragraph = re.sub(r"[*_`]", "", " ".join(rest.strip().split("\n\n")[0].split()))
    question, mark, _ = re.sub(r"^Question[.:] ", "", paragraph).partition("?")
    return re.sub(r"^#* *(\d\d )?", "", heading).strip(), question + mark


def select(studies: Sequence[StudyNotebook], asked: Sequence[str] | None) -> tuple[StudyNotebook, ...]:
    """Return the studies of these numbers or names, in the workbook's order; all of them for ``None``.

    What is asked for may be separated by commas, too.
    """
    if asked is None:
        return tuple(studies)
    words = ",".join(asked).replace(",", " ").split()
    wanted = {word.zfill(2) if word.isdigit() else word for word in words}
    unknown = sorted(wanted - {name for study in studies for name in (study.number, study.name)})
    if unknown or not wanted:
        known = ", ".join(study.number for study in studies)
        raise ConfigError(f"there is no notebook {', '.join(unknown) or repr('')}; choose from {known}")
    return tuple(study for study in studies if wanted & {study.number, study.name})


def assign(studies: Sequence[StudyNotebook], settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give each ``name=value`` to the studies that have such a parameter, as that parameter's type.

    Returns the values by study name. A name that no study has, one that has an option of its own, one given twice and
    a value of the wrong type or below 0 where it counts something raise ConfigError.
    """
    values: dict[str, dict[str, Any]] = {study.name: {} for study in studies}
    seen = set()
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--param takes name=value, not {setting!r}")
        if name in STANDARD_PARAMETERS:
            raise ConfigError(f"parameter {name!r} has an option of its own: --{name}")
        if name in seen:
            raise ConfigError(f"--param {name} is given twice")
        seen.add(name)
        takers = [study for study in studies if name in study.parameters]
        if not takers:
            raise ConfigError(f"no selected notebook has a parameter {name!r}; {_known_parameters(studies)}")
        for study in takers:
            values[study.name][name] = value = study.parameters[name].parse(text)
            if name in COUNTS and isinstance(value, int) and value < 0:
                raise ConfigError(f"parameter {name!r} must be at least 0, not {value}")
    return values


def _known_parameters(studies: Sequence[StudyNotebook]) -> str:
    """For example ``01_cola has epochs, seeds; 08_flops has none``."""
    lists = ((study.name, ", ".join(p.name for p in study.own_parameters)) for study in studies)
    return "; ".join(f"{name} has {own or 'none'}" for name, own in lists)
