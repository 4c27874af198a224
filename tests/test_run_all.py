"""``run_all.py`` on small notebooks made here: good ones, broken ones, and ones whose kernel or disk gives up."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

import run_all
from splitlib.data import resolve_hub
from splitlib.runtime import results_dir
from splitlib.tally import FILE_NAME, RECORDED, count_records, note_record
from splitlib.workbook.console import Console
from splitlib.workbook.engine import kernel_environment, nearest_heading
from splitlib.workbook.execution import Outcome, _images
from splitlib.workbook.page import point_latest
from splitlib.workbook.studies import read_studies, select

ROOT = Path(run_all.__file__).parent
STANDARD = """\
profile: str = "quick"  # how large
data: str = ""  # which data
hub: str = ""  # local mirror
fresh: bool = False  # train again
"""
FIGURE = """\
import os
from pathlib import Path
import matplotlib.pyplot as plt
plt.plot([1, 2])
plt.savefig(Path(os.environ["SPLITLIB_RUN_DIR"], "figures", "01_line.png"))"""
NOTE_RECORDS = """\
from splitlib.tally import note_record
note_record("first", trained=True)
note_record("second", trained=False)
note_record("third", trained=False)"""


def write_notebook(folder: Path, name: str, *sources: str, parameters: str = "") -> None:
    """Write a study whose cells have these sources, each under a heading of its own."""
    new = nbformat.v4
    cells = [
        new.new_markdown_cell(f"# {name[:2]} Study {name}\n\n**Question.** Does it run\nat all? It should."),
        new.new_code_cell(STANDARD + parameters, metadata={"tags": ["parameters"]}),
    ]
    for number, source in enumerate(sources, start=1):
        cells += [new.new_markdown_cell(f"## Step {number}"), new.new_code_cell(source)]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new.new_notebook(cells=cells, metadata={"kernelspec": spec}), folder / f"{name}.ipynb")


@dataclass
class Run:
    """What a run printed, returned and wrote."""

    code: int
    output: str
    folder: Path

    @property
    def index(self) -> str:
        return (self.folder / "index.html").read_text()

    def notebook(self, name: str) -> nbformat.NotebookNode:
        return nbformat.read(self.folder / f"{name}.ipynb", as_version=4)


def run(folder: Path, *options: str) -> Run:
    """Run the notebooks of ``folder`` in this process."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = run_all.main(["--notebooks", str(folder), "--runs", str(folder / "runs"), *options])
    return Run(code=code, output=output.getvalue(), folder=(folder / "runs" / "latest").resolve())


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run of two good notebooks and three broken ones, with another Python's kernel registered as ``python3``."""
    folder = tmp_path_factory.mktemp("mixed")
    own = "epochs: int = 2  # passes over the data\nlr: float = 1.0  # step size\n"
    show = (
        "import os, sys\nprint(sys.executable)\nprint(os.getcwd())\nprint(epochs, lr, profile, data, fresh, repr(hub))"
    )
    write_notebook(folder, "01_good", show, FIGURE, NOTE_RECORDS, parameters=own)
    write_notebook(folder, "02_raises", "before = 1\nraise ValueError('no <good>')", "print('never')")
    write_notebook(folder, "03_exits", "import os, time\nprint('last words', flush=True)\ntime.sleep(1)\nos._exit(3)")
    write_notebook(folder, "04_killed", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    write_notebook(
        folder, "05_still_runs", "import splitlib\nprint(splitlib.__file__)", parameters="epochs: float = 1  # n\n"
    )
    foreign = folder / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    foreign.joinpath("kernel.json").write_text(
        '{"argv": ["/bin/false"], "display_name": "other", "language": "python"}'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
        patch.setenv("MPLBACKEND", "no_such_backend")
        yield run(
            folder, "--data", "real", "--hub", str(folder), "--fresh", "--param", "epochs=7", "--param", "lr=1e-3"
        )


def test_exit_code_and_last_lines_name_what_failed(mixed: Run) -> None:
    assert mixed.code == 1
    done, failed, index = mixed.output.splitlines()[-3:]
    assert done == "done: 01_good, 05_still_runs"
    assert failed == "failed: 02_raises, 03_exits, 04_killed"
    assert index == str(mixed.folder / "index.html")


def test_says_which_notebook_and_cell_it_is_in(mixed: Run) -> None:
    lines = [re.sub(r"\d+ s", "N s", line) for line in mixed.output.splitlines()]
    assert "01_good  cell 3/5  Step 1  (N s)" in lines
    assert "01_good  cell 5/5  Step 3  (N s)" in lines
    assert lines.count("02_raises  cell 3/4  Step 1  (N s)") == 1  # one line a cell, however long it takes


def test_options_and_parameters_reach_the_notebooks_that_have_them(mixed: Run) -> None:
    assert f"    7 0.001 quick real True {str(mixed.folder.parents[1])!r}\n" in mixed.output
    assert "--param lr goes to 01_good, not to 02_raises, 03_exits, 04_killed, 05_still_runs\n" in mixed.output
    injected = [c for c in mixed.notebook("05_still_runs").cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert "epochs = 7.0" in injected[0].source
    assert "lr" not in injected[0].source


def test_kernel_is_the_running_interpreter_whatever_is_registered(mixed: Run) -> None:
    assert f"    {sys.executable}\n    {mixed.folder.parents[1]}\n" in mixed.output


def test_notebooks_import_the_splitlib_beside_run_all(mixed: Run) -> None:
    assert f"    {ROOT / 'splitlib' / '__init__.py'}\n" in mixed.output


def test_failure_shows_cell_and_traceback_without_colour_codes(mixed: Run) -> None:
    report = mixed.output.split("02_raises  FAILED", 1)[1].split("03_exits", 1)[0]
    assert "    02_raises  cell 3/4  Step 1\n    | before = 1\n    | raise ValueError('no <good>')\n" in report
    assert "    ValueError: no <good>\n" in report
    assert "\x1b" not in mixed.output
    assert "never" not in mixed.output


def test_dead_kernel_is_a_failure_of_its_cell(mixed: Run) -> None:
    report = mixed.output.split("03_exits  FAILED", 1)[1]
    assert "    | os._exit(3)\n    the kernel died in this cell" in report
    assert "    last words\n" in mixed.output
    for name in ("03_exits", "04_killed"):
        outputs = [output for cell in mixed.notebook(name).cells for output in cell.get("outputs", [])]
        assert outputs[-1].ename == "DeadKernelError"
        assert "the kernel died" in (mixed.folder / f"{name}.html").read_text()


def test_html_hides_no_code(mixed: Run) -> None:
    page = (mixed.folder / "01_good.html").read_text()
    assert "note_record" in page
    assert "data:image/png;base64" in page


def test_index_links_every_notebook_and_figure(mixed: Run) -> None:
    assert (mixed.folder / "figures" / "01_line.png").exists()
    assert '<a href="01_good.html"><img src="figures/01_line.png"' in mixed.index
    links = re.findall(r'(?:href|src)="([^"]+)"', mixed.index)
    names = ("01_good", "02_raises", "03_exits", "04_killed", "05_still_runs")
    assert {f"{name}.html" for name in names} <= set(links)
    assert all((mixed.folder / link).exists() for link in links)
    assert "ValueError: no &lt;good&gt;" in mixed.index


def test_index_counts_records(mixed: Run) -> None:
    row = mixed.index.split(">01 Study", 1)[1].split("<tr>", 1)[0]
    assert '<td class="number">2<td class="number">1\n' in row
    assert "1 figures, records: 2 found, 1 trained" in mixed.output


def test_nothing_half_written_is_left(mixed: Run) -> None:
    left = sorted(path.name for path in mixed.folder.iterdir())
    names = ("01_good", "02_raises", "03_exits", "04_killed", "05_still_runs")
    pages = [f"{name}.{ending}" for name in names for ending in ("html", "ipynb")]
    assert left == sorted([*pages, "figures", "index.html", "records.jsonl"])


def test_the_example_in_the_help_names_a_parameter_that_is_there() -> None:
    (line,) = (line for line in str(run_all.__doc__).splitlines() if "--param" in line)
    words = shlex.split(line)
    number, parameter = words[words.index("--only") + 1], words[words.index("--param") + 1].partition("=")[0]
    (study,) = (study for study in read_studies(ROOT / "notebooks") if study.number == number)
    assert parameter in study.parameters


def test_list_shows_questions_and_parameters(tmp_path: Path) -> None:
    write_notebook(tmp_path, "07_study", parameters="epochs: int = 2  # passes over the data\n")
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert run_all.main(["--notebooks", str(tmp_path), "--runs", str(tmp_path / "runs"), "--list"]) == 0
    assert output.getvalue().splitlines() == [
        "07  Study 07_study",
        "    Does it run at all?",
        "    --param epochs=2  (int) passes over the data",
    ]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "01", "09"], "there is no notebook 09; choose from 01, 02"),
        (["--only", "first"], "there is no notebook first; choose from 01, 02"),
        (["--profile", "huge"], "invalid choice: 'huge'"),
        (["--prof", "quick"], "unrecognized arguments"),
        (["--data", "fake"], "invalid choice: 'fake'"),
        (["--hub", "nowhere"], "no hub mirror at nowhere; set --hub or SPLITLIB_HUB"),
        (
            ["--param", "epoch=2"],
            "no selected notebook has a parameter 'epoch'; 01_a has epochs, fast, seeds; 02_b has none",
        ),
        (["--only", "02", "--param", "epochs=2"], "no selected notebook has a parameter 'epochs'; 02_b has none"),
        (["--param", "epochs=abc"], "parameter 'epochs' is of type int (default 2), not 'abc'"),
        (["--param", "epochs=2.5"], "parameter 'epochs' is of type int (default 2), not '2.5'"),
        (["--param", "seeds=-1"], "parameter 'seeds' must be at least 0, not -1"),
        (["--only", ","], "there is no notebook ''; choose from 01, 02"),
        (["--param", "fast=1"], "parameter 'fast' is of type bool (default False), not '1'"),
        (["--param", "epochs"], "--param takes name=value, not 'epochs'"),
        (["--param", "epochs=1", "--param", "epochs=2"], "--param epochs is given twice"),
        (["--param", "profile=real"], "parameter 'profile' has an option of its own: --profile"),
    ],
)
def test_wrong_input_is_one_line_and_starts_nothing(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_notebook(tmp_path, "01_a", parameters="epochs: int = 2  # n\nfast: bool = False  # y\nseeds: int = 0  # n\n")
    write_notebook(tmp_path, "02_b")
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, *options)
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.err.startswith("run_all.py: error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("notes.ipynb", "{}", "no notebooks named NN_name.ipynb"),
        ("01_cut.ipynb", '{"cells": [', "cannot read the notebook"),
        ("01_bare.ipynb", '{"cells": [], "metadata": {"kernelspec": {"name": "python3", "language": "python"}}, '
         '"nbformat": 4, "nbformat_minor": 5}', "01_bare.ipynb needs profile: str"),
    ],
)  # fmt: skip
def test_a_folder_without_studies_is_one_line(
    file: str, content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_gallery_of_nothing_is_not_up_to_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLITLIB_FIGURES", str(tmp_path / "figures"))
    with pytest.raises(SystemExit, match="2"):
        run_all.main(["--gallery"])
    assert f"{tmp_path / 'figures'} has no figures to show" in capsys.readouterr().err


def test_hub_from_the_environment_is_checked_before_a_run_on_real_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_notebook(tmp_path, "01_a")
    monkeypatch.setenv("SPLITLIB_HUB", str(tmp_path / "gone"))
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, "--profile", "real")
    assert f"no hub mirror at {tmp_path / 'gone'}" in capsys.readouterr().err


