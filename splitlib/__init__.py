"""Split training with compressed activations: models, partitions, compressors, pipelines and their measurement.

>>> import splitlib
>>> config = splitlib.RunConfig(task="cola", partition="condition_1", compressor="sort", chunks=4)
>>> config.kind
'text'

``splitlib.run(config)`` trains it and returns its :class:`~splitlib.results.RunRecord`.
"""

from splitlib.compressors import decode, make_compressor
from splitlib.config import RunConfig
from splitlib.errors import ConfigError, DataError, RecordError, SplitlibError
from splitlib.experiment import run, sweep
from splitlib.partition import split
from splitlib.profiles import get_profile

__all__ = [
    "ConfigError",
    "DataError",
    "RecordError",
    "RunConfig",
    "SplitlibError",
    "decode",
    "get_profile",
    "make_compressor",
    "run",
    "split",
    "sweep",
]
