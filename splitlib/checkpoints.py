"""Reading what :func:`torch.save` wrote, if every byte of it is still as it was written."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch


def read_tensors(path: Path) -> Any:
    """Return the tensors and plain values in ``path``, on the CPU; nothing else is unpickled.

    torch does not compare the checksums of the zip file it writes: a flipped bit of a weight would go on training.

    Raises:
        Exception: of many kinds, where the file is damaged or holds something else.
    """
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is damaged")
    return torch.load(path, map_location="cpu", weights_only=True)
