"""Execute the workbook: every notebook, headlessly, with one index page of what came out.

    python run_all.py                                # everything, profile quick, embedded data
    python run_all.py --list                         # notebooks, their questions and parameters
    python run_all.py --only 01 --profile real --hub path/to/mirror --param seeds=3

The executed notebooks, their HTML pages and index.html go to runs/<date_time>/; runs/latest leads to the newest
in which a notebook finished.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shlex
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from splitlib.ending import ending_at_once, ending_unread

with ending_at_once("run_all.py"):
    from splitlib.data import resolve_hub
    from splitlib.errors import ConfigError, SplitlibError
    from splitlib.profiles import PROFILES, get_profile
    from splitlib.tally import PUBLISHING, RECORDED
    from splitlib.workbook.console import INDENT, Console
    from splitlib.workbook.execution import STATUSES, Outcome, run_study
    from splitlib.workbook.findings import PUBLISHED_WITH, findings_folder, why_unpublished, write_findings
    from splitlib.workbook.gallery import PAGE, figures_folder, write_gallery
    from splitlib.workbook.page import point_latest, write_index
    from splitlib.workbook.studies import STANDARD_PARAMETERS, StudyNotebook, assign, read_studies, select

ROOT = Path(__file__).resolve().parent
INTERRUPTED = 130  # what a shell reports after Ctrl-C


class _Parser(argparse.ArgumentParser):
    """Answers a wrong option with one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="run_all.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    profiles = "; ".join(f"{profile.name}: {profile.summary}" for profile in PROFILES.values())
    parser.add_argument("--profile", choices=PROFILES, default="quick", help=f"{profiles} (default quick)")
    parser.add_argument(
        "--only", nargs="+", metavar="NN", help="numbers or names of the notebooks to run (default: all)"
    )
    parser.add_argument("--data", choices=("embedded", "real"), help="which data (default: the profile's)")
    parser.add_argument(
        "--hub", type=Path, metavar="PATH", help="a local mirror of the hub (default: $SPLITLIB_HUB, else the hub)"
    )
    parser.add_argument(
        "--param", action="append", default=[], metavar="NAME=VALUE", help="set a notebook's parameter; repeatable"
    )
    parser.add_argument("--fresh", action="store_true", help="train again although records exist")
    parser.add_argument(
        "--recorded",
        action="store_true",
        help="show what has a record, train and time nothing; with profile real and without --param, write figures/ "
        "and the page of what each notebook found, beside the records",
    )
    parser.add_argument("--list", action="store_true", help="show the notebooks and their parameters, run nothing")
    parser.add_argument("--gallery", action="store_true", help="write the page that shows figures/, run nothing")
    parser.add_argument(
        "--notebooks", type=Path, default=ROOT / "notebooks", help="folder to read (default: %(default)s)"
    )
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="folder to write (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the workbook; return 0, 1 if a notebook failed, or 130 after Ctrl-C. Wrong input exits with 2."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = _parser()
    args = parser.parse_args(argv)
    if args.fresh and args.recorded:
        parser.error("--fresh trains again and --recorded trains nothing: give one of them")
    try:
        every = read_studies(args.notebooks.resolve())
        studies = select(every, args.only)
        own_values = assign(studies, args.param)
        if args.list:
            print("\n".join(_describe(study) for study in studies))
            return 0
        if args.gallery:
            page = figures_folder(ROOT) / PAGE
            written = _write_gallery(args, every)
            if not page.exists():
                raise ConfigError(f"{page.parent} has no figures to show; run a notebook, or set $SPLITLIB_FIGURES")
            print(written or f"{page} is up to date")
            return 0
        standard, published = _standard_values(args), _published_with(args, studies)
        values = {name: {**standard, **published[name], **own} for name, own in own_values.items()}
        run_dir = _make_run_dir(args.runs.resolve())
    except SplitlibError as error:
        parser.error(str(error))
    outcomes = [Outcome(study=study) for study in studies]
    subtitle = f"profile {args.profile}, {_data(args)} data"
    command = shlex.join(["python", "run_all.py", *argv])
    unpublished = _why_unpublished(args, own_values)
    with Console(sys.stdout) as console:
        console.line(f"{len(studies)} notebooks, {subtitle}")
        for line in _where_parameters_go(studies, values):
            console.line(line)
        with _inherited(RECORDED, str(int(args.recorded))), _inherited(PUBLISHING, str(int(not unpublished))):
            code = _run(outcomes, values, run_dir, console)
        try:
            lines = _finish(outcomes, run_dir, fresh=args.fresh, subtitle=subtitle, command=command)
            console.line("\n".join([*_notes(args, outcomes, unpublished), *lines]))
            _write_gallery(args, every)
            for page in [] if unpublished else _write_findings(outcomes, run_dir):
                console.line(f"wrote {page}")
        except OSError as error:
            console.line(f"run_all.py: error: cannot write to {run_dir}: {error.strerror}")
            return code or 1
    return code


def _describe(study: StudyNotebook) -> str:
    lines = [f"{study.number}  {study.title}", f"    {study.question}"]
    lines += [f"    --param {p.name}={p.default}  ({p.type}) {p.help}" for p in study.own_parameters]
    return "\n".join(lines)


def _standard_values(args: argparse.Namespace) -> dict[str, Any]:
    """The parameters that every notebook has, with the hub checked before anything runs."""
    hub = resolve_hub(args.hub) if args.hub or _data(args) == "real" else None
    return {
        "profile": args.profile,
        "data": args.data or "",
        "hub": str(hub.resolve()) if hub else "",
        "fresh": args.fresh,
    }


