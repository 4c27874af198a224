"""The gallery shows what is in figures/, says what drew it, and is written only when that changes."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import pytest

import run_all
from splitlib import plots
from splitlib.plots import saving
from splitlib.workbook.gallery import PAGE, drawing_heading, gallery_text, kept_figures, write_gallery
from splitlib.workbook.studies import StudyNotebook, read_studies
from tests.test_run_all import write_notebook

matplotlib.use("Agg")
ROOT = Path(run_all.__file__).parent
FIGURES = ROOT / "figures"
STUDIES = read_studies(ROOT / "notebooks")
REMEDY = "write it again: python run_all.py --gallery"


def test_the_committed_page_is_not_stale() -> None:
    assert (FIGURES / PAGE).read_text(encoding="utf-8") == gallery_text(FIGURES, STUDIES), REMEDY


def test_the_committed_page_shows_every_kept_figure_and_its_links_lead_somewhere() -> None:
    text = (FIGURES / PAGE).read_text(encoding="utf-8")
    there = {path.name for path in FIGURES.glob("*.png") if not path.stem.endswith("_embedded")}
    assert set(re.findall(r"!\[.*\]\((.*?)\)", text)) == there, REMEDY
    for link in re.findall(r"\]\((.*?)\)", text):
        assert (FIGURES / unquote(link)).exists(), link


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_every_kept_figure_has_an_svg_a_title_and_a_cell(study: StudyNotebook) -> None:
    for figure in kept_figures(FIGURES, study):
        assert figure.vector, f"{figure.path.name} has no SVG: run notebook {study.number} again"
        assert figure.data, f"{figure.path.name} does not say its data: run notebook {study.number} again"
        assert figure.heading, f"no cell of notebook {study.number} saves {figure.path.name}"
        assert figure.vector.stat().st_size < 400_000, "a dense layer should be a picture"


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, list[StudyNotebook]]:
    """One study with one figure of real data and one of embedded data."""
    write_notebook(tmp_path, "01_a", 'study.save_figure(drawing, "curves")')
    for name in ("01_curves", "01_curves_embedded"):
        with plots.figure("Measured: [x] of *real*\ndata") as (drawing, _):
            saving.save(drawing, tmp_path / "figures" / f"{name}.png", about="real data")
        plt.close(drawing)
    return tmp_path / "figures", list(read_studies(tmp_path))


def test_a_figure_is_shown_with_its_title_data_notebook_and_cell(small: tuple[Path, list[StudyNotebook]]) -> None:
    folder, studies = small
    assert write_gallery(folder, studies) == folder / PAGE
    text = (folder / PAGE).read_text(encoding="utf-8")
    assert text.count("![") == 1 and "(01_curves.png)" in text and "(01_curves.svg)" in text, "none of embedded data"
    assert r"Measured: \[x\] of \*real\*; data" in text and "* Data: real data" in text
    assert "[notebooks/01_a.ipynb](../01_a.ipynb), under *Step 1*" in text


def test_it_is_written_only_when_it_changes(small: tuple[Path, list[StudyNotebook]]) -> None:
    folder, studies = small
    write_gallery(folder, studies)
    before = (folder / PAGE).stat().st_mtime_ns
    assert write_gallery(folder, studies) is None and (folder / PAGE).stat().st_mtime_ns == before
    (folder / "01_curves.svg").unlink()
    assert write_gallery(folder, studies) == folder / PAGE
    assert "SVG](" not in (folder / PAGE).read_text(encoding="utf-8")


def test_without_figures_there_is_no_page(small: tuple[Path, list[StudyNotebook]], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    assert write_gallery(empty, small[1]) is None and not empty.exists()


def test_a_picture_of_another_hand_is_shown_too(small: tuple[Path, list[StudyNotebook]]) -> None:
    folder, studies = small
    plt.figure().savefig(folder / "01_by_hand.png")
    plt.close("all")
    (other, _) = kept_figures(folder, studies[0])
    assert (other.title, other.data, other.heading, other.vector) == ("by hand", "", "", None)


LOOP = 'for name, file in {"x": "first", "predicted": "second"}.items():\n    study.save_figure(d, file)'


@pytest.mark.parametrize(
    ("name", "heading"),
    [("built_rte", "Built"), ("second", "Loop"), ("third", "Later"), ("predicted", "Exact"), ("nowhere", "")],
)
def test_the_cell_is_found_however_it_names_its_figure(name: str, heading: str) -> None:
    """``predicted`` is a word of an earlier loop's cell and the name of a later figure: the exact call wins."""
    new = nbformat.v4
    sources = {
        "Built": 'study.save_figure(d, f"built_{task}")',
        "Loop": LOOP,
        "Names": 'files = {"y": "third"}',
        "Later": "%matplotlib inline\nfor file in files.values():\n    study.save_figure(d, file)",
        "Exact": 'study.save_figure(d, "predicted", data="none")',
    }
    cells = [
        cell
        for title, source in sources.items()
        for cell in (new.new_markdown_cell(f"## {title}"), new.new_code_cell(source))
    ]
    assert drawing_heading(cells, name) == heading


def test_the_option_writes_the_page_and_runs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "figures"
    monkeypatch.setenv("SPLITLIB_FIGURES", str(folder))
    with plots.figure("title") as (drawing, _):
        saving.save(drawing, folder / "08_macs_by_part.png", about="no dataset")
    plt.close(drawing)
    options = ["--gallery", "--runs", str(tmp_path / "runs")]
    assert run_all.main(options) == 0 and capsys.readouterr().out == f"{folder / PAGE}\n"
    assert run_all.main(options) == 0 and "is up to date" in capsys.readouterr().out
    assert "Figure: MACs of the three parts" in (folder / PAGE).read_text(encoding="utf-8")
    assert not (tmp_path / "runs").exists()
