"""The pages in results/ say what the executed notebooks found: their text, tables and figures, and no code."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest

import run_all
from splitlib import plots
from splitlib.plots import saving
from splitlib.workbook.execution import Outcome
from splitlib.workbook.findings import findings_text, plain_table, write_findings
from splitlib.workbook.studies import StudyNotebook, assign, read_studies
from tests.test_run_all import write_notebook

matplotlib.use("Agg")
ROOT = Path(run_all.__file__).parent
RESULTS = ROOT / "results"
PAGES = sorted(RESULTS.glob("[0-9]*.md"))
SAVE = 'study.save_figure(drawing, "curves")'
new = nbformat.v4


@pytest.fixture
def study(tmp_path: Path) -> StudyNotebook:
    """A study with a figure of real data, saved by its third cell."""
    write_notebook(tmp_path, "01_a", "import splitlib", "print(1)", SAVE, "explore()")
    with plots.figure("Measured") as (drawing, _):
        saving.save(drawing, tmp_path / "figures" / "01_curves.png", about="real data")
    plt.close(drawing)
    (found,) = read_studies(tmp_path)
    return found


def executed(study: StudyNotebook) -> list[nbformat.NotebookNode]:
    """Its cells as after a run, with papermill's cell of parameters before them."""
    cells = [new.new_code_cell("profile = 'real'"), *nbformat.read(study.path, as_version=4).cells]
    for cell in cells:
        cell.source = cell.source.replace("## Step 1", "## Set-up and more").replace("## Step 4", "## Explore")
        if cell.cell_type == "code":
            cell.outputs = [new.new_output("stream", name="stdout", text=f"after {cell.source}\n")]
    table = '<style>td {}</style><table border="1"><tr>\n  <td class="x">60.5</td></tr></table>'
    steps = [cell for cell in cells if cell.cell_type == "code"][2:]
    steps[1].outputs += [
        new.new_output("stream", name="stderr", text="a warning"),
        new.new_output("display_data", data={"text/html": table, "text/plain": "<Styler>"}),
        new.new_output("display_data", data={"text/markdown": "**bold**", "text/plain": "<Markdown>"}),
        new.new_output("display_data", data={"image/png": "iVBORw0=", "text/plain": "<Figure>"}),
    ]
    return cells


def test_a_page_has_what_came_out_and_neither_code_nor_preparations(study: StudyNotebook, tmp_path: Path) -> None:
    text = findings_text(tmp_path / "results", tmp_path / "figures", study, executed(study))
    head, *parts = text.split("\n\n## ")
    assert head.startswith("# 01 Study 01_a\n\nDoes it run at all?") and "](../01_a.ipynb)" in head
    assert parts == [
        "Step 2\n\n```text\nafter print(1)\n```\n\n<table>\n<tr><td>60.5</td></tr>\n</table>\n\n**bold**",
        f"Step 3\n\n```text\nafter {SAVE}\n```\n\n![curves](../figures/01_curves.png)\n",
    ]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--recorded", "--profile", "real"], ""),
        (["--recorded", "--profile", "real", "--param", "seeds=3", "--param", "server_device=cpu"], ""),
        (["--recorded", "--profile", "real", "--param", "seeds=1"], "--param seeds makes this a look of your own"),
        (["--recorded", "--profile", "real", "--param", "tasks=cola"], "--param tasks makes this a look of your own"),
        (["--recorded", "--profile", "real", "--notebooks", "elsewhere"], "they are of the project's own notebooks"),
        (["--recorded"], "they are of all records of profile real"),
        (["--recorded", "--profile", "paper"], "they are of all records of profile real"),
        (["--recorded", "--profile", "real", "--data", "embedded"], "they are of all records of profile real"),
        (["--profile", "real"], "they are of all records of profile real"),
    ],
)
def test_only_all_records_of_profile_real_become_pages_and_committed_figures(options: list[str], why: str) -> None:
    """``--recorded --param seeds=1`` wrote them anew from a part of the records."""
    args = run_all._parser().parse_args(options)
    assert run_all._why_unpublished(args, assign(read_studies(ROOT / "notebooks"), args.param)) == why


def test_pages_and_their_figures_are_of_the_same_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``$SPLITLIB_RESULTS`` alone, the project's figures were drawn from records that lie elsewhere."""
    args = run_all._parser().parse_args(["--recorded", "--profile", "real"])
    assert run_all._why_unpublished(args, {}) == ""
    monkeypatch.delenv("SPLITLIB_FIGURES")
    assert run_all._why_unpublished(args, {}) == "$SPLITLIB_RESULTS is set and $SPLITLIB_FIGURES is not"
    monkeypatch.delenv("SPLITLIB_RESULTS")
    assert run_all._why_unpublished(args, {}) == ""


