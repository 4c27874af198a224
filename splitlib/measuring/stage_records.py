"""Records of what stages and compressors cost on their own, so that predictions are drawn anew as they were made.

They lie in ``results/`` under names that start with ``timing-stages-``. As with all times, each says on which machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from splitlib.config import RunConfig, run_title
from splitlib.files import write_text
from splitlib.measuring.records import counts_here, readable, timing_path
from splitlib.measuring.stages import MESSAGES, stage_work
from splitlib.pipeline.predict import Message, Work
from splitlib.runtime import pick_devices, provenance
from splitlib.tally import check_may_measure


@dataclass(frozen=True, kw_only=True)
class StageTiming:
    """What one micro-batch of a config costs, stage by stage, on one machine."""

    config: RunConfig
    devices: tuple[str, ...]
    """Of the stages, in order."""
    batches: int
    """That count."""
    work: Work
    """Medians over the micro-batches."""
    environment: Mapping[str, Any]
    splitlib_version: str
    created: str
    """UTC date and time, ISO 8601."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**values, "config": self.config.to_dict(), "work": asdict(self.work)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StageTiming:
        """Rebuild from :meth:`to_dict`'s output, read from JSON."""
        costs = {**values["work"], **{name: Message(**values["work"][name]) for name in MESSAGES}}
        built = {"config": RunConfig.from_dict(values["config"]), "devices": tuple(values["devices"])}
        return cls(**{**values, **built, "work": Work(**costs)})


def kept_stage_work(
    config: RunConfig, *, hub: Path | None = None, device: str = "auto", batches: int = 3, fresh: bool = False
) -> Work:
    """Return :func:`~splitlib.measuring.stages.stage_work` as its record has it; measure and keep it if there is none.

    A record of fewer ``batches`` or of other hardware does not count, nor any with ``fresh``.

    Raises:
        SplitlibError: as ``stage_work``, or the record is damaged.
    """
    devices = pick_devices(device, config.cut_count + 1)
    names = list(map(str, devices))
    path = timing_path(config, names, kind="stages-")
    if not fresh and path.exists():
        found = read_stage_timing(path)
        if found.batches >= batches and counts_here(found.environment, names):
            return found.work
    check_may_measure(f"the stages' time of {run_title(config)}")
    made = StageTiming(
        config=config,
        devices=tuple(names),
        batches=batches,
        work=stage_work(config, hub=hub, device=device, batches=batches),
        **provenance(*devices),
    )
    write_text(path, json.dumps(made.to_dict(), indent=1, allow_nan=False) + "\n")
    return made.work


def read_stage_timing(path: Path) -> StageTiming:
    """Read one record; raise RecordError with the remedy if it is damaged."""
    with readable(path):
        return StageTiming.from_dict(json.loads(path.read_text(encoding="utf-8")))
