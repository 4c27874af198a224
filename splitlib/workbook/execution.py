"""Executes one notebook with papermill and keeps its outputs, whatever becomes of the kernel or the disk."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from splitlib import tally
from splitlib.files import write_text
from splitlib.workbook.console import Console
from splitlib.workbook.engine import KERNEL_NAME, WorkbookEngine, kernel_environment
from splitlib.workbook.studies import StudyNotebook

IMAGE_SUFFIXES = (".png", ".svg", ".jpg")
STATUSES = ("done", "failed", "interrupted", "not run")


@dataclass(kw_only=True)
class Outcome:
    """What became of one notebook."""

    study: StudyNotebook
    status: str = "not run"
    """One of ``STATUSES``."""
    seconds: float = 0.0
    error: str = ""
    """The failing cell and its traceback, or what else went wrong."""
    figures: tuple[Path, ...] = ()
    """Images this notebook added to the run's figures."""
    records_found: int = 0
    records_trained: int = 0


def run_study(outcome: Outcome, values: Mapping[str, Any], run_dir: Path, console: Console) -> None:
    """Execute ``outcome``'s notebook with these parameters and fill in what became of it.

    Writes ``NN_name.ipynb`` and ``NN_name.html`` to ``run_dir``. Failures are noted, never raised; Ctrl-C stops the
    kernel, is noted and raised.
    """
    study, began, before = outcome.study, time.monotonic(), _images(run_dir)
    outcome.status = "interrupted"
    try:
        outcome.error = _execute(study, values, run_dir, console)
        console.status(f"{study.name}  writing the HTML page", began)
        page_error = _write_html(run_dir / f"{study.name}.ipynb")
        outcome.error = outcome.error or page_error
        outcome.status = "failed" if outcome.error else "done"
    finally:
        console.end_status()
        outcome.seconds = time.monotonic() - began
        outcome.figures = tuple(sorted(_images(run_dir) - before))
        outcome.records_found, outcome.records_trained = tally.count_records(run_dir, study.name)


def _images(run_dir: Path) -> set[Path]:
    """Return the run's figures so far, one path each: an SVG beside a PNG is the same figure."""
    paths = {path for path in (run_dir / "figures").glob("*") if path.suffix in IMAGE_SUFFIXES}
    return {path for path in paths if path.suffix != ".svg" or path.with_suffix(".png") not in paths}


def _execute(study: StudyNotebook, values: Mapping[str, Any], run_dir: Path, console: Console) -> str:
    """Run the notebook and return what went wrong, or nothing; the file appears under its name when it is finished."""
    finished = run_dir / f"{study.name}.ipynb"
    running = run_dir / f"{study.name}.running.ipynb"
    try:
        papermill.execute_notebook(
            study.path,
            running,
            parameters=dict(values),
            engine_name=WorkbookEngine.NAME,
            kernel_name=KERNEL_NAME,
            language="python",
            progress_bar=False,
            cwd=study.path.parent,
            console=console,
            study=study,
            env=kernel_environment(study, run_dir),
        )
    except PapermillExecutionError as failure:
        return "\n".join([console.label, *(f"| {line}" for line in failure.source.splitlines()), *failure.traceback])
    except OSError as error:
        running.unlink(missing_ok=True)  # cut off in the middle, no notebook any more
        return f"cannot finish {finished}: {error.strerror or error}"
    except Exception:  # the kernel did not start, or a fault of the libraries: the other notebooks still run
        return traceback.format_exc()
    finally:
        if running.exists():
            running.replace(finished)
    return ""


def _exporter() -> HTMLExporter:
    """Return nbconvert's exporter, which shows a widget's picture, where it has one, in place of dead controls."""
    order = HTMLExporter().default_config.NbConvertBase.display_data_priority
    return HTMLExporter(config=Config({"NbConvertBase": {"display_data_priority": ["image/png", *order]}}))


def _write_html(notebook: Path) -> str:
    """Write the page beside the executed notebook, if there is one, and return what went wrong, or nothing."""
    page = notebook.with_suffix(".html")
    try:
        if notebook.exists():
            write_text(page, _exporter().from_notebook_node(nbformat.read(notebook, as_version=4))[0])
    except OSError as error:
        return f"cannot write {page}: {error.strerror or error}"
    except Exception:  # an output that nbconvert cannot show
        return traceback.format_exc()
    return ""
