"""Every committed notebook keeps the workbook's form and executes under the profile ``smoke``."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path
from typing import Any

import nbformat
import pytest

import run_all
from splitlib.workbook.execution import IMAGE_SUFFIXES
from splitlib.workbook.studies import STANDARD_PARAMETERS, read_studies

FOLDER = Path(run_all.__file__).parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# Without notebooks the tests below have no cases and are reported as skipped.
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# CI's minutes are enough for some of the studies; the browser's test executes the playground as well.
EXECUTED = [pytest.param(p, marks=() if p.stem[:2] in ("01", "11") else pytest.mark.slow) for p in NOTEBOOKS]
PLAYGROUND = "09_playground.ipynb"  # its views stand below it as figures
CELLS = range(12, 43)  # 40 and the explore section's own
MEDIAN_CODE_LINES = 8
STUDIES = [path.stem for path in NOTEBOOKS if path.stem[:2] <= "08"]  # later ones are made of widgets throughout
WIDGET = "application/vnd.jupyter.widget-view+json"


def cells_of(path: Path, kind: str = "") -> list[Any]:
    """Return the notebook's cells, or those of one kind."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if not kind or cell.cell_type == kind]


def parameters_cell(path: Path) -> str:
    """Return the source of the one cell tagged ``parameters``."""
    (cell,) = [cell for cell in cells_of(path) if "parameters" in cell.metadata.get("tags", [])]
    return str(cell.source)


def read_parameters(source: str) -> dict[str, tuple[str, Any]]:
    """Return type and default by name; fails unless every statement is ``name: type = literal``."""
    found = {}
    for statement in ast.parse(source).body:
        assert isinstance(statement, ast.AnnAssign), ast.unparse(statement)
        assert isinstance(statement.target, ast.Name)
        assert isinstance(statement.annotation, ast.Name)
        assert statement.value is not None
        found[statement.target.id] = (statement.annotation.id, ast.literal_eval(statement.value))
    return found


@each_notebook
def test_is_valid_and_named_by_number(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert path.name[:2].isdigit()
    assert path.name[2] == "_"
    assert notebook.metadata.kernelspec.name == "python3"


def test_numbers_are_not_used_twice() -> None:
    numbers = [path.name[:2] for path in NOTEBOOKS]
    assert len(set(numbers)) == len(numbers)


@each_notebook
def test_is_committed_without_outputs(path: Path) -> None:
    for cell in cells_of(path, "code"):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert "widgets" not in nbformat.read(path, as_version=4).metadata


@each_notebook
def test_opens_with_its_question(path: Path) -> None:
    study = next(study for study in read_studies(FOLDER) if study.path.name == path.name)
    assert study.title
    assert study.question.endswith("?"), study.question


@each_notebook
def test_parameters_are_flat_annotated_literals(path: Path) -> None:
    parameters = read_parameters(parameters_cell(path))
    standard = [(name, kind) for name, (kind, _) in parameters.items()][: len(STANDARD_PARAMETERS)]
    assert standard == list(STANDARD_PARAMETERS.items())
    assert [parameters[name][1] for name in STANDARD_PARAMETERS] == ["quick", "", "", False]
    for name, (kind, default) in parameters.items():
        assert type(default).__name__ == kind, f"{name}: {kind} = {default!r}"


@each_notebook
def test_every_parameter_has_help_that_papermill_reads(path: Path) -> None:
    """Papermill parses lines, not Python: a second ``=`` or a ``#`` in a default would hide or cut a parameter."""
    study = next(study for study in read_studies(FOLDER) if study.path.name == path.name)
    seen = {p.name: (p.type, ast.literal_eval(p.default)) for p in study.parameters.values()}
    assert seen == read_parameters(parameters_cell(path))
    assert all(parameter.help for parameter in study.parameters.values())


@each_notebook
def test_defines_no_classes(path: Path) -> None:
    for cell in cells_of(path, "code"):
        magic_free = "\n".join(line for line in cell.source.splitlines() if not line.lstrip().startswith(("%", "!")))
        nodes = ast.walk(ast.parse(magic_free))
        assert not [node.name for node in nodes if isinstance(node, ast.ClassDef)]


@each_notebook
def test_is_short(path: Path) -> None:
    assert len(cells_of(path)) in CELLS
    lengths = [len(cell.source.splitlines()) for cell in cells_of(path, "code")]
    assert statistics.median(lengths) <= MEDIAN_CODE_LINES, lengths


@pytest.mark.notebook
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", EXECUTED, ids=[path.stem for path in NOTEBOOKS])
def test_executes_under_smoke(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Records and checkpoints go to the test's own folder (see conftest.py), so everything is trained here."""
    code = run_all.main(["--profile", "smoke", "--only", path.name[:2], "--runs", str(tmp_path / "runs")])
    assert code == 0, capsys.readouterr().out
    latest = tmp_path / "runs" / "latest"
    assert (latest / f"{path.stem}.html").exists()
    figures = {figure.stem for figure in (latest / "figures").iterdir() if figure.suffix in IMAGE_SUFFIXES}
    assert figures, "a study draws at least one figure"
    shown = [out.data for cell in cells_of(latest / path.name, "code") for out in cell.outputs if "data" in out]
    pictures = [data for data in shown if "image/png" in data and WIDGET not in data]
    assert len(pictures) == len(figures), "each figure that is kept is shown once"
    widgets = [data for data in shown if WIDGET in data]
    beside = all("image/png" in data for data in widgets)
    assert beside or path.name == PLAYGROUND, "a page without a kernel shows the widget's picture"
    assert widgets or path.stem not in STUDIES, "every study ends with widgets"
    assert not (tmp_path / "figures").exists(), "the smoke profile keeps its figures in the run's folder"


@pytest.mark.notebook
def test_shown_without_any_record_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--profile", "smoke", "--recorded", "--only", "02", "--runs", str(tmp_path / "runs")]
    assert run_all.main(options) == 1
    assert "--recorded trains nothing: run it without, once" in capsys.readouterr().out
