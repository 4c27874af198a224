"""Where everything that one side waits for comes together: tensors, commands, and the news that the other is gone."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Hashable
from typing import Any

from splitlib.errors import PeerError

CONTROL = "control"
_GRACE = 2.0


class Disconnected(Exception):
    """The transport was closed under a thread; the control channel knows why, or will within a moment."""


class Mailbox:
    """Queues by key, one lock: the main thread waits for any of several, other threads put in."""

    def __init__(self, peer: str) -> None:
        """``peer`` is what messages call the other side."""
        self.peer, self.step = peer, 0
        self._items: defaultdict[Hashable, deque[Any]] = defaultdict(deque)
        self._changed = threading.Condition()
        self._lost: str | None = None
        self._failure: Exception | None = None

    @property
    def lost(self) -> str | None:
        """Why the peer is gone, or None while it is there."""
        return self._lost

    def put(self, key: Hashable, item: Any) -> None:
        """Add an item to the queue ``key``."""
        with self._changed:
            self._items[key].append(item)
            self._changed.notify_all()

    def lose(self, reason: str) -> None:
        """Note that the peer is gone; the first reason counts."""
        with self._changed:
            self._lost = self._lost or reason
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Hand an error of another thread to the one that waits; the first counts."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def poll(self, *keys: Hashable) -> tuple[Hashable, Any] | None:
        """Return the first item of the first of the queues that has one, or None."""
        with self._changed:
            return self._pop(keys)

    def take(self, *keys: Hashable, timeout: float | None = None) -> tuple[Hashable, Any]:
        """Wait for an item in one of the queues.

        Raises:
            PeerError: the peer is gone, or nothing came within ``timeout`` seconds.
            Exception: whatever another thread failed with.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while (item := self._pop(keys)) is None:
                self._raise_trouble()
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise PeerError(f"{self.peer} gave no answer within {timeout:g} s")
                self._changed.wait(left)
            return item

    def put_back(self, key: Hashable, item: Any) -> None:
        """Put an item where :meth:`take` took it."""
        with self._changed:
            self._items[key].appendleft(item)

    def check(self) -> None:
        """Raise what :meth:`take` would raise now."""
        with self._changed:
            self._raise_trouble()

    def _pop(self, keys: tuple[Hashable, ...]) -> tuple[Hashable, Any] | None:
        for key in keys:
            if self._items[key]:
                return key, self._items[key].popleft()
        return None

    def _raise_trouble(self) -> None:
        if isinstance(self._failure, Disconnected):
            # The tensors' connection often breaks a moment before the control channel says why.
            self._changed.wait_for(lambda: self._lost is not None, _GRACE)
            self._lost = self._lost or f"its connection broke ({self._failure})"
        elif self._failure is not None:
            raise self._failure
        if self._lost is not None:
            raise PeerError(f"{self.peer} was lost at step {self.step}: {self._lost}")
