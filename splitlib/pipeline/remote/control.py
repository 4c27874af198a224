"""The control channel: commands beside the tensors, and the news within seconds that the other side is gone.

Over a socket a message is four bytes of length and JSON. Both sides send a beat every second; a peer that closes its
socket is lost at once (the system closes it for a killed process), one that falls silent, or does not read what it is
sent, after ``patience`` seconds.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import threading
import time
from abc import ABC, abstractmethod
from typing import Any

from splitlib.errors import PeerError
from splitlib.pipeline.remote.mailbox import CONTROL, Mailbox

Message = dict[str, Any]
BEAT_SECONDS = 1.0
PATIENCE = 6.0
_ROUND_TRIPS = 5
_LENGTH = struct.Struct("<I")
_MAX_BYTES = 1 << 24
_CLOSED = "it closed the connection"
_MAX_STRANGER = 1 << 16  # from a peer that has proved nothing yet


class Control(ABC):
    """Sends messages to the peer and puts the peer's into the mailbox."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox

    @abstractmethod
    def send(self, kind: str, **values: Any) -> None:
        """Send a message; a peer that is gone is the mailbox's news, not an error here."""

    @abstractmethod
    def close(self, reason: str = "") -> None:
        """Tell the peer why this ends, and close."""

    def receive(self, *kinds: str, timeout: float | None = None) -> Message:
        """Return the next message, which must be one of ``kinds``; a refusal is always an error.

        Raises:
            PeerError: the peer refused, is gone, took too long, or said something else.
        """
        _, message = self.mailbox.take(CONTROL, timeout=timeout)
        if message["kind"] == "refused":
            raise PeerError(f"{self.mailbox.peer} refused: {message.get('reason')}")
        if message["kind"] not in kinds:
            raise PeerError(f"{self.mailbox.peer} said {message['kind']!r} where {' or '.join(kinds)} was due")
        return message

    def accept(self, message: Message) -> None:
        """Take in a message that the peer sent."""
        kind = message["kind"]
        if kind == "ping":
            self.send("pong", clock=time.perf_counter())
        elif kind == "bye":
            self.mailbox.lose(f"it ended: {message['reason']}" if message.get("reason") else "it ended")
        elif kind != "beat":
            self.mailbox.put(CONTROL, message)

    def clock_offset(self) -> float:
        """Return what to add to the peer's ``perf_counter`` to get ours, by the fastest of a few round trips."""
        best = (float("inf"), 0.0)
        for _ in range(_ROUND_TRIPS):
            asked = time.perf_counter()
            self.send("ping")
            theirs = self.receive("pong", timeout=PATIENCE)["clock"]
            answered = time.perf_counter()
            best = min(best, (answered - asked, (asked + answered) / 2 - theirs))
        return best[1]


class LocalControl(Control):
    """One end of a control channel within one process; ``peer`` is the other end."""

    peer: LocalControl

    def send(self, kind: str, **values: Any) -> None:
        """As :meth:`Control.send`."""
        self.peer.accept({"kind": kind, **values})

    def close(self, reason: str = "") -> None:
        """As :meth:`Control.close`."""
        self.send("bye", reason=reason)


class SocketControl(Control):
    """A control channel over a connected socket whose peer has proved that it knows the secret."""

    def __init__(self, connection: socket.socket, mailbox: Mailbox, patience: float = PATIENCE) -> None:
        super().__init__(mailbox)
        self._socket, self._patience, self._sending = connection, patience, threading.Lock()
        self._closed = threading.Event()
        connection.settimeout(patience)
        for work in (self._read, self._beat):
            threading.Thread(target=work, daemon=True).start()

    def send(self, kind: str, **values: Any) -> None:
        """As :meth:`Control.send`."""
        try:
            with self._sending:
                self._send(memoryview(_packed({"kind": kind, **values})))
        except TimeoutError:
            self.mailbox.lose(f"it read nothing for {self._patience:g} s")
            self._hang_up()  # or the next message would wait as long
        except OSError as error:
            self.mailbox.lose(_why(error))

    def _send(self, data: memoryview) -> None:
        """Send ``data``, for as long as it takes while some of it leaves: ``sendall`` has one timeout for the whole."""
        while data:
            data = data[self._socket.send(data) :]

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_SECONDS) and not self.mailbox.lost:
            self.send("beat")

    def _read(self) -> None:
        try:
            while not self._closed.is_set():
                self.accept(self._next())
        except (OSError, ValueError, PeerError) as error:  # select finds no socket where this side has just closed it
            self.mailbox.lose(_why(error))

    def _next(self) -> Message:
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        if length > _MAX_BYTES:
            raise PeerError(f"it sent a control message of {length} bytes")
        return _parsed(self._exactly(length))

    def _exactly(self, nbytes: int) -> bytes:
        """Return the next bytes. Silence is counted in beats, not by the clock: a paused process missed none."""
        data, silent = b"", 0
        while len(data) < nbytes:
            if not select.select([self._socket], [], [], BEAT_SECONDS)[0]:
                silent += 1
                if silent * BEAT_SECONDS >= self._patience:
                    raise PeerError(f"it was silent for {self._patience:g} s")
                continue
            silent = 0
            data += _received(self._socket, nbytes - len(data))
        return data

    def close(self, reason: str = "") -> None:
        """As :meth:`Control.close`."""
        if self._closed.is_set():
            return
        self.send("bye", reason=reason)
        self._closed.set()
        self._hang_up()
        self._socket.close()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):  # the peer was faster
            self._socket.shutdown(socket.SHUT_RDWR)


def _why(error: Exception) -> str:
    """Return why the peer is gone; one that dies with messages unread resets the connection instead of closing it."""
    if isinstance(error, ConnectionError):
        return _CLOSED
    return str(error) if isinstance(error, PeerError) else f"its connection broke ({error})"


def write_message(connection: socket.socket, message: Message) -> None:
    """Send one message."""
    connection.sendall(_packed(message))


def _packed(message: Message) -> bytes:
    data = json.dumps(message).encode()
    return _LENGTH.pack(len(data)) + data


def read_message(connection: socket.socket, seconds: float) -> Message:
    """Return the next message of a peer that may be anyone, all of which has to come within ``seconds``.

    Raises:
        PeerError: it is none, or the time is up.
    """
    deadline = time.monotonic() + seconds
    try:
        (length,) = _LENGTH.unpack(_all(connection, _LENGTH.size, deadline))
        if length > _MAX_STRANGER:
            raise PeerError("it does not speak splitlib's protocol")
        return _parsed(_all(connection, length, deadline))
    except TimeoutError:
        raise PeerError("it gave no answer; it may be busy with another client") from None
    except OSError as error:
        raise PeerError(f"it does not speak splitlib's protocol ({error})") from None


def _parsed(data: bytes) -> Message:
    """Return the message in ``data``. Brackets can nest too deep for json, which gives up with a RecursionError."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PeerError(f"it does not speak splitlib's protocol ({error})") from None
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise PeerError("it does not speak splitlib's protocol")
    return message


def _all(connection: socket.socket, nbytes: int, deadline: float) -> bytes:
    """Return the next bytes; the socket's own timeout is for each of its pieces, of which there may be many."""
    data = b""
    while len(data) < nbytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        data += _received(connection, nbytes - len(data))
    return data


def _received(connection: socket.socket, nbytes: int) -> bytes:
    data = connection.recv(nbytes)
    if not data:
        raise PeerError(_CLOSED)
    return data
