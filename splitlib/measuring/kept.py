"""Records of other times than a batch's, such as a codec's or a stage's: kept with what was timed, and on what.

They lie in ``results/`` under names that start with ``timing-``. As with all times, each says on which machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from splitlib.config import RunConfig, run_title
from splitlib.files import check_writable, write_text
from splitlib.measuring.records import counts_here, readable, timing_path
from splitlib.runtime import provenance
from splitlib.tally import check_may_measure


@dataclass(frozen=True, kw_only=True)
class KeptTimes:
    """What something took on one machine."""

    timed: str
    """In words, such as ``codecs``."""
    of: Any
    """Plain JSON values: what exactly was timed."""
    config: Mapping[str, Any]
    """Of the model and the data it was timed with, as :meth:`~splitlib.config.RunConfig.to_dict` writes it."""
    devices: tuple[str, ...]
    """Of the stages, in order; one for all where there is one."""
    repeats: int
    """In each median."""
    values: Mapping[str, Any]
    """What was measured: medians, in seconds, and what comes with them, such as bytes."""
    environment: Mapping[str, Any]
    splitlib_version: str
    created: str
    """UTC date and time, ISO 8601."""


def kept_times(
    timed: str,
    of: Any,
    config: RunConfig,
    measure: Callable[[], Mapping[str, Any]],
    *,
    repeats: int,
    devices: Sequence[str] = ("cpu",),
    fresh: bool = False,
) -> KeptTimes:
    """Return what ``measure`` found before, as its record has it; call it and keep the answer if there is none.

    A record of fewer ``repeats`` or of other hardware does not count, nor any with ``fresh``.

    Args:
        timed: in words what is timed, such as ``codecs``; part of the file's name.
        of: what exactly, as plain JSON values: another answer is kept for each. Empty where ``config`` says it all.
        config: model and data it is timed with.
        measure: returns plain JSON values by name.
        repeats: how many are in each median.
        devices: where it runs.
        fresh: measure although there is a record.

    Raises:
        RecordError: the record is damaged, or there is none and only records are shown.
        WriteError: what is measured could not be kept.
    """
    path = timing_path(config, devices, of, kind=timed)
    if not fresh and path.exists():
        found = read_kept(path)
        if found.repeats >= repeats and counts_here(found.environment, devices):
            return found
    check_may_measure(f"the time of {timed}, {run_title(config)},")
    check_writable(path.parent, "$SPLITLIB_RESULTS")
    made = KeptTimes(
        timed=timed,
        of=of,
        config=config.to_dict(),
        devices=tuple(devices),
        repeats=repeats,
        values=measure(),
        **provenance(*map(torch.device, devices)),
    )
    write_text(path, json.dumps(asdict(made), indent=1, allow_nan=False) + "\n")
    return made


def read_kept(path: Path) -> KeptTimes:
    """Read one record; raise RecordError with the remedy if it is damaged."""
    with readable(path):
        values = json.loads(path.read_text(encoding="utf-8"))
        return KeptTimes(**{**values, "devices": tuple(values["devices"])})
