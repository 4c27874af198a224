"""The papermill engine of the workbook: says which cell runs, outlives its kernel, and hands on Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from splitlib import tally
from splitlib.workbook.console import Console
from splitlib.workbook.studies import StudyNotebook

KERNEL_NAME = "python3"
STARTUP_SECONDS = 120  # a cold start on a busy machine
DEAD_KERNEL = "the kernel died in this cell: it was killed (out of memory?) or the code ended its own process"
INTERRUPTING = b"\ninterrupting: the cell may save its state; Ctrl-C again stops at once\n"
# Paths a user may give relative to where run_all.py was started; the kernel works in the notebooks' folder.
PATH_VARIABLES = ("SPLITLIB_HUB", "SPLITLIB_RESULTS", "SPLITLIB_FIGURES", "SPLITLIB_CHECKPOINTS", "SPLITLIB_IMAGES")


def kernel_environment(study: StudyNotebook, run_dir: Path) -> dict[str, str]:
    """Return the environment variables of a notebook's kernel.

    They say where the run's figures and records go, and make the kernel import the ``splitlib`` this file is part of.
    """
    root = str(Path(__file__).resolve().parents[2])
    env = dict(os.environ)
    env.update({name: os.path.abspath(os.path.expanduser(env[name])) for name in PATH_VARIABLES if env.get(name)})
    env.pop("MPLBACKEND", None)  # the kernel's own, which puts figures into the notebook
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (root, env.get("PYTHONPATH"))))
    env["SPLITLIB_PROGRESS"] = "log"
    env[tally.RUN_DIR] = str(run_dir)
    env[tally.NOTEBOOK] = study.name
    return env


class WorkbookEngine(NBClientEngine):  # type: ignore[misc]  # papermill has no types
    """Papermill's own engine, which also says where it is and survives a dead kernel."""

    NAME = "splitlib"

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, console: Console, study: StudyNotebook, env: dict[str, str], **_: Any
    ) -> None:
        """Run the notebook in a kernel of this interpreter with the environment ``env``."""
        manager = _own_kernel()
        client = PapermillNotebookClient(
            nb_man,
            km=manager,
            startup_timeout=STARTUP_SECONDS,
            stdout_file=console,
            stderr_file=console,
            # Stopping a kernel starts with a SIGINT, which it now and then reports as an error.
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        )
        with _interrupts_for_the_cell(manager) as interrupted:
            _announce_cells(nb_man, study, console, interrupted)
            try:
                client.execute(env=env, cleanup_kc=True)
            except DeadKernelError:
                _note_dead_kernel(nb_man)


papermill_engines.register(WorkbookEngine.NAME, WorkbookEngine)


@contextlib.contextmanager
def _interrupts_for_the_cell(manager: AsyncKernelManager) -> Iterator[threading.Event]:
    """Hand the first Ctrl-C to the running cell, which may save its state, and raise it here once the cell has ended.

    A second Ctrl-C is raised at once. The event yielded is set from the first one on.
    """
    interrupted = threading.Event()

    def hand_on(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupted.set()
        os.write(2, INTERRUPTING)  # print() may be in the middle of a line, and not enter twice
        provisioner: Any = manager.provisioner  # of a local process: has a process group
        if provisioner is not None and provisioner.has_process:
            os.killpg(provisioner.pgid, signal.SIGINT)

    before = signal.signal(signal.SIGINT, hand_on)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
        if interrupted.is_set():
            raise KeyboardInterrupt  # whatever else the interruption led to


def _own_kernel() -> AsyncKernelManager:
    """Return the manager of a kernel of the running interpreter.

    Without folders to search, the only specification left is ipykernel's own: a ``python3`` that some other Python
    registered for this user cannot win.
    """
    return AsyncKernelManager(
        kernel_name=KERNEL_NAME,
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
        transport_encryption="auto",  # other users of this machine could listen otherwise
    )


def _announce_cells(nb_man: Any, study: StudyNotebook, console: Console, interrupted: threading.Event) -> None:
    """Show each code cell as it starts, counted as the notebook counts them, under its nearest heading."""
    start, began = nb_man.cell_start, time.monotonic()
    code_cells = [index for index, cell in enumerate(nb_man.nb.cells) if cell.cell_type == "code"]

    def announce(cell: Any, cell_index: int, **kwargs: Any) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt  # the cell before took it for its own
        if cell_index in code_cells:
            heading = nearest_heading(nb_man.nb.cells[:cell_index])
            number = code_cells.index(cell_index) + 1
            console.status(f"{study.name}  cell {number}/{len(code_cells)}  {heading}", began)
        start(cell, cell_index, **kwargs)

    nb_man.cell_start = announce


def nearest_heading(cells: Sequence[Any]) -> str:
    """Return the text of the last Markdown heading in ``cells``, or nothing."""
    for cell in reversed(cells):
        headings = [line for line in cell.source.splitlines() if line.startswith("#")]
        if cell.cell_type == "markdown" and headings:
            return str(headings[-1].lstrip("# ").strip())
    return ""


def _note_dead_kernel(nb_man: Any) -> None:
    """Write into the last cell that started why the notebook stops there."""
    started = [c for c in nb_man.nb.cells if c.cell_type == "code" and c.metadata.papermill["start_time"]]
    cell = started[-1]
    cell.outputs.append(
        nbformat.v4.new_output("error", ename="DeadKernelError", evalue=DEAD_KERNEL, traceback=[DEAD_KERNEL])
    )
    nb_man.cell_exception(cell)
