"""Bytes of dead-zone quantization at the error of least-error levels, on the real tensors of a first batch.

``python -m benchmarks.deadzone`` prints the table; ``--write`` puts it into benchmarks/README.md. For each tensor and
each number of bits, the step is the largest whose error is no higher than that of levels of least error. Both write
their codes in context, each with its own coder.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from torch import Tensor

from benchmarks.lossless import CASES
from benchmarks.measuring import BUDGET, Row, machine, measure, run_on_mirror
from splitlib.capture import tensors_at_cuts
from splitlib.compressors import decode, make_compressor, relative_error
from splitlib.profiles import DOCUMENT_SETTINGS, get_profile

BITS = (2, 3, 4)
STEPS = (1e-3, 10.0)  # between which the step is looked for
HALVINGS = 12
SAID = """\
Bits a value are those of the whole payload; CoLA's padding is among its values. Times are those of dead-zone
quantization over those of least-error levels, medians of several calls, one codec after the other: below 1 is
faster."""
HEADS = [
    "| tensor | squared error | least error: bits a value | dead zone: step | bits | bytes, over | encode | decode |",
    "|---|---|---|---|---|---|---|---|",
]


def step_for(x: Tensor, error: float) -> float:
    """Return the largest step of those tried whose squared error over the variance is at most ``error``."""
    low, high = STEPS
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        lost = relative_error(x, decode(make_compressor("deadzone", step=middle, codes="packed").encode(x)))
        low, high = (middle, high) if lost <= error else (low, middle)
    return low


def pair(x: Tensor, bits: int, budget: float = BUDGET / 3) -> tuple[Row, Row, float]:
    """Measure levels of least error and a dead zone of the same error; return both and its step."""
    dense = make_compressor("sort", level_bits=0, bin_bits=bits, edges="least_error", codes="context")
    theirs = measure("least error", x, lambda: dense.encode(x), decode, lambda sent: sent.nbytes, budget)
    step = step_for(x, theirs.error)
    codec = make_compressor("deadzone", step=step)
    return theirs, measure("dead zone", x, lambda: codec.encode(x), decode, lambda sent: sent.nbytes, budget), step


def line(tensor: str, x: Tensor, bits: int, budget: float = BUDGET / 3) -> str:
    """One comparison as a line of a Markdown table."""
    theirs, ours, step = pair(x, bits, budget)
    times = (
        statistics.median(a) / statistics.median(b)
        for a, b in ((ours.encode, theirs.encode), (ours.decode, theirs.decode))
    )
    sizes = (8 * theirs.nbytes / x.numel(), 8 * ours.nbytes / x.numel())
    cells = [tensor, f"{theirs.error:.1e}", f"{sizes[0]:.2f} ({bits})", f"{step:.2f}", f"{sizes[1]:.2f}"]
    return f"| {' | '.join([*cells, f'**{ours.nbytes / theirs.nbytes:.2f}**', *(f'{t:.2f}' for t in times)])} |"


def compare(hub: Path) -> str:
    """Measure both on every tensor; return the table in Markdown."""
    table = [machine(), SAID, "", *HEADS]
    for task, changes, _ in CASES:
        config = get_profile("real").scale(DOCUMENT_SETTINGS[task], data="real", **changes)
        size = f"{config.image_size} px" if config.kind == "vision" else config.model_name
        for name, x in tensors_at_cuts(config, hub=hub, device="cpu").items():
            table += [line(f"{task}, {size}, {name} {list(x.shape)}", x, bits) for bits in BITS]
    return "\n".join(table)


if __name__ == "__main__":
    run_on_mirror(__doc__, "dead zone", compare)