def _data(args: argparse.Namespace) -> str:
    return args.data or get_profile(args.profile).data


def _make_run_dir(runs: Path) -> Path:
    """Create ``runs/<date_time>/``, numbered if several start in the same second."""
    stamp = time.strftime("%Y-%m-%d_%H%M%S")
    suffixes = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
    run_dir = next(path for suffix in suffixes if not (path := runs / f"{stamp}{suffix}").exists())
    try:
        (run_dir / "figures").mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"cannot write to the runs folder {runs}: {error.strerror}") from error
    return run_dir


@contextlib.contextmanager
def _inherited(name: str, value: str) -> Iterator[None]:
    """Have every kernel that starts in the block find the environment variable."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _run(outcomes: Sequence[Outcome], values: Mapping[str, Mapping[str, Any]], run_dir: Path, console: Console) -> int:
    """Run one notebook after the other, whatever becomes of the ones before, and return the exit code."""
    try:
        for outcome in outcomes:
            run_study(outcome, values[outcome.study.name], run_dir, console)
            console.line(_summary(outcome))
    except KeyboardInterrupt:
        return INTERRUPTED
    return int(any(outcome.status != "done" for outcome in outcomes))


def _summary(outcome: Outcome) -> str:
    """One line for a notebook that is done; the failing cell and its traceback for one that is not."""
    name, seconds = outcome.study.name, f"{outcome.seconds:.0f} s"
    if outcome.status == "failed":
        return f"{name}  FAILED after {seconds}\n{textwrap.indent(outcome.error, INDENT)}"
    records = f"{outcome.records_found} found, {outcome.records_trained} trained"
    return f"{name}  done in {seconds}: {len(outcome.figures)} figures, records: {records}"


def _where_parameters_go(studies: Sequence[StudyNotebook], values: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each own parameter that is set, with the notebooks that have none of its name."""
    for name in sorted(set().union(*values.values()) - set(STANDARD_PARAMETERS)):
        takers = [study.name for study in studies if name in study.parameters]
        others = [study.name for study in studies if name not in study.parameters]
        yield f"--param {name} goes to {', '.join(takers)}" + (f", not to {', '.join(others)}" if others else "")


def _write_gallery(args: argparse.Namespace, studies: Sequence[StudyNotebook]) -> Path | None:
    """Write the page of ``figures/`` if it changes; the notebooks of another folder draw none of these."""
    return write_gallery(figures_folder(ROOT), studies) if _own_notebooks(args) else None


def _own_notebooks(args: argparse.Namespace) -> bool:
    return bool(args.notebooks.resolve() == ROOT / "notebooks")


def _published_with(args: argparse.Namespace, studies: Sequence[StudyNotebook]) -> dict[str, dict[str, Any]]:
    """Return by study what the committed pages are made with, where the records of profile real are shown."""
    shown = PUBLISHED_WITH if args.recorded and (args.profile, _data(args)) == ("real", "real") else {}
    return {study.name: {name: v for name, v in shown.items() if name in study.parameters} for study in studies}


def _why_unpublished(args: argparse.Namespace, own_values: Mapping[str, Mapping[str, Any]]) -> str:
    """Return why the committed pages and figures stay as they are, or nothing if they are made anew."""
    if not _own_notebooks(args):
        return "they are of the project's own notebooks"
    asked = {name: value for own in own_values.values() for name, value in own.items()}
    return why_unpublished(recorded=args.recorded, profile=args.profile, data=_data(args), asked=asked)


def _notes(args: argparse.Namespace, outcomes: Sequence[Outcome], unpublished: str) -> Iterator[str]:
    """Yield what a reader of results on real data may not expect."""
    if _data(args) != "real" or not _own_notebooks(args):
        return
    if not args.recorded and any(outcome.records_found for outcome in outcomes):
        yield (
            "found records are of the data they name, whatever the hub is now: --fresh trains again, "
            "$SPLITLIB_RESULTS names another folder"
        )
    if unpublished:
        yield f"the committed figures and pages stay as they are: {unpublished}; the index page shows this run's"


def _write_findings(outcomes: Sequence[Outcome], run_dir: Path) -> list[Path]:
    """Write the page of each study that is done."""
    folder, figures = findings_folder(ROOT), figures_folder(ROOT)
    done = [outcome.study for outcome in outcomes if outcome.status == "done"]
    return [write_findings(folder, figures, study, run_dir / f"{study.name}.ipynb") for study in done]


def _finish(outcomes: Sequence[Outcome], run_dir: Path, *, fresh: bool, **header: str) -> list[str]:
    """Write the index page and return the last lines to print."""
    index = write_index(run_dir, outcomes, **header)
    if any(outcome.status == "done" for outcome in outcomes):
        point_latest(run_dir)
    lines = []
    for status in STATUSES:
        names = [outcome.study.name for outcome in outcomes if outcome.status == status]
        lines += [f"{status}: {', '.join(names)}"] if names else []
    rest = [outcome.study.number for outcome in outcomes if outcome.status in ("interrupted", "not run")]
    if rest:
        again = "without --fresh, which starts over" if fresh else "again"
        lines.append(f"finished runs are recorded: give the same command {again}, or add --only {' '.join(rest)}")
    return [*lines, str(index)]


if __name__ == "__main__":
    try:
        with ending_unread():
            status = main()
        sys.exit(status)
    except KeyboardInterrupt:  # before the first notebook
        print("\nrun_all.py: stopped", file=sys.stderr)
        sys.exit(INTERRUPTED)