def test_runs_folder_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_notebook(tmp_path, "01_a")
    (tmp_path / "runs").write_text("a file stands where the folder should be")
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path)
    assert re.fullmatch(r"run_all.py: error: cannot write to the runs folder .*\n", capsys.readouterr().err)


# Files may grow to 2 MB and no further: like a full disk, it makes write() fail in the middle.
LIMITED = """\
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
import run_all
sys.exit(run_all.main(sys.argv[1:]))"""


def test_full_disk_fails_its_notebook_and_the_others_run(tmp_path: Path) -> None:
    write_notebook(tmp_path, "01_too_large", "print('x' * 3_000_000)")
    write_notebook(tmp_path, "02_page_too_large", "print('x' * 1_900_000)")
    write_notebook(tmp_path, "03_small", "print('fits')")
    options = ["--notebooks", str(tmp_path), "--runs", str(tmp_path / "runs")]
    done = subprocess.run([sys.executable, "-c", LIMITED, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"cannot finish .*01_too_large\.ipynb: File too large", done.stdout)
    assert re.search(r"cannot write .*02_page_too_large\.html: File too large", done.stdout)
    assert "done: 03_small\nfailed: 01_too_large, 02_page_too_large\n" in done.stdout
    written = {path.name for path in (tmp_path / "runs" / "latest").iterdir()}
    assert written == {"02_page_too_large.ipynb", "03_small.ipynb", "03_small.html", "index.html", "figures"}


SAVES_WHEN_INTERRUPTED = """\
import os, time
from pathlib import Path
try:
    print("kernel", os.getpid(), flush=True)
    time.sleep(60)
finally:
    time.sleep(1)
    Path(os.environ["SPLITLIB_RUN_DIR"], "state").write_text("saved")"""


def test_interrupt_lets_the_cell_save_and_says_how_to_go_on(tmp_path: Path) -> None:
    write_notebook(tmp_path, "01_long", SAVES_WHEN_INTERRUPTED, "print('never')")
    write_notebook(tmp_path, "02_next", "print('never')")
    command = [sys.executable, "run_all.py", "--notebooks", str(tmp_path), "--runs", str(tmp_path / "runs")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        # arrives while the cell is still running: output is passed on as it comes
        kernel = next(int(line.split()[1]) for line in process.stdout if line.startswith("    kernel "))
        process.send_signal(signal.SIGINT)
        output = process.stdout.read()
    assert process.returncode == 130
    assert "never" not in output
    assert "interrupted: 01_long\nnot run: 02_next\n" in output
    assert "--only 01 02\n" in output
    assert "Traceback" not in output
    (stopped,) = (tmp_path / "runs").iterdir()
    assert stopped.name != "latest", "none is finished"
    assert (stopped / "state").read_text() == "saved"
    assert "interrupted" in (stopped / "index.html").read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(kernel, 0)


@pytest.mark.parametrize(
    ("fresh", "how"), [(False, "again, or add"), (True, "without --fresh, which starts over, or add")]
)
def test_whoever_stops_a_fresh_run_is_not_told_to_start_over(fresh: bool, how: str, tmp_path: Path) -> None:
    write_notebook(tmp_path, "01_a")
    outcomes = [Outcome(study=study) for study in read_studies(tmp_path)]
    said, _ = run_all._finish(outcomes, tmp_path, fresh=fresh, subtitle="s", command="c")[-2:]
    assert said == f"finished runs are recorded: give the same command {how} --only 01"


def test_ctrl_c_while_importing_is_one_line(interruptible: None) -> None:
    command, said = [sys.executable, "-X", "importtime", "run_all.py", "--list"], []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if not line.startswith("import time:"):
                said.append(line)
            elif line.split()[-1] == "splitlib.errors":
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert "".join(said) == "\nrun_all.py: stopped\n"


def test_notebooks_are_chosen_by_number_or_name(tmp_path: Path) -> None:
    for name in ("07_a", "08_b", "09_c"):
        write_notebook(tmp_path, name)
    for asked in (["07,08"], ["7,", "08"], ["07_a", "08_b"], ["08_b,7"]):
        assert [study.name for study in select(read_studies(tmp_path), asked)] == ["07_a", "08_b"]


def test_terminal_has_one_line_that_updates() -> None:
    master, slave = os.openpty()
    shown = ""
    with open(slave, "w") as terminal, Console(terminal) as console:
        console.status("01_cola  cell 1/2  Imports", time.monotonic() - 5)
        console.write("half ")
        console.write("a line\n")
        console.status("01_cola  cell 2/2  Train", time.monotonic() - 7)
        console.line("01_cola  done")
        while not re.search(r"Train  \((?!7 )\d+ s\)", shown):  # the clock ticks by itself
            shown += os.read(master, 10_000).decode().replace("\r\n", "\n")
    shown += os.read(master, 10_000).decode()
    os.close(master)
    assert re.search(r"\r\x1b\[K01_cola  cell 1/2  Imports  \(\d s\)\r\x1b\[K    half a line\n", shown)
    assert shown.count("\n") == 2  # the printed line and the result; the status leaves none
    assert shown.endswith("\r\x1b[K")


def test_log_keeps_the_last_state_of_a_bar_that_redraws_itself() -> None:
    log = io.StringIO()
    with Console(log) as console:
        console.write("\r 10%\r 50%")
        console.write("\r100%\n\x1b[31mred\x1b[0m")
    assert log.getvalue() == "    100%\n    red\n"


def test_nearest_heading_is_the_last_one_above() -> None:
    markdown = nbformat.v4.new_markdown_cell
    cells = [markdown("# Title\n\n## Method\ntext"), nbformat.v4.new_code_cell("# no heading"), markdown("plain")]
    assert nearest_heading(cells) == "Method"
    assert nearest_heading([]) == ""


def test_an_svg_beside_its_png_is_the_same_figure(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    for name in ("01_a.png", "01_a.svg", "01_b.svg", "01_c.txt"):
        (tmp_path / "figures" / name).touch()
    assert {path.name for path in _images(tmp_path)} == {"01_a.png", "01_b.svg"}


def test_records_cut_off_by_a_killed_kernel_are_ignored(tmp_path: Path) -> None:
    whole = '{"notebook": "01_a", "key": "k", "trained": true}\n'
    (tmp_path / FILE_NAME).write_text(whole + whole.replace("01_a", "02_b") + '{"notebook": "01_a", "ke')
    assert count_records(tmp_path, "01_a") == (0, 1)


def test_records_are_noted_only_inside_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPLITLIB_RUN_DIR", raising=False)
    note_record("k", trained=True)
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("SPLITLIB_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("SPLITLIB_NOTEBOOK", "01_a")
    note_record("k", trained=True)
    note_record("k", trained=False)  # found again by a later cell: still one record, and trained
    assert count_records(tmp_path, "01_a") == (0, 1)


def test_latest_leads_to_the_newest_run(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        point_latest(tmp_path / name)
    assert (tmp_path / "latest").resolve() == tmp_path / "second"


def test_latest_is_a_plain_file_where_links_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no links on this drive")

    monkeypatch.setattr(os, "symlink", refuse)
    point_latest(tmp_path / "first")
    assert (tmp_path / "latest").read_text() == "first\n"


def test_relative_paths_reach_the_kernel_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_notebook(tmp_path, "01_a")
    (study,) = read_studies(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = [f"SPLITLIB_{name}" for name in ("HUB", "RESULTS", "FIGURES", "CHECKPOINTS", "IMAGES")]
    for name in names:
        monkeypatch.setenv(name, "somewhere")
    env = kernel_environment(study, tmp_path)
    assert {env[name] for name in names} == {str(tmp_path / "somewhere")}


def test_a_folder_in_ones_home_is_that_of_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``SPLITLIB_HUB='~/mirror'`` from a file of variables, which no shell expands, was no folder here alone."""
    write_notebook(tmp_path, "01_a")
    (study,) = read_studies(tmp_path)
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SPLITLIB_HUB", "~/mirror")
    monkeypatch.setenv("SPLITLIB_RESULTS", "~/results")
    values = run_all._standard_values(run_all._parser().parse_args(["--profile", "real"]))
    assert values["hub"] == str(resolve_hub()) == str(tmp_path / "mirror")
    env = kernel_environment(study, tmp_path)
    assert env["SPLITLIB_HUB"] == values["hub"] and env["SPLITLIB_RESULTS"] == str(results_dir())


def test_recorded_reaches_the_kernels_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RECORDED, raising=False)
    show = "from splitlib import notebook\nprint(notebook.start('01_one', profile='smoke').recorded)"
    write_notebook(tmp_path, "01_one", show)
    for options, said in (((), "False"), (("--recorded",), "True")):
        cells = run(tmp_path, *options).notebook("01_one").cells
        assert said in "".join(out.get("text", "") for cell in cells for out in cell.get("outputs", []))
    assert RECORDED not in os.environ


def test_fresh_and_recorded_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_all.main(["--fresh", "--recorded"])
    assert "--fresh trains again and --recorded trains nothing" in capsys.readouterr().err
