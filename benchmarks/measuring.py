"""How everything here is timed: warmed up, several times, as medians with the middle half."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splitlib.compressors import relative_error
from splitlib.files import replace_section

BUDGET = 1.5  # seconds a codec is called for
CPU = torch.device("cpu")
README = Path(__file__).with_name("README.md")
LIBRARIES = ("torch", "numpy", "numba", "zstandard", "bitsandbytes", "blosc2")


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
            f"| {tensor} | {self.name} | {spread(self.encode)} | {spread(self.decode)} "
            f"| {self.nbytes / size:.3f} | {self.error:.2g} |"
        )


def measure(
    name: str, x: Tensor, encode: Callable[[], Any], read: Callable[[Any], Tensor], size: Any, budget: float = BUDGET
) -> Row:
    """Time a codec on ``x``'s device; ``size`` is a number of bytes or a function of what was encoded."""
    sent = encode()
    nbytes = size(sent) if callable(size) else size
    times = (seconds(call, budget, x.device) for call in (encode, lambda: read(sent)))
    return Row(name, *times, float(nbytes), relative_error(x, read(sent)))


def seconds(call: Callable[[], object], budget: float = BUDGET, device: torch.device = CPU) -> list[float]:
    """Call for ``budget`` seconds, but 5 to 40 times, after 2 calls of warm-up; return how long each took.

    A GPU is waited for before and after each call.
    """
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    call(), call()
    taken: list[float] = []
    while len(taken) < 5 or (sum(taken) < budget and len(taken) < 40):
        wait()
        start = time.perf_counter()
        call()
        wait()
        taken.append(time.perf_counter() - start)
    return taken


def speed_up(ours: list[float], theirs: list[float]) -> float:
    """How many times as fast ours is, by the medians."""
    return statistics.median(theirs) / statistics.median(ours)


def spread(taken: list[float]) -> str:
    """Median, and the range of the middle half, in milliseconds."""
    low, median, high = (1e3 * q for q in statistics.quantiles(taken, n=4))
    return f"{median:.2f} ({low:.2f}–{high:.2f})"


def machine() -> str:
    """Processor, threads and versions."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    vectors = next((word for word in ("avx512f", "avx2") if any(word in line.split() for line in lines)), "")
    versions = ", ".join(f"{library} {_version(library)}" for library in LIBRARIES)
    processor = " ".join([*(names[:1] or [platform.processor()]), f"({vectors})" if vectors else ""]).strip()
    return f"{processor}, {torch.get_num_threads()} threads; Python {platform.python_version()}, {versions}."


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def write_section(name: str, text: str) -> None:
    """Put ``text`` between the README's marks of this section, whole or not at all."""
    replace_section(README, name, text)


def run_on_mirror(about: str | None, section: str, compare: Callable[[Any], str], *, needs_hub: bool = True) -> None:
    """Be the program of a table that is measured on a mirror's real tensors: print it, or write it as a section.

    One that ``needs_hub`` is not measured without; another one is then given None instead of its folder.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--write", action="store_true", help="write the table into benchmarks/README.md")
    parser.add_argument("--threads", type=int, default=2, help="of torch and the kernels (default 2)")
    parser.add_argument("--hub", default=os.environ.get("SPLITLIB_HUB"), help="mirror of real data")
    arguments = parser.parse_args()
    if needs_hub and not arguments.hub:
        print(f"The section {section} was not measured: no mirror of the hub was given (`--hub`, `$SPLITLIB_HUB`).")
        return
    torch.set_num_threads(arguments.threads)
    table = compare(Path(arguments.hub) if arguments.hub else None)
    if arguments.write:
        write_section(section, table)
    print(table)
