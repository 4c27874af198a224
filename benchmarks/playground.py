"""How long the playground takes from a control's change to the redrawn figure, where nothing new has to be measured.

    .venv/bin/python -m benchmarks.playground [--write]

Everything in the kernel counts: the wait for further changes, predictions, drawing, tables. What the browser does does
not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, cycle
from typing import Any

import torch

from benchmarks.measuring import machine, seconds, spread, write_section
from splitlib.playground.choice import Choice
from splitlib.playground.lab import SETTLE_SECONDS, Playground

GOAL = 0.3  # seconds
TASKS = ("cifar10", "cola")
VIEWS = (0, 1, 2, 3)  # those with a figure
SORT = {"level_bits": 6, "bin_bits": 2, "edges": "cube_root"}
PARTITIONS = {"cifar10": ("first_two_last_two", "first_last"), "cola": ("condition_2", "condition_1")}


@dataclass(frozen=True)
class Control:
    """A widget, the values it is moved to, one after the other, and the views that follow it."""

    name: str
    widget: Any
    values: Iterator[Any]
    views: tuple[int, ...] = VIEWS


def controls(lab: Playground, task: str) -> list[Control]:
    """Return what is moved.

    The link's controls take values never seen before, as they ask for predictions, not for measurements; all others go
    back and forth between two.
    """
    panel, at_the_cut, seen = lab.controls, lab.views[1], lab.views[2]
    own = [Control("cut", at_the_cut.cut, cycle((2, 1)), (1,)), Control("sample", seen.sample, cycle((1, 0)), (2,))]
    if task == "cifar10":
        own.append(Control("tensor", seen.tensor, cycle(("gradient 1", "activation 1")), (2,)))
        own.append(Control("channel", seen.channel, cycle((1, 0)), (2,)))
    return [
        Control("partition", panel.partition, cycle(PARTITIONS[task])),
        Control("batch size", panel.batch_size, cycle((16, 32))),
        Control("micro-batches", panel.chunks, cycle((2, 4))),
        Control("compressor", panel.activations.name, cycle(("uniform", "sort"))),
        Control("level bits", panel.activations["level_bits"], cycle((5, 6))),
        Control("bin bits", panel.activations["bin_bits"], cycle((3, 2))),
        Control("bin edges", panel.activations["edges"], cycle(("equal_count", "cube_root"))),
        Control("gradients' compressor", panel.gradients.name, cycle(("cast", "same"))),
        Control("link rate", panel.rate, count(50.1, 0.1)),
        Control("latency", panel.latency, count(10.1, 0.1)),
        *own,
    ]


def rows(task: str) -> Iterator[str]:
    """Yield a row of the table for each control: the time it takes with each view open, and the longest of them."""
    loop = asyncio.new_event_loop()
    lab = loop.run_until_complete(_shown(Choice(task=task, compressor="sort", options=SORT)))
    for control in controls(lab, task):
        taken = {view: _seconds(loop, lab, control, view) for view in control.views}
        longest = max(statistics.median(each) for each in taken.values()) / GOAL
        cells = [spread(taken[view]) if view in taken else "–" for view in VIEWS]
        met = "met" if longest <= 1 else "missed"
        yield f"| {task}: {control.name} | {' | '.join(cells)} | **{longest:.2f}x** (goal 1: {met}) |"
    loop.close()


async def _shown(choice: Choice) -> Playground:
    """Return a playground as the notebook shows it: it knows its event loop, and the first view is drawn."""
    lab = Playground(choice)
    with contextlib.redirect_stdout(io.StringIO()):
        lab.show()
    return lab


def _seconds(loop: asyncio.AbstractEventLoop, lab: Playground, control: Control, view: int) -> list[float]:
    """Return how long each of some moves of a control took with this view open; the first moves do not count."""

    async def redrawn() -> None:
        before = lab.views[view].canvas.draws
        control.widget.value = next(control.values)
        while lab.views[view].canvas.draws == before:
            await asyncio.sleep(0.001)  # drawing and what follows it is one step of the loop

    lab.tabs.selected_index = view
    return seconds(lambda: loop.run_until_complete(redrawn()))


def compare() -> str:
    """Measure everything; return the table in Markdown."""
    titles = [view.title for view in Playground(Choice()).views]
    wait = f"{1e3 * SETTLE_SECONDS:.0f} ms of each are the wait for further changes"
    return "\n".join(
        [
            machine(),
            f"Milliseconds are the median (and the middle half); {wait}.",
            "",
            f"| moved | {' | '.join(titles[view] for view in VIEWS)} | slowest / {1e3 * GOAL:.0f} ms |",
            "|---" * (len(VIEWS) + 2) + "|",
            *(row for task in TASKS for row in rows(task)),
        ]
    )


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table into benchmarks/README.md")
    parser.add_argument("--threads", type=int, default=2, help="of torch and the kernels (default 2)")
    parser.add_argument("--hub", help=argparse.SUPPRESS)  # `make bench` gives all benchmarks the same options
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = compare()
    if options.write:
        write_section("playground", table)
    print(table)


if __name__ == "__main__":
    main()
