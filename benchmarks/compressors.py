"""Speed and error of the compressors beside the textbook version, plain uniform quantization and other libraries.

``python -m benchmarks.compressors`` prints the table; ``--write`` puts it into benchmarks/README.md. Everything is
measured in one run on the same tensors, each time the median of several calls after a warm-up.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import zstandard
from torch import Tensor

from benchmarks import textbook
from splitlib.compressors import decode, make_compressor
from splitlib.files import write_text

README = Path(__file__).with_name("README.md")
MARK = "<!-- measured -->\n"
LIBRARIES = ("torch", "numpy", "numba", "zstandard", "bitsandbytes", "blosc2")
FIRST_CALL = """
import time, torch
from splitlib.compressors import decode, make_compressor
x = torch.randn(8, 32, 112, 112).relu()
start = time.perf_counter()
decode(make_compressor("sort").encode(x))
print(time.perf_counter() - start)
"""


@dataclass
class Row:
    """One codec on one tensor: seconds of each call, bytes, squared error over the tensor's variance."""

    name: str
    encode: list[float]
    decode: list[float]
    nbytes: float
    error: float

    def cells(self, tensor: str, size: float) -> str:
        """The row as a line of a Markdown table."""
        return (
            f"| {tensor} | {self.name} | {_spread(self.encode)} | {_spread(self.decode)} "
            f"| {self.nbytes / size:.3f} | {self.error:.2g} |"
        )


def measure(name: str, x: Tensor, encode: Callable[[], Any], read: Callable[[Any], Tensor], size: Any) -> Row:
    """Time a codec; ``size`` is a number of bytes or a function of what was encoded."""
    sent = encode()
    error = (read(sent) - x).double().square().mean() / x.double().var()
    nbytes = size(sent) if callable(size) else size
    return Row(name, seconds(encode), seconds(lambda: read(sent)), float(nbytes), float(error))


def seconds(call: Callable[[], object], budget: float = 1.5) -> list[float]:
    """Call for ``budget`` seconds, but 5 to 40 times, after 2 calls of warm-up; return how long each took."""
    call(), call()
    taken: list[float] = []
    while len(taken) < 5 or (sum(taken) < budget and len(taken) < 40):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken


def own(name: str, x: Tensor, **options: Any) -> Row:
    """Measure one of splitlib's codecs."""
    codec = make_compressor(name, **options)
    shown = " ".join([name, *(f"{key}={value}" for key, value in options.items())])
    return measure(shown, x, lambda: codec.encode(x), decode, lambda payload: payload.nbytes)


def sort_textbook(x: Tensor, level_bits: int, bin_bits: int) -> Row:
    """Measure the pseudo-code; its bytes are what its codes would take when packed."""
    return measure(
        f"textbook sort {level_bits}+{bin_bits}",
        x,
        lambda: textbook.sort_encode(x, level_bits, bin_bits),
        lambda sent: textbook.sort_decode(sent, level_bits),
        x.numel() * (level_bits + bin_bits) / 8,
    )


def uniform_plain(x: Tensor) -> Row:
    """Measure 8-bit uniform quantization written the plain way."""
    return measure(
        "plain uniform 8", x, lambda: textbook.uniform_encode(x, 8), lambda s: textbook.uniform_decode(*s), x.numel()
    )


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


def compare() -> str:
    """Measure everything; return the tables in Markdown."""
    lines = ["| tensor | codec | encode ms | decode ms | ratio | error / variance |", "|---|---|---|---|---|---|"]
    goals = ["| measured against | encode | decode | error |", "|---|---|---|---|"]
    notes: list[str] = []
    for tensor, x in tensors().items():
        large = x.shape[-1] == 112
        rows = [sort_textbook(x, 6, 2), uniform_plain(x)]
        rows += [own("uniform", x, bits=8), own("uniform", x, bits=8, block=256)]
        rows += [own("sort", x, edges=rule) for rule in ("equal_count", "cube_root", "equal_range")]
        rows += [own("fast", x)]
        if large:
            rows += [sort_textbook(x, 9, 3), own("sort", x, level_bits=9, bin_bits=3), own("sort", x, zstd=1)]
            found, notes = peers(x)
            rows += found
        lines += [row.cells(tensor, x.numel() * x.element_size()) for row in rows]
        goals += [_ratio(tensor, rows, one, other) for one, other in PAIRS if large or one != SORT_12]
    cold, cached = first_calls()
    calls = f"First encode and decode in a process, with the import of numba: {cold:.1f} s cold, {cached:.2f} s cached."
    return "\n".join([_machine(), "", *goals, "", calls, "", *lines, "", *sorted(set(notes))])


SORT_12 = "sort level_bits=9 bin_bits=3"
PAIRS = (
    ("sort edges=equal_count", "textbook sort 6+2"),
    ("sort edges=equal_count", "plain uniform 8"),
    ("sort edges=cube_root", "plain uniform 8"),
    ("uniform bits=8", "plain uniform 8"),
    (SORT_12, "textbook sort 9+3"),
)


def _ratio(tensor: str, rows: list[Row], one: str, other: str) -> str:
    """How many times as fast ``one`` is as ``other``, and its error as a multiple of the other's."""
    ours, theirs = ({row.name: row for row in rows}[name] for name in (one, other))
    encode = statistics.median(theirs.encode) / statistics.median(ours.encode)
    read = statistics.median(theirs.decode) / statistics.median(ours.decode)
    return f"| {tensor}: {one} / {other} | {encode:.1f}x | {read:.1f}x | {ours.error / theirs.error:.3f}x |"


def _spread(taken: list[float]) -> str:
    """Median, and the range of the middle half."""
    low, median, high = (1e3 * q for q in statistics.quantiles(taken, n=4))
    return f"{median:.2f} ({low:.2f}–{high:.2f})"


def _machine() -> str:
    """Processor, threads and versions."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    versions = ", ".join(f"{library} {_version(library)}" for library in LIBRARIES)
    processor = names[0] if names else platform.processor()
    return (
        f"{processor}, {torch.get_num_threads()} threads; Python {platform.python_version()}, {versions}.\n"
        "Speed is the other's time over ours: more is better. Milliseconds are the median (and the middle half)."
    )


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the tables into benchmarks/README.md")
    parser.add_argument("--threads", type=int, default=2, help="of torch and the kernels (default 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tables = compare()
    if arguments.write:
        write_text(README, README.read_text(encoding="utf-8").split(MARK)[0] + MARK + "\n" + tables + "\n")
    print(tables)


if __name__ == "__main__":
    main()
