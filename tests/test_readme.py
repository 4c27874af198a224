"""The README's commands parse, its links lead somewhere, and its tree is the tree."""

import math
import re
import shlex
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

import run_all
from splitlib import cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(path for folder in (".", "benchmarks", "results") for path in ROOT.joinpath(folder).glob("*.md"))
COMMANDS = [line.strip().split("#")[0].strip() for line in README.splitlines() if line.startswith("    ")]


def anchors(page: Path) -> set[str]:
    """How GitHub names a page's headings: small letters, hyphens for spaces, no other signs, namesakes numbered."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found, seen = set(), Counter()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


@pytest.mark.parametrize(
    "command",
    [
        c
        for c in COMMANDS
        if c.startswith(("python -m splitlib run", "python -m splitlib client")) and "--help" not in c
    ],
)
def test_run_commands_mean_a_config(command):
    cli.config_from_options(cli._parser().parse_args(shlex.split(command)[3:]))


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.name)
def test_every_command_is_named(command):
    """``headline`` was not."""
    assert re.search(rf"-m splitlib {command.name}\b", README)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python -m splitlib server")])
def test_server_commands_parse(command):
    cli.given_settings(cli._parser().parse_args(shlex.split(command)[3:]))


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python -m splitlib gpu")])
def test_gpu_commands_parse(command):
    cli._parser().parse_args(shlex.split(command)[3:])


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python run_all.py")])
def test_run_all_commands_parse(command):
    options = run_all._parser().parse_args(shlex.split(command)[2:])
    studies = run_all.select(run_all.read_studies(ROOT / "notebooks"), options.only)
    run_all.assign(studies, options.param)


@pytest.mark.parametrize("target", [c.split()[1] for c in COMMANDS if c.startswith("make ")])
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / unquote(link)).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_headings_lead_to_one(page):
    for name, anchor in re.findall(r"\]\((?!http)([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        assert anchor in anchors(page.parent / name if name else page), f"{name}#{anchor}"


def test_a_model_of_ones_own_trains_as_the_example_says(capsys):
    example = README[README.index("### A model of your own") :].split("```python\n")[1].split("```")[0]
    torch.manual_seed(0)
    names: dict = {}
    exec(example, names)
    sent, elements = names["sent"], 20 * 2 * 256 * 128  # that cross in each direction: steps, cuts, samples, features
    assert names["loss"] < math.log(10), "it learns"
    forward, back = sent.activation_bytes, sent.gradient_bytes
    assert capsys.readouterr().out == f"{forward} {back} {(forward + back) / sent.uncompressed_bytes}\n"
    assert sent.uncompressed_bytes == 2 * elements * 4
    assert 6 < 8 * forward / elements < 6.2 and 8 < 8 * back / elements < 8.2, "bits, a header and tables"


def test_every_notebook_is_in_the_study_table():
    assert {p.name for p in (ROOT / "notebooks").glob("*.ipynb")} == set(re.findall(r"notebooks/(\w+\.ipynb)", README))


def test_the_tree_names_what_is_there():
    block = README[README.index("## What lies where") :].split("\n\n")[1]
    names = re.findall(r"^    (  )?([\w./]+(?:  [\w./]+)*?)(?:   |$)", block, re.MULTILINE)
    for inside, entry in names:
        for name in entry.split("  "):
            assert (ROOT / "splitlib" / name if inside else ROOT / name).exists(), name
    shown = {name.rstrip("/") for inside, entry in names if inside for name in entry.split("  ")}
    hidden = {
        "__init__.py",
        "__main__.py",
        "py.typed",
        "errors.py",
        "files.py",
        "ending.py",
        "version.py",
        "tally.py",
        "__pycache__",
    }
    there = {path.name for path in (ROOT / "splitlib").iterdir()}
    assert there - hidden == shown
