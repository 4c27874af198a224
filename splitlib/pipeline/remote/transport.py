"""What carries messages between client and server: gloo between two processes, queues within one."""

from __future__ import annotations

import datetime
import queue
import threading
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed import PrefixStore, ProcessGroupGloo, Store  # type: ignore[attr-defined]

from splitlib.errors import PeerError
from splitlib.pipeline.remote.mailbox import Disconnected
from splitlib.pipeline.remote.rendezvous import listens_at
from splitlib.pipeline.remote.wire import (
    END,
    FRAME_BYTES,
    FROM_CLIENT,
    FROM_SERVER,
    KINDS,
    ROOM,
    announcement,
    read_frame,
)

_POSTED = 4  # buffers that wait for the next messages of a kind, so that none has to wait for its buffer
_Pending = tuple[torch.distributed.Work, Tensor]
_FOREVER = datetime.timedelta(days=30)  # the control channel decides when the peer is lost, not gloo
_CONNECTING = datetime.timedelta(seconds=2)  # gloo tries four times, and waits five times as long to be connected to


class Transport(ABC):
    """Carries messages (1-d uint8 on the CPU), in order within each kind, of which one thread sends, one receives."""

    @abstractmethod
    def send(self, kind: int, message: Tensor) -> None:
        """Send a message, which nobody changes afterwards; return when its memory may be freed."""

    @abstractmethod
    def messages(self, kind: int) -> Iterator[Tensor]:
        """Yield the messages of a kind as they come, until the other end closes.

        Each is valid until the next one is asked for.

        Raises:
            Disconnected: the connection is gone.
        """

    @abstractmethod
    def close(self, kinds: Iterable[int]) -> None:
        """Let go of the connection; ``kinds`` are those that this end sends, and the other waits for."""


class LocalTransport(Transport):
    """One end of a pair of queues in one process."""

    def __init__(self, out: _Queues, into: _Queues) -> None:
        self._out, self._into = out, into

    def send(self, kind: int, message: Tensor) -> None:
        """As :meth:`Transport.send`."""
        self._out[kind].put(message)

    def messages(self, kind: int) -> Iterator[Tensor]:
        """As :meth:`Transport.messages`."""
        while (message := self._into[kind].get()) is not None:
            yield message

    def close(self, kinds: Iterable[int]) -> None:
        """As :meth:`Transport.close`."""
        for kind in kinds:
            self._out[kind].put(None)


class _Queues:
    """A queue for each kind of message, made when it is first used from either end."""

    def __init__(self) -> None:
        self._queues: defaultdict[int, queue.SimpleQueue[Tensor | None]] = defaultdict(queue.SimpleQueue)
        self._lock = threading.Lock()

    def __getitem__(self, kind: int) -> queue.SimpleQueue[Tensor | None]:
        with self._lock:
            return self._queues[kind]


def local_pair() -> tuple[LocalTransport, LocalTransport]:
    """Return both ends of a transport within this process."""
    there, back = _Queues(), _Queues()
    return LocalTransport(there, back), LocalTransport(back, there)


class GlooTransport(Transport):
    """torch.distributed's gloo between two processes; each kind of message has a group, so none blocks another.

    gloo aborts the process when a message is longer than its buffer. So both ends begin with room for a header alone,
    and a sender with more to send first announces how much, once for each buffer that may already wait.

    With a group comes a TCP connection: the kernel shares the link among those that send, so that a short gradient does
    not wait until a long activation has left, and a receiver's word that its buffer is ready not behind either.
    """

    def __init__(self, groups: Mapping[int, Any], peer: int) -> None:
        """``groups`` are torch's process groups of two, by kind of message."""
        self._groups, self._peer = groups, peer
        self._room: defaultdict[int, int] = defaultdict(lambda: FRAME_BYTES)
        self._last: list[_Pending] = []

    def send(self, kind: int, message: Tensor) -> None:
        """As :meth:`Transport.send`."""
        if message.numel() > self._room[kind]:
            for _ in range(_POSTED):
                self._send(kind, announcement(message.numel()))
            self._room[kind] = message.numel()
        self._send(kind, message)

    def _send(self, kind: int, message: Tensor) -> None:
        try:
            self._groups[kind].send([message], self._peer, kind).wait(_FOREVER)
        except RuntimeError as error:
            raise Disconnected(_first_line(error)) from None

    def messages(self, kind: int) -> Iterator[Tensor]:
        """As :meth:`Transport.messages`."""
        room = FRAME_BYTES
        posted = deque(self._post(kind, _buffer(room)) for _ in range(_POSTED))
        spare = _buffer(room)
        while True:
            work, message = posted[0]
            try:
                work.wait(_FOREVER)
            except RuntimeError as error:
                raise Disconnected(_first_line(error)) from None
            frame = read_frame(message)
            if frame == END:
                return
            if frame.kind == ROOM:
                room = frame.payload_nbytes
            posted.append(self._post(kind, spare if spare.numel() == room else _buffer(room)))
            posted.popleft()
            if frame.kind != ROOM:
                yield message
            spare = message

    def _post(self, kind: int, buffer: Tensor) -> _Pending:
        try:
            return self._groups[kind].recv([buffer], self._peer, kind), buffer
        except RuntimeError as error:
            raise Disconnected(_first_line(error)) from None

    def close(self, kinds: Iterable[int]) -> None:
        """As :meth:`Transport.close`. gloo cannot be told to stop waiting, so each end tells the other's threads."""
        for kind in kinds:
            try:
                message = announcement(END.payload_nbytes)
                self._last.append((self._groups[kind].send([message], self._peer, kind), message))
            except RuntimeError:
                return  # the peer is gone, which its threads have noticed


def gloo_transport(store: Store, rank: int, address: str) -> GlooTransport:
    """Connect the two processes whose ``store`` tells each the other's address, and nobody else.

    Args:
        store: what gloo exchanges addresses through.
        rank: 0 for the server, 1 for the client.
        address: of this machine's interface that faces the other.

    Raises:
        PeerError: no connection can be made, or the store's other side is gone.
    """
    groups = {kind: _connected(kind, store, rank, address) for kind in (*FROM_CLIENT, *FROM_SERVER)}
    return GlooTransport(groups, 1 - rank)


def _connected(kind: int, store: Store, rank: int, address: str) -> ProcessGroupGloo:
    try:
        options = ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._devices = [ProcessGroupGloo.create_device(hostname=address)]
        options._timeout = _CONNECTING
        return ProcessGroupGloo(PrefixStore(KINDS[kind], store), rank, 2, options)
    except (RuntimeError, ValueError, MemoryError) as error:
        keys = [f"{KINDS[kind]}/0/{end}" for end in (0, 1)]
        why = _first_line(error).partition(", remote=")[0]  # of an address whose port gloo prints backwards
        ends = [listens_at(store.get(key), address) for key in keys if store.check([key])]
        raise PeerError(
            f"tensors need a connection between {' and '.join(ends) or address} ({why}); they take ports of their "
            "own, which a firewall may block: open them, or use a VPN"
        ) from None


def _buffer(nbytes: int) -> Tensor:
    return torch.empty(nbytes, dtype=torch.uint8)


def _first_line(error: Exception) -> str:
    """Return what gloo says without its place in a source file and its advice."""
    return str(error).splitlines()[0].rpartition("] ")[2].split(". ")[0]
