"""Ctrl-C while a program imports. It imports nothing of the library, so that whoever starts has it first."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ending_at_once(program: str) -> Iterator[None]:
    """Have Ctrl-C end this process while it imports, which takes seconds and in which nothing begins.

    Raised, the interrupt may be lost: numpy's start catches it, and goes on or fails with another error.
    """

    def end(*_: object) -> None:
        os.write(2, f"\n{program}: stopped\n".encode())
        os._exit(130)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # whoever started this process has it ignore Ctrl-C
        yield
        return
    signal.signal(signal.SIGINT, end)
    yield
    signal.signal(signal.SIGINT, before)
