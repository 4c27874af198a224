"""Two machines that are really two to the kernel: network namespaces, joined by a cable that ``tc tbf`` shapes."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ADDRESSES = ("10.214.0.1", "10.214.0.2")


def missing() -> str:
    """Return what namespaces would need here, or nothing if they work."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "root on Linux"
    if not shutil.which("ip") or not shutil.which("tc"):
        return "iproute2 (`apt-get install iproute2`)"
    try:
        with two_namespaces(10):
            return ""
    except subprocess.CalledProcessError as error:
        return f"a kernel that gives them ({error.stderr.strip()})"


@contextmanager
def two_namespaces(rate_mbit: int) -> Iterator[tuple[str, str]]:
    """Yield the names of two namespaces, which have :data:`ADDRESSES`; the cable is shaped in both directions.

    Raises:
        subprocess.CalledProcessError: the kernel refused.
    """
    mark = secrets.token_hex(3)
    names, cables = [f"splitlib-{i}-{mark}" for i in range(2)], [f"s{i}{mark}" for i in range(2)]
    burst = max(4096, rate_mbit * 125)  # bytes: a millisecond's worth, or fast links starve between two of its ticks
    try:
        for name in names:
            _run("ip", "netns", "add", name)
        _run("ip", "link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for name, cable, address in zip(names, cables, ADDRESSES, strict=True):
            _run("ip", "link", "set", cable, "netns", name)
            _run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", cable)
            for device in ("lo", cable):
                _run("ip", "-n", name, "link", "set", device, "up")
            shape = f"qdisc add dev {cable} root tbf rate {rate_mbit}mbit burst {burst}b latency 400ms"
            _run("tc", "-n", name, *shape.split())
        yield names[0], names[1]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)
