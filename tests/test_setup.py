"""pyproject.toml, constraints.txt and environment.yml agree, and say the truth about what the code imports."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
# What the workbook is built on.
WITH_TORCH = {"triton"}  # builds of torch for CUDA bring it along; without it its module is not used
MODELS = ("torch", "torchvision", "transformers", "datasets", "torchgpipe")
NOTEBOOKS = ("jupyterlab", "ipywidgets", "matplotlib", "papermill")


def by_name(lines: list[str]) -> dict[str, Requirement]:
    """Return requirements by canonical name; a name given twice is an error."""
    requirements = [Requirement(line) for line in lines]
    named = {canonicalize_name(requirement.name): requirement for requirement in requirements}
    assert len(named) == len(requirements)
    return named


def project() -> dict[str, list[str]]:
    """Return the dependencies of pyproject.toml, ``runtime`` and ``dev``."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"runtime": table["dependencies"], "dev": table["optional-dependencies"]["dev"]}


def lower_bounds() -> dict[str, Requirement]:
    return by_name([line for lines in project().values() for line in lines])


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return by_name([line for line in lines if line and not line.startswith("#")])


def environment() -> dict[str, Requirement]:
    """Return the packages of environment.yml's pip section, without pip's own options."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (section,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    return by_name([line for line in section if not line.startswith("-")])


def pin(requirement: Requirement) -> str:
    """Return the one version a requirement allows."""
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", f"{requirement} is not an exact version"
    return specifier.version


def test_core_packages_are_runtime_dependencies() -> None:
    assert {*MODELS, *NOTEBOOKS} <= by_name(project()["runtime"]).keys()


def test_environment_lists_the_packages_of_pyproject() -> None:
    assert environment().keys() == lower_bounds().keys()


def test_environment_pins_what_constraints_pin() -> None:
    pins = constraints()
    assert {name: pin(r) for name, r in environment().items()} == {name: pin(pins[name]) for name in environment()}


@pytest.mark.parametrize("name", lower_bounds())
def test_lower_bound_allows_the_pin(name: str) -> None:
    bound = lower_bounds()[name]
    assert [specifier.operator for specifier in bound.specifier] == [">="]
    assert pin(constraints()[name]) in bound.specifier


def test_every_constraint_is_an_exact_version() -> None:
    assert all(pin(requirement) for requirement in constraints().values())


def test_environment_gives_a_reason_for_every_line() -> None:
    text = (ROOT / "environment.yml").read_text()
    entries = [line for line in text.split("dependencies:", 1)[1].splitlines() if re.match(r" +- (?!pip:)", line)]
    assert len(entries) >= len(environment())
    assert not [line for line in entries if not re.search(r"  # .{5,}", line)]


def needed_by(roots: list[Requirement]) -> Iterator[str]:
    """Yield the canonical names of everything these requirements install on this machine, themselves included."""
    seen = set()
    while roots:
        requirement = roots.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        yield key[0]
        for line in importlib.metadata.requires(requirement.name) or []:
            child = Requirement(line)
            extras = requirement.extras or {""}
            if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in extras):
                roots.append(child)


def test_constraints_pin_everything_that_gets_installed_and_nothing_else() -> None:
    everywhere = {name for name, r in constraints().items() if r.marker is None or r.marker.evaluate()}
    needed = set(needed_by(list(lower_bounds().values())))
    assert needed <= everywhere
    if sys.platform == "linux":  # where the constraints were made
        assert everywhere <= needed


def test_constraints_of_other_platforms_install_nothing(tmp_path: Path) -> None:
    """As the CUDA lines on macOS: a constraint on a package that does not exist is never looked for."""
    constraint = tmp_path / "constraints.txt"
    constraint.write_text("no-such-package-for-this-machine==1.0\n")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-index", "-c", str(constraint), "pip"]
    subprocess.run(pip, check=True, capture_output=True)


def test_torchvision_pin_goes_with_the_torch_pin() -> None:
    (wanted,) = [r for r in map(Requirement, importlib.metadata.requires("torchvision") or []) if r.name == "torch"]
    assert pin(constraints()["torch"]) in wanted.specifier


def test_torchvision_has_its_compiled_operators() -> None:
    """With a torch build it was not made for, torchvision imports without them or not at all."""
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9]])
    assert torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9]), 0.5).tolist() == [1]


def imported(folder: str) -> set[str]:
    """Return the top-level packages that a folder's modules, or one module, import."""
    path = ROOT / folder
    names = set()
    for module in [path] if path.is_file() else path.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"splitlib", "run_all", "tests", "benchmarks"}


@pytest.mark.parametrize(("folder", "groups"), [("splitlib", 1), ("run_all.py", 1), ("tests", 2)])
def test_every_import_is_a_declared_dependency(folder: str, groups: int) -> None:
    declared = by_name([line for lines in list(project().values())[:groups] for line in lines])
    distributions = importlib.metadata.packages_distributions()
    for name in imported(folder) - WITH_TORCH:
        owners = {canonicalize_name(owner) for owner in distributions.get(name, [name])}
        assert owners & declared.keys(), f"{folder} imports {name}, which pyproject.toml does not declare"


def test_no_file_names_a_package_registry() -> None:
    """Where packages come from is the user's own configuration."""
    files = ("Makefile", "pyproject.toml", "constraints.txt", "environment.yml", ".ci/run", ".pre-commit-config.yaml")
    for file in files:
        assert not re.search("index.url|://", (ROOT / file).read_text()), file


def test_make_says_in_one_line_that_python_is_missing(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    make = ["make", "test", "PYTHON=no-such-python"]
    stopped = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True)
    assert stopped.returncode != 0
    assert stopped.stderr.splitlines()[0].startswith('error: "no-such-python" is not Python 3.11 or later')
    assert not (tmp_path / ".venv").exists()


def test_make_alone_lists_the_targets() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [target for target in ("run", "lab", "test", "lint", "clean") if f"make {target} " not in listed] == []
