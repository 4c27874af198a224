"""A server's door: whoever connects is greeted at once, each in a thread; who proves itself is let in one by one.

So a stranger who keeps silent keeps nobody else waiting, and who comes while another client is served is told so.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import threading
from collections.abc import Callable

from splitlib.errors import PeerError
from splitlib.pipeline.remote.control import Message, write_message
from splitlib.pipeline.remote.handshake import greet_client, refuse

_AT_ONCE = 64  # who else connects waits with the system
_TURN_SECONDS = 8.0  # less than a client waits for its welcome
_PAUSE = 1.0
Guest = tuple[socket.socket, str]
"""A connection, and the address of who has proved itself on it."""


def format_address(host: str, port: int) -> str:
    """Return what :func:`~splitlib.pipeline.remote.network.parse_address` reads.

    >>> format_address("10.0.0.2", 80), format_address("::1", 80)
    ('10.0.0.2:80', '[::1]:80')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Door:
    """Takes connections from a listening socket for as long as it is open."""

    def __init__(self, listener: socket.socket, secret: bytes, log: Callable[[str], None]) -> None:
        self._listener, self._secret, self._log = listener, secret, log
        self._greeting, self._wanted = threading.Semaphore(_AT_ONCE), threading.Semaphore(0)
        self._guests = queue.SimpleQueue[Guest]()
        self._closed = threading.Event()
        threading.Thread(target=self._take, daemon=True).start()

    def next(self) -> Guest:
        """Wait for the next who knows the secret, and let it in; all others wait until this is called again."""
        self._wanted.release()
        return self._guests.get()

    def close(self) -> None:
        """Take no more connections."""
        self._closed.set()
        with contextlib.suppress(OSError):  # macOS wakes who waits when the socket is closed, Linux when it is shut
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _take(self) -> None:
        while not self._closed.is_set():
            self._greeting.acquire()
            try:
                connection, where = self._listener.accept()
            except OSError as error:
                self._greeting.release()
                if not self._closed.wait(_PAUSE):
                    self._log(f"cannot take a connection: {error.strerror}")
                continue
            guest = connection, format_address(*where[:2])
            threading.Thread(target=self._greet, args=guest, daemon=True).start()

    def _greet(self, connection: socket.socket, client: str) -> None:
        try:
            welcome = greet_client(connection, self._secret)
            if not self._wanted.acquire(timeout=_TURN_SECONDS):
                refuse(connection, "it is busy with another client; try again later")
            self._let_in(connection, client, welcome)
        except (PeerError, OSError) as error:
            self._log(f"turned {client} away: {error}")
            connection.close()
        finally:
            self._greeting.release()

    def _let_in(self, connection: socket.socket, client: str, welcome: Message) -> None:
        try:
            if select.select([connection], [], [], 0)[0]:  # nothing else can come from it now
                raise PeerError("it left while it waited")
            write_message(connection, welcome)
        except (PeerError, OSError):
            self._wanted.release()  # for somebody else
            raise
        self._guests.put((connection, client))
