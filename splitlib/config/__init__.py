"""One run is one frozen config: ``run`` has its fields, ``choices`` what they may name, ``checks`` what is refused.

``words`` says a config in words.
"""

from splitlib.config.choices import (
    DEFAULT_MAX_LENGTH,
    DEFAULT_STAGES,
    FREE_PARTITIONS,
    PARTITIONS,
    POLYNOMIAL_END,
    SCHEDULES,
    TWO_SIDED,
    VISION_TASKS,
    task_kind,
)
from splitlib.config.run import KEY_DIGITS, SCHEMA, RunConfig, setting_fields
from splitlib.config.words import cut_text, input_text, run_title, size_text

__all__ = [
    "DEFAULT_MAX_LENGTH",
    "DEFAULT_STAGES",
    "FREE_PARTITIONS",
    "KEY_DIGITS",
    "PARTITIONS",
    "POLYNOMIAL_END",
    "SCHEDULES",
    "SCHEMA",
    "TWO_SIDED",
    "VISION_TASKS",
    "RunConfig",
    "cut_text",
    "input_text",
    "run_title",
    "setting_fields",
    "size_text",
    "task_kind",
]
