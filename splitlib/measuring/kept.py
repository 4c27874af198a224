"""Records of other times than a batch's, such as a codec's: a table of seconds, kept with what was timed and on what.

They lie in ``results/`` under names that start with ``timing-``. As with all times, each says on which machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from splitlib.config import RunConfig
from splitlib.files import file_stem, write_text
from splitlib.measuring.records import counts_here, readable
from splitlib.results import TIMING_PREFIX
from splitlib.runtime import provenance, results_dir
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
    device: str
    repeats: int
    """In each median."""
    values: Mapping[str, Any]
    """What was measured: medians, in seconds."""
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
    device: str = "cpu",
    fresh: bool = False,
) -> KeptTimes:
    """Return what ``measure`` found before, as its record has it; call it and keep the answer if there is none.

    A record of fewer ``repeats`` or of other hardware does not count, nor any with ``fresh``.

    Args:
        timed: in words what is timed, such as ``codecs``; part of the file's name.
        of: what exactly, as plain JSON values: another answer is kept for each.
        config: model and data it is timed with.
        measure: returns plain JSON values by name.
        repeats: how many are in each median.
        device: where it runs.
        fresh: measure although there is a record.

    Raises:
        RecordError: the record is damaged, or there is none and only records are shown.
    """
    path = kept_path(timed, of, config, device)
    if not fresh and path.exists():
        found = read_kept(path)
        if found.repeats >= repeats and counts_here(found.environment, [device]):
            return found
    check_may_measure(f"the time of {timed}")
    made = KeptTimes(
        timed=timed,
        of=of,
        config=config.to_dict(),
        device=device,
        repeats=repeats,
        values=measure(),
        **provenance(torch.device(device)),
    )
    write_text(path, json.dumps(asdict(made), indent=1, allow_nan=False) + "\n")
    return made


def kept_path(timed: str, of: Any, config: RunConfig, device: str) -> Path:
    """Return where such a record lies, whether it exists or not."""
    words = [timed, config.task, config.data, config.model_name]
    key = hashlib.sha256(json.dumps([of, config.key, device], sort_keys=True).encode()).hexdigest()[:12]
    return results_dir() / f"{TIMING_PREFIX}{file_stem(words)}-{key}.json"


def read_kept(path: Path) -> KeptTimes:
    """Read one record; raise RecordError with the remedy if it is damaged."""
    with readable(path):
        return KeptTimes(**json.loads(path.read_text(encoding="utf-8")))
