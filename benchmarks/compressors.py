"""Speed and error of the compressors beside the textbook version, plain uniform quantization and other libraries.

``python -m benchmarks.compressors`` prints the table; ``--write`` puts it into benchmarks/README.md. Everything is
measured in one run on the same tensors, each time the median of several calls after a warm-up. ``--device cuda`` takes
the tensors to a GPU, where the other libraries are left out, and has a section of its own.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import zstandard
from torch import Tensor

from benchmarks import textbook
from benchmarks.measuring import BUDGET, CPU, Row, machine, measure, seconds, speed_up, write_section
from splitlib.capture import tensors_at_cuts
from splitlib.compressors import decode, make_compressor, relative_error
from splitlib.profiles import DOCUMENT_SETTINGS, get_profile
from splitlib.runtime import hardware, pick_device

FIRST_CALL = """
import time, torch
from splitlib.compressors import decode, make_compressor
x = torch.randn(8, 32, 112, 112).relu()
start = time.perf_counter()
decode(make_compressor("sort").encode(x))
print(time.perf_counter() - start)
"""


def own(name: str, x: Tensor, budget: float = BUDGET, **options: Any) -> Row:
    """Measure one of splitlib's codecs."""
    codec = make_compressor(name, **options)
    shown = " ".join([name, *(f"{key}={value}" for key, value in options.items())])
    return measure(shown, x, lambda: codec.encode(x), decode, lambda payload: payload.nbytes, budget)


def sort_textbook(x: Tensor, level_bits: int, bin_bits: int, budget: float = BUDGET) -> Row:
    """Measure the pseudo-code; its bytes are what its codes would take when packed."""
    return measure(
        f"textbook sort {level_bits}+{bin_bits}",
        x,
        lambda: textbook.sort_encode(x, level_bits, bin_bits),
        lambda sent: textbook.sort_decode(sent, level_bits),
        x.numel() * (level_bits + bin_bits) / 8,
        budget,
    )


def copied(x: Tensor, budget: float = BUDGET) -> Row:
    """Measure a copy: what memory alone costs."""
    there = torch.empty_like(x)
    return measure("copy", x, lambda: there.copy_(x), lambda sent: sent.clone(), 4 * x.numel(), budget)


def uniform_plain(x: Tensor, budget: float = BUDGET) -> Row:
    """Measure 8-bit uniform quantization written the plain way."""
    encode, read = (lambda: textbook.uniform_encode(x, 8)), (lambda sent: textbook.uniform_decode(*sent))
    return measure("plain uniform 8", x, encode, read, x.numel(), budget)


def beside_textbook(x: Tensor, budget: float = BUDGET) -> list[Row]:
    """Measure the quantizers beside a copy, the textbook version and plain uniform quantization, on ``x``'s device."""
    rows = [copied(x, budget), sort_textbook(x, 6, 2, budget), uniform_plain(x, budget)]
    rows += [own("uniform", x, budget, bits=8), own("uniform", x, budget, bits=8, block=256)]
    rows += [own("sort", x, budget, edges=rule) for rule in ("equal_count", "cube_root", "least_error", "equal_range")]
    return [*rows, own("fast", x, budget)]


def peers(x: Tensor) -> tuple[list[Row], list[str]]:
    """Measure other libraries; return the rows and why any is missing."""
    rows, missing = [], []
    raw = x.numpy().tobytes()
    shrink, grow = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()

    def read(frame: bytes) -> Tensor:
        return torch.frombuffer(bytearray(grow.decompress(frame)), dtype=torch.float32).reshape(x.shape)

    rows.append(measure("zstd level 1, lossless", x, lambda: shrink.compress(raw), read, len))
    for peer, rowed in (("bitsandbytes", _bitsandbytes), ("blosc2", _blosc2)):
        try:
            rows.append(rowed(x))
        except Exception as error:  # whatever keeps a foreign library from running is the reason to report
            missing.append(f"{peer} was skipped: {type(error).__name__}: {str(error).splitlines()[0]}")
    return rows, missing


