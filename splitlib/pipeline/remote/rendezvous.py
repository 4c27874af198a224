"""How gloo's two ends learn where the other listens: by values in a store that lies on the control channel.

gloo takes what the store says at its word, and ends the process over some of it. So what comes from the other side must
have the form of what our own gloo has set. For a group of two that is, in the machine's byte order,

::

    8 bytes  length of the machine's name
             the name
          8  length of the next two
        128  the system's ``sockaddr_storage``: 2 bytes of family, 2 of port, ...
          8  a number
         16  two more
"""

from __future__ import annotations

import base64
import socket
import sys

from torch.distributed import Store  # type: ignore[attr-defined]

from splitlib.errors import PeerError
from splitlib.pipeline.remote.control import Control, Message

_SECONDS = 10.0
_LENGTH = 8
_FAMILY_ENDS, _PORT_ENDS, _IPV4_ENDS = 10, 12, 16
_IPV6 = slice(16, 32)


class ControlStore(Store):
    """The store through which gloo learns the other side's address: it travels over the control channel.

    So no further port is open, and no stranger can answer in the peer's place.
    """

    def __init__(self, control: Control) -> None:
        super().__init__()
        self._control, self._values, self._form = control, dict[str, bytes](), _form(b"")

    def set(self, key: str, value: str | bytes) -> None:
        """Keep a value and send it to the other side."""
        data = value.encode() if isinstance(value, str) else bytes(value)
        self._values[key], self._form = data, _form(data)
        self._control.send("store", key=key, value=base64.b64encode(data).decode())

    def get(self, key: str) -> bytes:
        """Return a value of either side, waiting for it."""
        self.wait([key])
        return self._values[key]

    def wait(self, keys: list[str], timeout: object = None) -> None:
        """Wait until both sides have set ``keys``."""
        while not self.check(keys):
            self._take_in(self._control.receive("store", timeout=_SECONDS))

    def check(self, keys: list[str]) -> bool:
        """Say whether all keys are set."""
        return all(key in self._values for key in keys)

    def _take_in(self, message: Message) -> None:
        try:
            key, value = message["key"], base64.b64decode(message["value"])
            sound = key not in self._values and _form(value) == self._form
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise PeerError(f"{self._control.mailbox.peer} sent no address for tensors: does its torch fit this one?")
        self._values[key] = value


def listens_at(value: bytes, own: str) -> str:
    """Return host and port in a value of gloo's, of the family that our ``own`` address has."""
    rest = _rest(value)
    family, host = (socket.AF_INET6, rest[_IPV6]) if ":" in own else (socket.AF_INET, rest[_PORT_ENDS:_IPV4_ENDS])
    return f"{socket.inet_ntop(family, host)} port {int.from_bytes(rest[_FAMILY_ENDS:_PORT_ENDS], 'big')}"


def _form(value: bytes) -> tuple[int, bytes]:
    """Return what has to be the same at both ends: how much follows the name, and of what length and family it is."""
    rest = _rest(value)
    return len(rest), rest[:_FAMILY_ENDS]


def _rest(value: bytes) -> bytes:
    """Return what follows the name, which may be of any length."""
    return value[_LENGTH + int.from_bytes(value[:_LENGTH], sys.byteorder) :]
