"""Tensors in files: written whole or not at all, read if every byte is still as it was written."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from splitlib.files import temporary_beside


def write_tensors(path: Path, contents: Any) -> None:
    """Write tensors and plain values to ``path``.

    Raises:
        WriteError: the folder cannot be written, or the disk is full.
    """
    with temporary_beside(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(contents, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None  # torch tells only that it could not end the zip file after that
            raise


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
