"""Which records a run of the workbook found and which it trained, told by the kernels through one file.

A kernel that ``run_all.py`` started knows its run folder and its notebook from the environment. It appends one line
for each record, so that nothing is lost when it dies.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from splitlib.errors import RecordError

RUN_DIR = "SPLITLIB_RUN_DIR"
"""Environment variable: the folder of this run, absolute. Figures go to its ``figures/``."""
NOTEBOOK = "SPLITLIB_NOTEBOOK"
"""Environment variable: the name of the notebook this kernel executes, such as ``01_cola``."""
RECORDED = "SPLITLIB_RECORDED"
"""Environment variable: 1 has notebooks show what has a record, and train and time nothing."""
PUBLISHING = "SPLITLIB_PUBLISHING"
"""Environment variable: 1 has notebooks draw ``figures/`` anew, which pages of ``results/`` and README.md show."""
FILE_NAME = "records.jsonl"


def only_records() -> bool:
    """Whether notebooks are to show what has a record, and to train and time nothing."""
    return os.environ.get(RECORDED) == "1"


def publishing() -> bool:
    """Whether what notebooks draw is of all the committed records, and replaces the committed figures."""
    return os.environ.get(PUBLISHING) == "1"


def check_may_measure(what: str) -> None:
    """Raise RecordError if only records are to be shown: ``what`` has none, and would have to be trained or timed."""
    if only_records():
        raise RecordError(f"{what} has no record, and --recorded trains and times nothing: run it without, once")


def note_record(key: str, *, trained: bool) -> None:
    """Tell the run that the record ``key`` was trained or found; does nothing outside ``run_all.py``."""
    folder = os.environ.get(RUN_DIR)
    if folder:
        line = {"notebook": os.environ.get(NOTEBOOK, ""), "key": key, "trained": trained}
        with open(Path(folder, FILE_NAME), "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def count_records(run_dir: Path, notebook: str) -> tuple[int, int]:
    """Return how many distinct records ``notebook`` found and how many it trained in this run."""
    notes = [note for note in _notes(run_dir / FILE_NAME) if note["notebook"] == notebook]
    asked = {note["key"] for note in notes}
    trained = {note["key"] for note in notes if note["trained"]}
    return len(asked - trained), len(trained)


def _notes(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what kernels noted; one that was killed may leave half a line, and the next one goes on in it."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)
