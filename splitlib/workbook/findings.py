"""What a study found, as a page to read without running it: an executed notebook's results, without its code."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat

from splitlib.files import named_folder, write_text
from splitlib.labels import with_unit
from splitlib.workbook.gallery import drawing_cell, kept_figures, relative_link, saved_name
from splitlib.workbook.studies import StudyNotebook

PUBLISHED_WITH = {"seeds": 3, "server_device": "cpu"}
"""Parameters of the committed pages and figures: all runs of a row that there are, of up to three (11 asks for as many
as its rows name); the committed times of 05 have a server without a GPU, and on a machine with one it would look for
others."""
# How it is done, and what to do next, are read in the notebook itself.
SKIPPED = ("Set-up", "Method", "Explore")


def findings_folder(root: Path) -> Path:
    """Return ``$SPLITLIB_RESULTS``, else ``results/`` of ``root``, as notebooks see it; without importing torch."""
    return named_folder("SPLITLIB_RESULTS", root / "results")


def why_unpublished(*, recorded: bool, profile: str, data: str, asked: Mapping[str, Any]) -> str:
    """Return why the committed pages and figures stay as they are, or nothing: they show all records of profile real.

    ``asked`` are the parameters that were set by hand.
    """
    if not recorded or (profile, data) != ("real", "real"):
        return "they are of all records of profile real"
    other = [name for name, value in asked.items() if PUBLISHED_WITH.get(name) != value]
    if other:
        return f"--param {other[0]} makes this a look of your own"
    own = {variable: bool(os.environ.get(variable)) for variable in ("SPLITLIB_RESULTS", "SPLITLIB_FIGURES")}
    if len(set(own.values())) > 1:
        named, unnamed = sorted(own, key=own.__getitem__, reverse=True)
        return f"${named} is set and ${unnamed} is not"
    return ""


def write_findings(folder: Path, figures: Path, study: StudyNotebook, executed: Path) -> Path:
    """Write ``NN_name.md`` into ``folder`` from the executed notebook and return its path.

    ``figures`` is the folder of kept figures, which the page shows where their cells stand.
    """
    cells = nbformat.read(executed, as_version=4).cells
    page = folder / f"{study.name}.md"
    write_text(page, findings_text(folder, figures, study, cells))
    return page


def findings_text(folder: Path, figures: Path, study: StudyNotebook, cells: Sequence[Any]) -> str:
    """Return the page: the question, then all but the :data:`SKIPPED` sections, with outputs in place of code."""
    notebook = relative_link(study.path, folder)
    opening = (
        f"# {study.number} {study.title}\n\n{study.question}\n\n"
        f"Written by `make figures` from the records beside this page; code and method are in "
        f"[the notebook]({notebook}), what the words in the tables mean in [the overview](00_overview.md#the-words)."
    )
    return "\n\n".join([opening, *_parts(folder, figures, study, cells)]) + "\n"


def _parts(folder: Path, figures: Path, study: StudyNotebook, cells: Sequence[Any]) -> Iterator[str]:
    drawn = [(drawing_cell(cells, saved_name(figure.path)), figure) for figure in kept_figures(figures, study)]
    shown = False  # until the first section that is not skipped
    for index, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            kept = []
            for part in re.split(r"^(?=## )", cell.source, flags=re.MULTILINE):
                if part.startswith("## "):
                    shown = not part.removeprefix("## ").startswith(SKIPPED)
                kept += [part.strip()] * bool(shown and part.strip())
            yield from kept
        elif shown and cell.cell_type == "code":
            yield from _outputs(cell)
            pictures = [figure for place, figure in drawn if place == index]
            yield from (f"![{figure.name}]({relative_link(figure.path, folder)})" for figure in pictures)


def _outputs(cell: Any) -> Iterator[str]:
    """Yield what a cell printed and the tables it showed; pictures and widgets are left out."""
    for printed, outputs in groupby(cell.outputs, _is_printed):
        if printed:  # however the kernel divided it
            yield f"```text\n{''.join(output.text for output in outputs).strip(chr(10))}\n```"
            continue
        for data in (output.get("data", {}) for output in outputs):
            if "text/markdown" in data:
                yield data["text/markdown"].strip()
            elif "<table" in data.get("text/html", ""):
                yield plain_table(data["text/html"])


def _is_printed(output: Any) -> bool:
    return output.output_type == "stream" and output.name == "stdout"


def plain_table(html: str) -> str:
    """Return the table of pandas's HTML without style, a line for each row, columns named in words.

    >>> print(plain_table('<style>a {}</style><table id="t"><tr class="b"> <td colspan="2" id="c">1</td></tr></table>'))
    <table>
    <tr><td colspan="2">1</td></tr>
    </table>
    """
    table = re.search(r"<table.*</table>", html, re.DOTALL)
    text = re.sub(r'\s+(?:class|id|style|border|scope)="[^"]*"', "", table.group() if table else "")
    text = re.sub(r"\s*(</?(?:table|thead|tbody|tr|th|td|caption)\b[^>]*?)\s*>\s*", r"\1>", text)
    text = re.sub(r"(?<=<thead>).*?(?=</thead>)", lambda head: _in_words(_one_row(head.group())), text)
    return re.sub(r"(?<!^)(<caption>|<thead>|<tbody>|<tr>|</thead>|</tbody>|</table>)", r"\n\1", text)


def _one_row(head: str) -> str:
    """Return a table's head with the index's names, its last row, in the row of the columns', where nothing is lost.

    >>> _one_row("<tr><th>&nbsp;</th><th>n</th></tr><tr><th>study</th><th>&nbsp;</th></tr>")
    '<tr><th>study</th><th>n</th></tr>'
    """
    rows = re.findall(r"<tr>.*?</tr>", head)
    columns, index = (re.findall(r"<th>(.*?)</th>", row) for row in rows[-2:]) if len(rows) > 1 else ([], [])
    cells = [(one, other) for one, other in zip(columns, index, strict=False) if {one, other} & {"", "&nbsp;"}]
    if not cells or len(cells) < max(len(columns), len(index)) or "span=" in rows[-2] + rows[-1]:
        return head
    merged = "".join(f"<th>{other if one in ('', '&nbsp;') else one}</th>" for one, other in cells)
    return "".join([*rows[:-2], f"<tr>{merged}</tr>"])


def _in_words(head: str) -> str:
    """Return a table's head with columns that have a program's names as people read them.

    >>> _in_words("<th>time_per_batch_s</th><th>n</th>")
    '<th>time per batch [s]</th><th>n</th>'
    """
    return re.sub(r"(?<=<th>)[a-z0-9]+(_[a-z0-9]+)+(?=</th>)", lambda name: with_unit(name.group()), head)
