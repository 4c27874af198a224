"""The gallery: a page in ``figures/`` with every kept figure, its title, its data, and the cell that drew it."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
from PIL import Image

from splitlib.files import named_folder, write_text
from splitlib.workbook.engine import nearest_heading
from splitlib.workbook.studies import StudyNotebook

PAGE = "README.md"  # a forge shows it under the folder's files
EMBEDDED = "_embedded"
INTRODUCTION = """\
# Figures

Every figure that is kept, under the notebook that draws it, with its data and the heading of the cell. Each is there as
PNG and as SVG. Figures of embedded data (`*_embedded`) are not kept: `make run` draws them again in minutes, and its
index page shows them.

`python run_all.py` writes this page when figures have changed; `python run_all.py --gallery` writes it alone.
"""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One figure as a page shows it."""

    path: Path
    """The PNG."""
    title: str
    """As it stands over the figure, in one line."""
    data: str
    """Which data went into it, or nothing if the file does not say."""
    heading: str
    """Over the cell that drew it, or nothing if no cell does any more."""

    @property
    def name(self) -> str:
        """The file's name in words."""
        return self.path.stem.partition("_")[2].replace("_", " ")

    @property
    def vector(self) -> Path | None:
        """The SVG beside the PNG, if there is one."""
        path = self.path.with_suffix(".svg")
        return path if path.exists() else None


def figures_folder(root: Path) -> Path:
    """Return ``$SPLITLIB_FIGURES``, else ``figures/`` of ``root``, as notebooks see it; without importing torch."""
    return named_folder("SPLITLIB_FIGURES", root / "figures")


def saved_name(path: Path) -> str:
    """Return the name under which a notebook saves the figure, such as ``curves`` for ``01_curves_embedded.png``."""
    return path.stem.partition("_")[2].removesuffix(EMBEDDED)


def describe(path: Path, study: StudyNotebook) -> Shown:
    """Return what the file says of itself, and where ``study`` draws it."""
    with Image.open(path) as picture:
        said = {key: str(value) for key, value in picture.info.items() if key in ("Title", "Description")}
    name = saved_name(path)
    heading = drawing_heading(nbformat.read(study.path, as_version=4).cells, name)
    return Shown(
        path=path,
        title=said.get("Title", name.replace("_", " ")),
        data=said.get("Description", ""),
        heading=heading,
    )


def drawing_heading(cells: Sequence[Any], name: str) -> str:
    """Return the heading over the cell that saves the figure ``name``, or nothing."""
    index = drawing_cell(cells, name)
    return "" if index is None else nearest_heading(cells[:index])


def drawing_cell(cells: Sequence[Any], name: str) -> int | None:
    """Return the position of the cell that saves the figure ``name``, if one does.

    The call may spell the name, build it (``f"ablation_{task}"``), or take it from a variable: then it is the first
    such call in or after the cell that spells it.
    """
    trees = {index: _parse(cell.source) for index, cell in enumerate(cells) if cell.cell_type == "code"}
    saved = [(index, given) for index, tree in trees.items() for given in _saved_names(tree)]
    spelled = [
        index
        for index, tree in trees.items()
        if any(isinstance(node, ast.Constant) and node.value == name for node in ast.walk(tree))
    ]
    exact = [index for index, given in saved if _means(given, name)]
    taken = [index for index, given in saved if isinstance(given, ast.Name) and spelled and index >= spelled[0]]
    return next(iter([*exact, *taken]), None)


def _parse(source: str) -> ast.AST:
    """Return the cell's syntax; magics, and cells that are no Python, save no figures."""
    try:
        return ast.parse("\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))))
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def _saved_names(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the second argument of every call of a ``save_figure``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "save_figure" and len(node.args) > 1:
            yield node.args[1]


def _means(given: ast.expr, name: str) -> bool:
    if isinstance(given, ast.JoinedStr):
        parts = [re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".+" for p in given.values]
        return re.fullmatch("".join(parts), name) is not None
    return isinstance(given, ast.Constant) and given.value == name


# --- The page --------------------------------------------------------------------------------------------------------


def kept_figures(folder: Path, study: StudyNotebook) -> list[Shown]:
    """Return the study's figures in ``folder``, by name; those of embedded data are left out."""
    paths = sorted(folder.glob(f"{study.number}_*.png"))
    return [describe(path, study) for path in paths if not path.stem.endswith(EMBEDDED)]


def gallery_text(folder: Path, studies: Sequence[StudyNotebook]) -> str:
    """Return the page as Markdown."""
    parts = [INTRODUCTION]
    for study in studies:
        figures = kept_figures(folder, study)
        if figures:
            parts.append(
                f"## [{study.number} {study.title}]({relative_link(study.path, folder)})\n\n{study.question}\n"
            )
            parts += [_entry(figure, study, folder) for figure in figures]
    return "\n".join(parts)


def write_gallery(folder: Path, studies: Sequence[StudyNotebook]) -> Path | None:
    """Write the page where there are figures to show or an older page, and only if it changes; return its path then."""
    page = folder / PAGE
    if not page.exists() and not any(kept_figures(folder, study) for study in studies):
        return None
    text = gallery_text(folder, studies)
    if page.exists() and page.read_text(encoding="utf-8") == text:
        return None
    write_text(page, text)
    return page


def _entry(figure: Shown, study: StudyNotebook, folder: Path) -> str:
    name = relative_link(figure.path, folder)
    files = [f"[PNG]({name})"] + ([f"[SVG]({relative_link(figure.vector, folder)})"] if figure.vector else [])
    cell = f", under *{figure.heading}*" if figure.heading else ""
    lines = [
        f"### {figure.name}",
        f"![{_plain(figure.title)}]({name})",
        f"**{_plain(figure.title)}**",
        "\n".join(
            [
                f"* Data: {figure.data or 'see the title'}",
                f"* Code: [notebooks/{study.path.name}]({relative_link(study.path, folder)}){cell}",
                f"* Files: {', '.join(files)}",
            ]
        ),
    ]
    return "\n\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Escape what Markdown would take for its own."""
    return re.sub(r"([\\`*_\[\]<>])", r"\\\1", text)


def relative_link(target: Path, folder: Path) -> str:
    """Return the address of ``target`` for a page in ``folder``."""
    return quote(Path(os.path.relpath(target, folder)).as_posix())
