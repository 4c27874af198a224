"""What one process of a data-parallel run executes: ``python -m splitlib.replica`` and the run as JSON.

:func:`splitlib.experiment.run` starts as many as there are replicas. By hand, torchrun does the same:

    torchrun --nproc-per-node 2 -m splitlib run --engine data_parallel --replicas 2 --partition none --chunks 1
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from splitlib.config import RunConfig
from splitlib.errors import SplitlibError
from splitlib.experiment import run
from splitlib.pipeline.processes import ERROR, leave
from splitlib.pipeline.remote.launch import end_with_parent


def main(job: str) -> int:
    """Train the replica's share of ``job``; return the exit status."""
    end_with_parent()
    values = json.loads(job)
    config, hub = RunConfig.from_dict(values.pop("config")), values.pop("hub")
    try:
        run(config, hub=Path(hub) if hub else None, **values)
    except SplitlibError as error:
        print(f"{ERROR}{error}", flush=True)
        return 2
    return 0


if __name__ == "__main__":
    leave(main(sys.argv[1]))
