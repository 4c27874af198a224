"""Which loops run on which device: numba's on a CPU, Triton's on a GPU, and torch operations where that is missing."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from types import ModuleType

import torch


def loops(device: torch.device) -> ModuleType:
    """Return the module with the loops for a device; what compiles them is imported only now, when they are needed."""
    return importlib.import_module(f"splitlib.compressors.{_module(device.type)}")


@cache
def _module(kind: str) -> str:
    if kind == "cpu":
        return "kernels"
    return "fused" if kind == "cuda" and importlib.util.find_spec("triton") else "reference"
