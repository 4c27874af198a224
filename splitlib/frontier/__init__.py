"""Bytes against accuracy: the rows of one study, what they came to, and every published row on the same scale.

Levels of different models and data do not compare; what a method loses against no compression does. So every point is
a ratio of bytes and a change of the task's metric, in points, against the row without compression of its own source.
"""

from splitlib.frontier.headline import answer, decided, headline, markdown
from splitlib.frontier.published import published
from splitlib.frontier.rows import GOAL, NONE, REPEATED, ROWS, SIZES, TASKS, configs, recorded, sizes
from splitlib.frontier.summary import summary

__all__ = [
    "GOAL",
    "NONE",
    "REPEATED",
    "ROWS",
    "SIZES",
    "TASKS",
    "answer",
    "configs",
    "decided",
    "headline",
    "markdown",
    "published",
    "recorded",
    "sizes",
    "summary",
]
