"""Bytes and speed of the lossless stages behind a quantizer, on the real tensors of the first batch of training.

``python -m benchmarks.lossless`` prints the table; ``--write`` puts it into benchmarks/README.md. Every stage gets the
same levels of least error, so that what arrives is the same to the bit. CIFAR-10's images have 32 px: larger ones are
enlarged, which makes neighbours alike.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measuring import BUDGET, Row, machine, measure, run_on_mirror
from splitlib.capture import tensors_at_cuts
from splitlib.compressors import decode, make_compressor
from splitlib.profiles import DOCUMENT_SETTINGS, get_profile

STAGES = {"packed": {}, "zstd 3": {"zstd": 3}, "zstd 19": {"zstd": 19}, "in context": {"codes": "context"}}
CASES: tuple[tuple[str, dict[str, int], tuple[int, int]], ...] = (
    ("cifar10", {"image_size": 32, "batch_size": 64}, (5, 3)),
    ("cifar10", {"image_size": 96, "batch_size": 32}, (5, 3)),
    ("cifar10", {"image_size": 224, "batch_size": 8}, (5, 3)),
    ("cola", {}, (3, 4)),
)
"""Task, sizes, and the bits of activations and of gradients, as rows of the frontier have them."""
SAID = """\
Bits a value are those of the whole payload; CoLA's padding is among its values. Speed is in million values a second,
the median of several calls, one stage after the other, with the quantizer's own work, which is the same in each row."""
HEADS = [
    "| tensor | stage | bits a value | over zstd 3 | encode [million values/s] | decode [million values/s] |",
    "|---|---|---|---|---|---|",
]


def stages(x: Tensor, bits: int, budget: float = BUDGET) -> list[Row]:
    """Measure every stage on ``x``; they must all give the same values back."""
    rows, given = [], []
    for name, stage in STAGES.items():
        codec = make_compressor("sort", level_bits=0, bin_bits=bits, edges="least_error", **stage)
        given.append(decode(codec.encode(x)))
        rows.append(measure(name, x, lambda codec=codec: codec.encode(x), decode, lambda sent: sent.nbytes, budget))
    if not all(torch.equal(given[0], other) for other in given):
        raise AssertionError("a lossless stage changed a value")
    return rows


def lines(tensor: str, x: Tensor, rows: list[Row]) -> list[str]:
    """The rows as lines of a Markdown table."""
    base = next(row for row in rows if row.name == "zstd 3")
    found = []
    for row in rows:
        speeds = (f"{x.numel() / statistics.median(taken) / 1e6:.0f}" for taken in (row.encode, row.decode))
        cells = [tensor, row.name, f"{8 * row.nbytes / x.numel():.2f}", f"{row.nbytes / base.nbytes:.2f}", *speeds]
        found.append(f"| {' | '.join(cells)} |")
    return found


def total(tensors: dict[str, Tensor], measured: list[list[Row]], case: str) -> list[str]:
    """One line for each stage with the bytes of all of a case's tensors."""
    values = sum(x.numel() for x in tensors.values())
    nbytes = {name: sum(rows[i].nbytes for rows in measured) for i, name in enumerate(STAGES)}
    return [
        f"| {case}, all | {name} | {8 * each / values:.2f} | {each / nbytes['zstd 3']:.2f} | – | – |"
        for name, each in nbytes.items()
    ]


def compare(hub: Path) -> str:
    """Measure every stage on every tensor; return the table in Markdown."""
    table = [machine(), SAID, "", *HEADS]
    for task, changes, each in CASES:
        config = get_profile("real").scale(DOCUMENT_SETTINGS[task], data="real", **changes)
        size = f"{config.image_size} px" if config.kind == "vision" else config.model_name
        case, tensors, measured = f"{task}, {size}", tensors_at_cuts(config, hub=hub, device="cpu"), []
        for name, x in tensors.items():
            bits = each[name.startswith("gradient")]
            measured.append(stages(x, bits))
            table += lines(f"{case}, {name} {list(x.shape)}, {bits} bits", x, measured[-1])
        table += total(tensors, measured, case)
    return "\n".join(table)


if __name__ == "__main__":
    run_on_mirror(__doc__, "lossless", compare)
