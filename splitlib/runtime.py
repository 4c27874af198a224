"""Where a run executes: device, random state, folders, and the fingerprint of hardware and versions."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch

from splitlib.errors import ConfigError
from splitlib.files import named_folder
from splitlib.version import __version__

T = TypeVar("T")
FINGERPRINT_PACKAGES = ("torch", "torchvision", "transformers", "datasets", "torchgpipe", "peft", "numpy")


def project_root() -> Path:
    """Return the nearest folder at or above the working directory that holds ``run_all.py``, else the directory itself.

    Notebooks start in ``notebooks/``, the command line anywhere: both find the same ``results/``.
    """
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "run_all.py").is_file()), here)


def results_dir() -> Path:
    """Return the folder of result records: ``$SPLITLIB_RESULTS``, else ``results/`` of the project."""
    return _folder("SPLITLIB_RESULTS", "results")


def figures_dir() -> Path:
    """Return the folder of figures: ``$SPLITLIB_FIGURES``, else ``figures/`` of the project."""
    return _folder("SPLITLIB_FIGURES", "figures")


def checkpoints_dir() -> Path:
    """Return the folder of unfinished runs' checkpoints: ``$SPLITLIB_CHECKPOINTS``, else ``runs/checkpoints``."""
    return _folder("SPLITLIB_CHECKPOINTS", "runs/checkpoints")


def images_dir() -> Path:
    """Return the folder of decoded images: ``$SPLITLIB_IMAGES``, else ``runs/images``."""
    return _folder("SPLITLIB_IMAGES", "runs/images")


def _folder(variable: str, default: str) -> Path:
    """Return the folder an environment variable names, else the project's; it need not exist yet.

    Raises:
        ConfigError: there is something else. Whoever asks before a run learns it before, not after training.
    """
    folder = named_folder(variable, project_root() / default)
    try:
        something_else = folder.exists() and not folder.is_dir()
    except OSError:  # no name a file system takes
        something_else = True
    if something_else:
        raise ConfigError(f"{folder} is no folder; set ${variable} to one, or to where one may be made")
    return folder


def pick_device(name: str = "auto") -> torch.device:
    """Return the device called ``name``; ``"auto"`` takes the first GPU, else the CPU.

    Raises:
        ConfigError: the name is unknown to torch, or the machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"unsupported device {name!r}; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"no device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def pick_devices(names: str, count: int) -> list[torch.device]:
    """Return ``count`` devices, one for each stage: all the one that ``names`` says, or those between its commas.

    >>> pick_devices("cpu", 3)
    [device(type='cpu'), device(type='cpu'), device(type='cpu')]

    Raises:
        ConfigError: as :func:`pick_device`, or another number of devices is named.
    """
    devices = [pick_device(name.strip()) for name in names.split(",")]
    if len(devices) not in (1, count):
        raise ConfigError(f"{count} stages need one device, or {count}, not the {len(devices)} of {names!r}")
    return devices * count if len(devices) == 1 else devices


def synchronize() -> None:
    """Wait until every GPU has done what this process told it, so that a clock read now is honest.

    A process that told none anything has no context on any yet, and gets none here.
    """
    for index in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
        torch.cuda.synchronize(index)


def timed(run: Callable[..., T], *arguments: Any) -> tuple[T, float]:
    """Return what ``run`` returns, and the seconds it took, with all GPUs' work done before and after."""
    synchronize()
    start = time.perf_counter()
    result = run(*arguments)
    synchronize()
    return result, time.perf_counter() - start


_turns: dict[torch.Generator, AbstractContextManager[object]] = {}
os.register_at_fork(after_in_child=_turns.clear)  # a thread that has its turn is not there to end it


@contextmanager
def turn_to_draw(device: torch.device = torch.device("cpu")) -> Iterator[torch.Generator]:  # noqa: B008  # immutable
    """Have the global generator of ``device`` to oneself for the block, to seed it and draw from it.

    All threads of a process share it: both sides of a simulated run, a playground's training and what it measures
    meanwhile. So whatever is random in the library is drawn in a turn that begins with a seed, and depends on nothing
    else. Devices have turns of their own, since stages on different ones compute at once.
    """
    generator = torch.default_generator
    if device.type == "cuda":
        generator = torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    with _turns.setdefault(generator, threading.RLock()):
        yield generator


@cache
def _processor() -> str:
    """Return the processor's name as the operating system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if platform.system() == "Darwin":
        answer = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        if answer.returncode == 0:
            return answer.stdout.strip()
    return platform.processor() or platform.machine()


def hardware(device: torch.device) -> str:
    """Return what a table calls the hardware: the GPU's name, or the processor and the threads torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def either(hardware: Iterable[str]) -> str:
    """Return what a table calls the hardware of several runs: every kind once, in their order.

    >>> either(["AMD EPYC, 1 thread", "Intel Xeon, 1 thread", "AMD EPYC, 1 thread"])
    'AMD EPYC, 1 thread or Intel Xeon, 1 thread'
    """
    return " or ".join(dict.fromkeys(hardware))


def environment(*devices: torch.device) -> dict[str, Any]:
    """Return the fingerprint that goes into a record: hardware, operating system, Python and package versions.

    Several devices are named in the order of their stages, each kind of hardware once. ``instructions`` are the vector
    instructions torch uses on the processor: with others, sums round differently, and the same run gives other digits.
    """
    return {
        "hardware": " and ".join(dict.fromkeys(map(hardware, devices))),
        "device": ",".join(dict.fromkeys(device.type for device in devices)),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in FINGERPRINT_PACKAGES},
    }


def provenance(*devices: torch.device) -> dict[str, Any]:
    """Return what every record says of itself: ``environment``, ``splitlib_version``, and when it was ``created``.

    The date and time are UTC, ISO 8601 to the second.
    """
    return {
        "environment": environment(*devices),
        "splitlib_version": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