def test_committed_pages_have_parameters_of_their_own() -> None:
    studies = read_studies(ROOT / "notebooks")
    parser, given = run_all._parser(), {}
    for options in (["--recorded", "--profile", "real"], ["--profile", "real"], ["--recorded"]):
        given[tuple(options)] = run_all._published_with(parser.parse_args(options), studies)
    shown, *others = given.values()
    assert shown["03_sort_quantization"] == {"seeds": 3} and shown["08_flop_counts"] == {}
    assert shown["05_two_machines"] == {"seeds": 3, "server_device": "cpu"}
    assert not any(values for each in others for values in each.values())


def test_a_run_that_publishes_nothing_says_why(study: StudyNotebook) -> None:
    args = run_all._parser().parse_args(["--profile", "real"])
    found, why = run_all._notes(args, [Outcome(study=study, status="done", records_found=2)], "it is small")
    assert "--fresh trains again" in found
    assert why == "the committed figures and pages stay as they are: it is small; the index page shows this run's"
    assert not list(run_all._notes(run_all._parser().parse_args([]), [], "it is embedded"))


@pytest.mark.parametrize("status", ["done", "failed"])
def test_what_is_done_becomes_a_page(
    study: StudyNotebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    monkeypatch.setenv("SPLITLIB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("SPLITLIB_FIGURES", str(tmp_path / "figures"))
    folder = tmp_path / "run"
    folder.mkdir()
    nbformat.write(new.new_notebook(cells=executed(study)), folder / "01_a.ipynb")
    pages = run_all._write_findings([Outcome(study=study, status=status)], folder)
    assert pages == ([tmp_path / "results" / "01_a.md"] if status == "done" else [])
    assert all("after print(1)" in page.read_text(encoding="utf-8") for page in pages)


def test_a_page_is_written_whole(study: StudyNotebook, tmp_path: Path) -> None:
    nbformat.write(new.new_notebook(cells=executed(study)), tmp_path / "run.ipynb")
    page = write_findings(tmp_path / "results", tmp_path / "figures", study, tmp_path / "run.ipynb")
    assert page.read_text(encoding="utf-8") == findings_text(
        tmp_path / "results", tmp_path / "figures", study, executed(study)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_committed_pages_belong_to_notebooks_and_their_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert (ROOT / "notebooks" / f"{page.stem}.ipynb").exists() and "## Takeaways" in text
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (RESULTS / unquote(link)).exists(), link


def test_what_a_cell_prints_is_one_block_however_it_arrives(study: StudyNotebook, tmp_path: Path) -> None:
    cells = executed(study)
    (first,) = [cell for cell in cells if cell.source == SAVE]
    lines = ("a task\n", "    its rows\n", "  more\n")
    first.outputs = [new.new_output("stream", name="stdout", text=line) for line in lines]
    text = findings_text(tmp_path / "results", tmp_path / "figures", study, cells)
    assert "```text\na task\n    its rows\n  more\n```" in text


def test_tables_are_headed_by_words_in_one_row():
    table = pd.DataFrame({"time_per_batch_s": [1.5], "n": [3]}, index=pd.Index(["none"], name="row_label"))
    head = "<tr><th>row label</th><th>time per batch [s]</th><th>n</th></tr>"
    for html in (table.to_html(), table.style.to_html()):
        page = plain_table(html)
        assert page.splitlines()[2] == head and page.count("<tr>") == 2
    nested = pd.concat({"seconds": table}, axis=1)
    assert plain_table(nested.to_html()).splitlines()[3] == head  # below the row of what spans columns
    named = table.rename_axis("way", axis=1).rename_axis("row")  # neither name gives way
    assert plain_table(named.to_html()).splitlines()[2:4] == [
        "<tr><th>way</th><th>time per batch [s]</th><th>n</th></tr>", "<tr><th>row</th><th></th><th></th></tr>",
    ]  # fmt: skip


def test_what_stands_before_a_skipped_section_in_its_cell_is_kept(study: StudyNotebook, tmp_path: Path) -> None:
    limits = new.new_markdown_cell("What this does not show: more.\n\n## Explore\n\nTry it.\n\n## Next\n\nGo on.")
    text = findings_text(tmp_path / "results", tmp_path / "figures", study, [new.new_markdown_cell("## A"), limits])
    assert text.endswith("## A\n\nWhat this does not show: more.\n\n## Next\n\nGo on.\n")


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page_says_what_its_study_does_not_show(page: Path) -> None:
    notebook = nbformat.read(ROOT / "notebooks" / f"{page.stem}.ipynb", as_version=4)
    words = re.findall(r"^What (?:this|it) does not show.*", "\n".join(c.source for c in notebook.cells), re.MULTILINE)
    assert all(line in page.read_text(encoding="utf-8") for line in words)
