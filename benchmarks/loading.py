"""Loading an epoch of images: resident and augmented by the batch, beside decoded and augmented one by one.

``python -m benchmarks.loading --hub path/to/mirror`` prints a line for each size; without a mirror it takes the
embedded digits. Both are measured in one run on the same samples, in turn, without a worker process; ``--device cuda``
augments on a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from pathlib import Path

import torch

from benchmarks.measuring import machine
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
    """Return both speeds and their ratio, in words."""
    source = "real" if hub else "embedded"
    base = RunConfig(task="cifar10", data=source, image_size=image_size, batch_size=BATCH, eval_samples=BATCH)
    each = load_task(base, hub=hub)
    resident = load_task(base.replace(images="resident"), hub=hub, device=device)
    found: list[tuple[float, float]] = []
    for epoch in range(ROUNDS + 1):  # the first warms up
        found.append((seconds_per_image(each, epoch, 15), seconds_per_image(resident, epoch, 150)))
    slow, fast = (statistics.median(column) for column in zip(*found[1:], strict=True))
    return (
        f"{each.label}, {image_size} px: {1 / slow:,.0f} images/s one by one, {1 / fast:,.0f} resident on {device}: "
        f"**{slow / fast:.1f}x**"
    )


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=[64], metavar="PX")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    parser.add_argument("--device", default="cpu", help="where images are resident (default cpu)")
    parser.add_argument("--hub", default=os.environ.get("SPLITLIB_HUB"), help="mirror of real data")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    hub, device = Path(arguments.hub) if arguments.hub else None, pick_device(arguments.device)
    print("\n".join([machine(), *(compare(size, hub=hub, device=device) for size in arguments.sizes)]))


if __name__ == "__main__":
    main()
