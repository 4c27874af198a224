"""Which loops run on which device: compiled ones on the CPU, torch operations elsewhere."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch


def loops(device: torch.device) -> ModuleType:
    """Return the module with the loops for a device; numba is imported only now, when a CPU needs it."""
    name = "kernels" if device.type == "cpu" else "reference"
    return importlib.import_module(f"splitlib.compressors.{name}")
