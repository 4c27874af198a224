"""The errors a user can cause, each one line that names the value and the remedy.

The command line and notebooks print these without a traceback; anything else is a bug and shows one.
"""


class SplitlibError(Exception):
    """Base of every error a user can act on."""

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows in place of a traceback."""
        return [f"splitlib: error: {self}"]


class ConfigError(SplitlibError, ValueError):
    """A setting is unknown, of the wrong type or impossible in combination."""


class DataError(SplitlibError):
    """A dataset or a set of weights is missing, unreadable or not what its name says."""


class RecordError(SplitlibError):
    """A result record or checkpoint on disk cannot be read or belongs to another version."""


class WriteError(SplitlibError, OSError):
    """A file or folder cannot be written."""

    def __init__(self, path: object, error: OSError, remedy: str = "") -> None:
        reason = error.strerror or str(error)
        super().__init__(f"cannot write {path}: {reason}" + (f"; {remedy}" if remedy else ""))
        self.strerror = reason


class PayloadError(SplitlibError):
    """A payload is truncated, corrupted or not one of ours."""


class PeerError(SplitlibError):
    """The other machine cannot be reached, was lost, or refuses to work with us."""


class WorkerError(SplitlibError):
    """A worker process of this machine failed, and the others were ended."""
