"""How a program ends from outside: by Ctrl-C while it imports, or because nobody reads its output any longer.

It imports nothing of the library, so that whoever starts has it first.
"""

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_UNREAD = 128 + signal.SIGPIPE
"""What a shell reports of a program that ended because nobody read its output."""


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


@contextmanager
def ending_unread() -> Iterator[None]:
    """Have this process end without a word when it prints and nobody reads, as in ``... | head``, also in a thread.

    The signal that does this to other programs would end ours for a peer's closed socket, too, so Python's error tells.
    """

    def end_thread(failed: threading.ExceptHookArgs) -> None:
        if issubclass(failed.exc_type, BrokenPipeError) and _unread():
            os._exit(_UNREAD)
        threading.__excepthook__(failed)

    threading.excepthook = end_thread
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # what is left would fail after the last line of ours
    except BrokenPipeError:
        if not _unread():  # but a peer's socket, or a worker's pipe
            raise
        os._exit(_UNREAD)


def _unread() -> bool:
    """Whether what this process prints has lost its reader."""
    outputs = select.poll()
    for number in (1, 2):
        outputs.register(number, 0)  # errors and hang-ups are told unasked
    return any(what & (select.POLLERR | select.POLLHUP) for _, what in outputs.poll(0))
