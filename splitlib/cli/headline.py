"""``headline``: the measured rows of the frontier beside the reported ones, printed, or written into a page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from splitlib import frontier
from splitlib.cli.command import Command
from splitlib.cli.settings import add_profile
from splitlib.cli.size_table import size_table
from splitlib.cli.split_table import split_text
from splitlib.errors import ConfigError
from splitlib.files import replace_section
from splitlib.profiles import get_profile
from splitlib.runtime import results_dir

SECTION, SPLIT_SECTION, SIZE_SECTION = "headline", "cpu-gpu", "sizes"


def add_headline_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``headline`` takes."""
    add_profile(parser, default="real")
    parser.add_argument(
        "--write",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="put them between marks <!-- NAME: begin --> and <!-- NAME: end -->, each into the file that has its own; "
        f"names are {SIZE_SECTION}, {SECTION} and {SPLIT_SECTION}",
    )


def run_headline(options: argparse.Namespace) -> None:
    """Print or write the tables."""
    for section, text in section_texts(options.profile).items():
        if not options.write:
            print(text, end="\n\n")
        elif text:
            page = marked_page(options.write, section)
            replace_section(page, section, text)
            print(f"wrote the section {section} of {page}")


def marked_page(pages: Sequence[Path], section: str) -> Path:
    """Return the first page that has a section's mark, else the first: writing there says what it lacks."""
    for page in pages:
        if page.exists() and f"<!-- {section}: begin -->" in page.read_text(encoding="utf-8"):
            return page
    return pages[0]


def section_texts(profile: str) -> dict[str, str]:
    """Return what stands between the marks of each section; nothing where nothing was measured."""
    return {SIZE_SECTION: size_table(profile), SECTION: headline_text(profile), SPLIT_SECTION: split_text()}


def headline_text(profile: str) -> str:
    """Return the tables of all tasks that have records at ``profile``; ConfigError if there are none."""
    found = {task: frontier.recorded(task, get_profile(profile)) for task in frontier.TASKS}
    texts = [frontier.markdown(task, runs, brief=True) for task, runs in found.items() if runs[frontier.NONE]]
    if not texts:
        raise ConfigError(
            f"no records of the frontier at profile {profile} in {results_dir()}; "
            f"python run_all.py --profile {profile} --only 11 makes them"
        )
    return "\n\n".join(texts)


HEADLINE = Command(
    name="headline",
    summary="bytes against accuracy, from records",
    description="""\
Print the headline tables: how large the runs are beside the documents'; from the records in results/, bytes against
accuracy on real data, and the time of a batch with a CPU as client and a GPU as server, measured and reported.

Nothing is trained. Of the frontier's rows those are shown that a document reports and those that answer how few bytes
lose nothing; notebook 11 has all. `make figures` writes the tables into README.md and results/README.md.
""",
    examples="""\
examples:
  python -m splitlib headline
  python -m splitlib headline --write README.md results/README.md
""",
    add_options=add_headline_options,
    run=run_headline,
)
