"""``python -m splitlib``."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _ending_at_once() -> Iterator[None]:
    """Have Ctrl-C end this process while it imports, which takes seconds and in which nothing begins.

    Raised, the interrupt may be lost: numpy's start catches it, and goes on or fails with another error.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # whoever started this process has it ignore Ctrl-C
        yield
        return
    signal.signal(signal.SIGINT, _end)
    yield
    signal.signal(signal.SIGINT, before)


def _end(*_: object) -> None:
    os.write(2, b"\nsplitlib: stopped\n")
    os._exit(130)


with _ending_at_once():
    from splitlib.cli import main
    from splitlib.pipeline.processes import leave

leave(main())
