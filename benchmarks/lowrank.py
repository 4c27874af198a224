"""Power iteration's rounds on micro-batches in the order of training, none of which it has seen before.

``python -m benchmarks.lowrank`` prints the table; ``--write`` puts it into benchmarks/README.md. Nothing is timed, so
any machine gives it. Without a mirror of the hub the data is embedded and the models are small ones.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.compressors import against
from benchmarks.measuring import machine, run_on_mirror
from splitlib.capture import micro_batches_at_cuts
from splitlib.compressors import PowerIteration, decode, relative_error, spread
from splitlib.profiles import DOCUMENT_SETTINGS, get_profile

CASES: tuple[tuple[str, dict[str, object], tuple[int, int]], ...] = (
    ("cola", {"partition": "condition_1", "chunks": 4}, (4, 4)),
    ("cola", {"partition": "condition_1", "chunks": 4}, (8, 8)),
    ("cola", {"partition": "condition_3", "chunks": 4}, (8, 8)),
    ("cola", {"partition": "condition_3", "chunks": 4}, (16, 16)),
    ("cifar10", {"image_size": 224, "batch_size": 32, "chunks": 8}, (3, 7)),
)
"""Task, sizes, and the ranks at both cuts: 000's for images, 002's and those of notebook 07 for text."""
LEARNT, MEASURED = 8, 16
"""Micro-batches that only warm the codec up, and those whose errors are averaged."""
GOAL = 1.01  # of one warm round over two cold ones
EXACT = 1e-9  # the rank is all there is: what is left is float32's
WARM = (1, 2, 3)
SAID = f"""\
Squared error over the variance, mean of {MEASURED} micro-batches after {LEARNT} others, of a model before its first
step. *Best* is the truncated singular value decomposition's: no rounds come below it. *1 warm* is the default; *cold*
starts every micro-batch afresh, from the same random vectors."""
HEADS = [
    "| tensor | rank | best | 1 warm | 2 warm | 3 warm | 2 cold | 1 warm / 2 cold | 1 warm / 3 warm |",
    "|---|---|---|---|---|---|---|---|---|",
]


def rounds(micro_batches: list[Tensor], rank: int, iterations: int, *, warm: bool) -> float:
    """Return the mean error after so many ``iterations``; a codec that has no start takes one more."""
    codec, errors = PowerIteration(rank=rank, iterations=iterations), []
    for x in micro_batches:
        codec.state = codec.state if warm else None
        errors.append(relative_error(x, decode(codec.encode(x))))
    return statistics.mean(errors[LEARNT:])


def best(micro_batches: list[Tensor], rank: int) -> float:
    """Return the mean error of the truncated singular value decomposition."""
    left_out = [torch.linalg.svdvals(x.flatten(2).double())[:, rank:].square().sum() for x in micro_batches[LEARNT:]]
    pairs = zip(left_out, micro_batches[LEARNT:], strict=True)
    return statistics.mean(float(squares) / x.numel() / spread(x) for squares, x in pairs)


def line(tensor: str, micro_batches: list[Tensor], rank: int) -> str:
    """One tensor's line of the table."""
    warm = [rounds(micro_batches, rank, iterations, warm=True) for iterations in WARM]
    cold = rounds(micro_batches, rank, 1, warm=False)
    errors = [best(micro_batches, rank), *warm, cold]
    if cold < EXACT:
        return f"| {' | '.join([tensor, str(rank), *['exact'] * len(errors), '–', '–'])} |"
    ratio = warm[0] / cold
    cells = [tensor, str(rank), *(f"{error:.2g}" for error in errors), against(ratio, GOAL, ratio <= GOAL, digits=2)]
    return f"| {' | '.join([*cells, f'{warm[0] / warm[-1]:.2f}x'])} |"


def compare(hub: Path | None) -> str:
    """Measure every case; return the table in Markdown."""
    table = [machine(), SAID, "", *HEADS]
    for task, changes, ranks in CASES:
        data = {"data": "real", "train_samples": 1000, "eval_samples": 100} if hub else {"data": "embedded"}
        config = get_profile("real" if hub else "quick").scale(DOCUMENT_SETTINGS[task], **data, **changes)
        found = micro_batches_at_cuts(config, LEARNT + MEASURED, hub=hub, device="cpu")
        for name, micro_batches in found.items():
            shape = list(micro_batches[0].shape)
            words = f"{task} ({config.data}), {config.model_name}, {config.partition}, {name} {shape}"
            table.append(line(words, [x.float() for x in micro_batches], ranks[int(name[-1]) - 1]))
    return "\n".join(table)


if __name__ == "__main__":
    run_on_mirror(__doc__, "power iteration", compare, needs_hub=False)
