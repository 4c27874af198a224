"""The rows of the study for a GPU: CIFAR-10 at full size, every way to send under one setting.

All rows have the setting of 001 §2.1, so that they compare with each other; the documents trained the convolutions and
the power iteration in batches of 64 (003 §1.1). No document trains CIFAR-10 in half precision, so neither do these.
Images are resident, which no document does, and which changes the draws but not what is drawn from.
"""

from __future__ import annotations

from typing import Any

from splitlib import reported
from splitlib.config import RunConfig
from splitlib.profiles import DOCUMENT_SETTINGS

_SETTINGS = ["epochs", "lr", "batch_size", "scheduler", "optimizer"]


def _sort(level_bits: int, bin_bits: int, **options: str) -> dict[str, Any]:
    bits = {"level_bits": level_bits, "bin_bits": bin_bits}
    return {"compressor": "sort", "compressor_options": {**bits, **options}}


def _cube_root(level_bits: int, bin_bits: int) -> dict[str, Any]:
    return _sort(level_bits, bin_bits, edges="cube_root")


_POWER_ITERATION = {"compressor": "power_iteration", "compressor_options": {"rank": "3,7"}}
_WIDE, _TYPE_2, _TYPE_3 = ({"partition": f"conv_insert_{name}"} for name in ("wide", "type_2", "type_3"))
_TRAINED: dict[str, dict[str, Any]] = {
    "none": {},
    "sort 16": _sort(12, 4),
    "sort 12": _sort(9, 3),
    "sort 8": _sort(6, 2),
    "sort 4": _sort(3, 1),
    "conv_insert_wide": _WIDE,
    "conv_insert_type_2": _TYPE_2,
    "power_iteration 3,7": _POWER_ITERATION,
    # One level a bin: on real tensors it errs less than two levels in half as many bins, by more the fewer the bits.
    "cube_root 4": _cube_root(0, 4),
    "cube_root 3": _cube_root(0, 3),
    "cube_root 2": _cube_root(0, 2),
    # No document quantizes what an inserted convolution sends.
    "conv_insert_type_2, cube_root 8": _TYPE_2 | _cube_root(6, 2),
    "conv_insert_type_2, cube_root 4": _TYPE_2 | _cube_root(0, 4),
}
_TIMED: dict[str, dict[str, Any]] = {
    "none": {},
    "sort 8": _sort(6, 2),
    "fast 8": _sort(6, 2) | {"compressor": "fast"},
    "conv_insert_wide": _WIDE,
    "conv_insert_type_2": _TYPE_2,
    "conv_insert_type_3": _TYPE_3,
    "power_iteration 3,7": _POWER_ITERATION,
}


def trained_rows() -> dict[str, RunConfig]:
    """Return the rows to train by label; a profile scales them, ``paper`` to real data and nothing else.

    >>> rows = trained_rows()
    >>> rows["cube_root 4"].compressor_options["edges"], rows["none"].batch_size, rows["none"].images
    ('cube_root', 256, 'resident')
    """
    (settings,) = reported.load("001_2.1_cifar10_settings")[_SETTINGS].to_dict("records")
    base = DOCUMENT_SETTINGS["cifar10"].replace(
        images="resident", **{str(name): value for name, value in settings.items()}
    )
    return {label: base.replace(**changes) for label, changes in _TRAINED.items()}


def timed_rows() -> dict[str, RunConfig]:
    """Return the rows of 003 §1.2 whose time per batch is measured with a CPU as client and a GPU as server."""
    return {label: DOCUMENT_SETTINGS["cifar10"].replace(**changes) for label, changes in _TIMED.items()}
