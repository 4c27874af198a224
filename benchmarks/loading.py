"""Loading an epoch of images: resident and augmented by the batch, beside decoded and augmented one by one.

``python -m benchmarks.loading --hub path/to/mirror`` prints a table with a row for each size; ``--write`` puts it into
benchmarks/README.md. Without a mirror it takes the embedded digits. Both are measured in one run on the same samples,
in turn, without a worker process; ``--device cuda`` augments on a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from pathlib import Path

import torch

from benchmarks.measuring import machine, write_section
from splitlib.config import RunConfig
from splitlib.data import TaskData, load_task, train_batches
from splitlib.runtime import pick_device, synchronize

BATCH = 64
ROUNDS = 5


def seconds_per_image(data: TaskData, epoch: int, batches: int) -> float:
    """Load some batches of an epoch, as training would; the whole epoch's draws are part of it."""
    count = min(batches, len(train_batches(data, batch_size=BATCH, seed=0, epoch=epoch)))
    synchronize()
    start = time.perf_counter()
    for _ in itertools.islice(train_batches(data, batch_size=BATCH, seed=0, epoch=epoch), count):
        pass
    synchronize()
    return (time.perf_counter() - start) / (count * BATCH)


def compare(image_size: int, *, hub: Path | None, device: torch.device) -> str:
    """Return both speeds and their ratio, a round's and its spread, as a line of a Markdown table."""
    source = "real" if hub else "embedded"
    base = RunConfig(task="cifar10", data=source, image_size=image_size, batch_size=BATCH, eval_samples=BATCH)
    each = load_task(base, hub=hub)
    resident = load_task(base.replace(images="resident"), hub=hub, device=device)
    found: list[tuple[float, float]] = []
    for epoch in range(ROUNDS + 1):  # the first warms up
        found.append((seconds_per_image(each, epoch, 15), seconds_per_image(resident, epoch, 60)))
    slow, fast = zip(*found[1:], strict=True)
    ratios = [one / other for one, other in found[1:]]
    speeds = (f"{1 / statistics.median(taken):,.0f}" for taken in (slow, fast))
    ratio = f"**{statistics.median(ratios):.1f}x** ({min(ratios):.1f}–{max(ratios):.1f})"
    return "| " + " | ".join([each.label, f"{image_size} px", *speeds, ratio]) + " |"


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 64, 224], metavar="PX")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    parser.add_argument("--device", default="cpu", help="where images are resident (default cpu)")
    parser.add_argument("--hub", default=os.environ.get("SPLITLIB_HUB"), help="mirror of real data")
    parser.add_argument("--write", action="store_true", help="write the table into benchmarks/README.md")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    hub, device = Path(arguments.hub) if arguments.hub else None, pick_device(arguments.device)
    rows = [compare(size, hub=hub, device=device) for size in arguments.sizes]
    head = (
        f"{machine()} Batches of {BATCH} images, resident on {device}; medians of {ROUNDS} rounds, and the range.\n\n"
        "| images | size | one by one, images/s | resident, images/s | ratio |\n|---|---|---|---|---|"
    )
    table = "\n".join([head, *rows])
    print(table)
    if arguments.write:
        write_section("loading", table)


if __name__ == "__main__":
    main()