def _bitsandbytes(x: Tensor) -> Row:
    functional = importlib.import_module("bitsandbytes.functional")
    return measure(
        "bitsandbytes blockwise 8",
        x,
        lambda: functional.quantize_blockwise(x),
        lambda sent: functional.dequantize_blockwise(*sent),
        lambda sent: sent[0].numel() + 4 * sent[1].absmax.numel(),
    )


def _blosc2(x: Tensor) -> Row:
    blosc2 = importlib.import_module("blosc2")
    return measure(
        "blosc2, lossless",
        x,
        lambda: blosc2.pack_array2(x.numpy()),
        lambda frame: torch.from_numpy(blosc2.unpack_array2(frame)),
        len,
    )


def tensors() -> dict[str, Tensor]:
    """Stand-ins for what crosses the cuts: shapes of MobileNetV2 and RoBERTa, values drawn with a seed."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    scale = normal(8, 32, 1, 1).exp()
    return {
        "activation [8,32,112,112]": (normal(8, 32, 112, 112) * scale).relu(),
        "gradient [8,32,112,112]": 1e-4 * normal(8, 32, 112, 112) * (1.5 * normal(8, 32, 112, 112)).exp(),
        "activation [8,1280,7,7]": normal(8, 1280, 7, 7).relu(),
        "activation [8,128,768]": normal(8, 128, 768),
    }


def first_calls() -> tuple[float, float]:
    """Seconds of a process's first encode and decode: nothing compiled yet, and compiled by an earlier process."""
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-c", FIRST_CALL]
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        taken = [subprocess.run(run, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    return float(taken[0].stdout), float(taken[1].stdout)


@dataclass(frozen=True)
class Goal:
    """What one codec should reach against another: so many times as fast, at most so many times the error."""

    ours: str
    theirs: str
    encode: float | None = None
    decode: float | None = None
    error: float | None = None

    def cells(self, tensor: str, rows: list[Row]) -> str:
        """Measured ratios, each with its goal and whether it is met."""
        ours, theirs = ({row.name: row for row in rows}[name] for name in (self.ours, self.theirs))
        encode, read = speed_up(ours.encode, theirs.encode), speed_up(ours.decode, theirs.decode)
        error = ours.error / theirs.error
        cells = (
            against(encode, self.encode, encode >= (self.encode or 0)),
            against(read, self.decode, read >= (self.decode or 0)),
            against(error, self.error, error <= (self.error or 0), digits=3),
        )
        return f"| {tensor}: {self.ours} / {self.theirs} | {' | '.join(cells)} |"


def against(measured: float, goal: float | None, met: bool, digits: int = 1, unit: str = "x") -> str:
    """Return a ratio beside its goal, for example ``**56.1x** (goal 80: missed)``."""
    shown = f"{measured:.{digits}f}{unit}"
    return shown if goal is None else f"**{shown}** (goal {goal:g}: {'met' if met else 'missed'})"


SORT, SORT_12, CUBE = "sort edges=equal_count", "sort level_bits=9 bin_bits=3", "sort edges=cube_root"
BOOK, BOOK_12, PLAIN = "textbook sort 6+2", "textbook sort 9+3", "plain uniform 8"
RIVALS = ((SORT, BOOK), (CUBE, BOOK), ("fast", BOOK), (SORT, PLAIN), ("uniform bits=8", PLAIN))
LARGE_GOALS = (
    Goal(SORT, BOOK, encode=80, decode=80, error=1.02),
    Goal(SORT, PLAIN, encode=1),
    Goal(CUBE, PLAIN),
    Goal("uniform bits=8", PLAIN, encode=6, decode=3),
    Goal(SORT_12, BOOK_12, encode=50, decode=50, error=1.02),
)
SMALL_GOALS = (Goal(SORT, BOOK, encode=40, error=1.02), Goal(CUBE, PLAIN), Goal("uniform bits=8", PLAIN))
LOW_RANK = (((8, 32, 112, 112), 3), ((8, 1280, 7, 7), 7), ((8, 128, 768), 16), ((8, 128, 768), 32))
HEADS = ["| tensor | codec | encode ms | decode ms | ratio | error / variance |", "|---|---|---|---|---|---|"]
GOAL_HEADS = ["| measured against | encode | decode | error |", "|---|---|---|---|"]


def compare(hub: Path | None) -> str:
    """Measure everything; return the tables in Markdown."""
    lines, goals, notes = [], [], [""]
    for tensor, x in tensors().items():
        large = x.shape[-1] == 112
        rows = beside_textbook(x)
        if large:
            rows += [sort_textbook(x, 9, 3), own("sort", x, level_bits=9, bin_bits=3), own("sort", x, zstd=1)]
            found, missing = peers(x)
            rows, notes = rows + found, notes + missing
        lines += [row.cells(tensor, x.numel() * x.element_size()) for row in rows]
        goals += [goal.cells(tensor, rows) for goal in (LARGE_GOALS if large else SMALL_GOALS)]
    for shape, rank in LOW_RANK:
        tensor, rows = f"mixed channels {list(shape)}", low_rank(shape, rank)
        lines += [row.cells(tensor, 4 * math.prod(shape)) for row in rows]
        goals += [Goal(rows[0].name, rows[1].name, encode=3).cells(tensor, rows)]
    return "\n".join(
        [machine(), SAID, "", *GOAL_HEADS, *goals, "", _first(), "", *real_tensors(hub), "", *HEADS, *lines, *notes]
    )


def speeds(device: torch.device, *, budget: float = BUDGET, names: Collection[str] = ()) -> str:
    """Return the tables of one device, without other libraries: of all tensors, or those with one of ``names``.

    ``budget`` is how many seconds each codec is called for.
    """
    lines, ratios = [], []
    for tensor, x in tensors().items():
        if names and tensor not in names:
            continue
        rows = beside_textbook(x.to(device), budget)
        lines += [row.cells(tensor, x.numel() * x.element_size()) for row in rows]
        ratios += [Goal(ours, theirs).cells(tensor, rows) for ours, theirs in RIVALS]
    for shape, rank in () if names else LOW_RANK:
        tensor, rows = f"mixed channels {list(shape)}", low_rank(shape, rank, device, budget)
        lines += [row.cells(tensor, 4 * math.prod(shape)) for row in rows]
        ratios += [Goal(rows[0].name, rows[1].name).cells(tensor, rows)]
    return "\n".join([f"{hardware(device)}. {SAID}", "", *GOAL_HEADS, *ratios, "", *HEADS, *lines, ""])


SAID = "Speed is the other's time over ours: more is better. Milliseconds are the median (and the middle half)."


def low_rank(shape: tuple[int, ...], rank: int, device: torch.device = CPU, budget: float = BUDGET) -> list[Row]:
    """Measure power iteration beside the documents': two rounds from random factors, QR of both.

    For the speed: every call gets another batch. Their channels (features, in three dimensions) are all mixed in one
    way, the best there is to start warm from, so the errors say nothing about real tensors: `benchmarks.lowrank` does.
    """
    batches = [x.to(device) for x in mixed_batches(shape, 8)]
    codec = make_compressor("power_iteration", rank=rank)
    name = f"power_iteration rank={rank}"
    ours = _over_batches(name, batches, codec.encode, decode, lambda sent: sent.nbytes, budget)

    def cold(x: Tensor) -> tuple[Tensor, Tensor]:
        matrices = x.flatten(2)
        right = torch.randn(len(x), matrices.shape[2], rank, device=device)
        for _ in range(2):
            left = torch.linalg.qr(matrices @ right).Q
            right = torch.linalg.qr(matrices.mT @ left).Q
        return matrices @ right, right

    def product(sent: tuple[Tensor, Tensor]) -> Tensor:
        return (sent[0] @ sent[1].mT).reshape(shape)

    name = f"two cold iterations, rank {rank}"
    nbytes = 4 * rank * len(batches[0]) * sum(batches[0].flatten(2).shape[1:])
    return [ours, _over_batches(name, batches, cold, product, lambda _: nbytes, budget)]


def mixed_batches(shape: tuple[int, ...], count: int) -> list[Tensor]:
    """Return ``count`` batches whose channels (or features) are one mixture of independent ones, falling as 1 / k."""
    random = torch.Generator().manual_seed(0)
    width = shape[1] if len(shape) > 3 else shape[-1]
    mixing = torch.linalg.qr(torch.randn(width, width, generator=random)).Q / torch.arange(1, width + 1)
    draws = [torch.randn(shape, generator=random) for _ in range(count)]
    if len(shape) > 3:
        return [(mixing @ x.flatten(2)).reshape(shape) for x in draws]
    return [x @ mixing.mT for x in draws]


def _over_batches(name: str, batches: list[Tensor], encode: Any, read: Any, nbytes: Any, budget: float) -> Row:
    """Time a codec on one batch after the other; the error is the mean over all but the first."""
    turn = itertools.cycle(batches)
    sent = [encode(x) for x in batches]
    errors = [relative_error(x, read(message)) for message, x in zip(sent, batches, strict=True)]
    calls = (lambda: encode(next(turn))), (lambda: read(sent[-1]))
    times = (seconds(call, budget, batches[0].device) for call in calls)
    return Row(name, *times, float(nbytes(sent[-1])), statistics.mean(errors[1:]))


def real_tensors(hub: Path | None) -> list[str]:
    """Compare edges by the cube root of the density with uniform-8 on what really crosses the cuts."""
    if hub is None:
        return ["Real tensors were not measured: no mirror of the hub was given (`--hub`, `$SPLITLIB_HUB`)."]
    lines = [
        "Error over that of uniform-8, on the real tensors of the first batch of training:",
        "",
        "| tensor | cube_root 6+2 | least_error 6+2 | uniform-8, blocks of 256 |",
        "|---|---|---|---|",
    ]
    for task, change in (("cifar10", {"image_size": 224, "batch_size": 16}), ("cola", {})):
        config = get_profile("real").scale(DOCUMENT_SETTINGS[task], data="real", **change)
        for name, x in tensors_at_cuts(config, hub=hub, device="cpu").items():
            goal = 0.5 if name.startswith("activation") else 0.1
            plain, cube, least, block = (
                relative_error(x, decode(make_compressor(codec, **options).encode(x))) for codec, options in COMPARED
            )
            words = f"{task}, {config.model_name}, {name} {list(x.shape)}"
            shown = against(cube / plain, goal, cube <= goal * plain, digits=3)
            lines.append(f"| {words} | {shown} | {least / plain:.3f}x | {block / plain:.3f}x |")
    return lines


COMPARED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("uniform", {"bits": 8}),
    ("sort", {"edges": "cube_root"}),
    ("sort", {"edges": "least_error"}),
    ("uniform", {"bits": 8, "block": 256}),
)


def _first() -> str:
    cold, cached = first_calls()
    shown = against(cold, 5, cold <= 5, unit=" s"), against(cached, 0.5, cached <= 0.5, 2, " s")
    return f"First encode and decode in a process, with the import of numba: {shown[0]} cold, {shown[1]} cached."


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the tables into benchmarks/README.md")
    parser.add_argument("--threads", type=int, default=2, help="of torch and the kernels (default 2)")
    parser.add_argument("--hub", default=os.environ.get("SPLITLIB_HUB"), help="mirror of real data, for real tensors")
    parser.add_argument("--device", default="cpu", help="where the tensors are (default cpu)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.device == "cpu":
        section, tables = "compressors", compare(Path(arguments.hub) if arguments.hub else None)
    else:
        section, tables = "compressors on a GPU", speeds(pick_device(arguments.device))
    if arguments.write:
        write_section(section, tables)
    print(tables)


if __name__ == "__main__":
    main()
