"""Split training with compressed activations: models, partitions, compressors, pipelines and their measurement.

>>> import splitlib
>>> config = splitlib.RunConfig(task="cola", partition="condition_1", compressor="sort", chunks=4)
>>> config.kind
'text'

``splitlib.run(config)`` trains it and returns its :class:`~splitlib.results.RunRecord`. A model of one's own goes to
:func:`~splitlib.pipeline.inprocess.build_pipeline`, stage by stage.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splitlib.compressors import decode, make_compressor
    from splitlib.config import RunConfig
    from splitlib.errors import ConfigError, DataError, RecordError, SplitlibError
    from splitlib.experiment import run, sweep
    from splitlib.partition import split
    from splitlib.pipeline import build_pipeline
    from splitlib.profiles import get_profile
    from splitlib.version import __version__

__all__ = [
    "ConfigError",
    "DataError",
    "RecordError",
    "RunConfig",
    "SplitlibError",
    "__version__",
    "build_pipeline",
    "decode",
    "get_profile",
    "make_compressor",
    "run",
    "split",
    "sweep",
]

# Looked up on first use: importing splitlib takes no torch, so `run_all.py --list` answers at once.
_HOMES = {
    "compressors": ("decode", "make_compressor"),
    "config": ("RunConfig",),
    "errors": ("ConfigError", "DataError", "RecordError", "SplitlibError"),
    "experiment": ("run", "sweep"),
    "partition": ("split",),
    "pipeline": ("build_pipeline",),
    "profiles": ("get_profile",),
    "version": ("__version__",),
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"splitlib.{module}"), name)
    raise AttributeError(f"module 'splitlib' has no attribute {name!r}")
