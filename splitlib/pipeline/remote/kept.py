"""The server's checkpoints of a run: its part of the last steps that the client asked it to keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splitlib.checkpoints import read_tensors, write_tensors
from splitlib.config import RunConfig
from splitlib.errors import PeerError
from splitlib.runtime import checkpoints_dir

_FORMAT = 2
_KEPT = 2  # the client may die between the server's checkpoint and its own: then the one before is needed


class KeptSteps:
    """Files of one config, one for each step kept."""

    def __init__(self, config: RunConfig, data_fingerprint: str) -> None:
        self._config, self._data = config, data_fingerprint

    def _path(self, step: int) -> Path:
        return checkpoints_dir() / f"{self._config.key}-server-{step}.pt"

    def steps(self) -> list[int]:
        """Return the steps that are there."""
        names = (path.stem.rpartition("-")[2] for path in checkpoints_dir().glob(f"{self._config.key}-server-*.pt"))
        return sorted(int(name) for name in names if name.isdigit())

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep ``step`` and the one before it.

        Raises:
            WriteError: the disk is full.
        """
        contents = {"format": _FORMAT, "data": self._data, "step": step, **state}
        write_tensors(self._path(step), contents)
        for older in self.steps()[:-_KEPT]:
            self._path(older).unlink(missing_ok=True)

    def load(self, step: int) -> dict[str, Any]:
        """Return what was kept of ``step``.

        Raises:
            PeerError: it is not there, unreadable, or of other data.
        """
        if not self._path(step).exists():
            there = ", ".join(map(str, self.steps())) or "none"
            raise PeerError(
                f"the client goes on from step {step}, of which the server has no checkpoint (it has: {there}); "
                "start over with --fresh, or bring the server's checkpoints back"
            )
        try:
            contents = read_tensors(self._path(step))
        except Exception as error:  # whatever torch's zip reader or restricted unpickler meets in a damaged file
            raise PeerError(f"the server's checkpoint {self._path(step)} is not readable; start over") from error
        if (contents.get("format"), contents.get("data"), contents.get("step")) != (_FORMAT, self._data, step):
            raise PeerError(f"the server's checkpoint {self._path(step)} is of other data or another version")
        return contents

    def remove(self) -> None:
        """Forget the run."""
        for step in self.steps():
            self._path(step).unlink(missing_ok=True)
