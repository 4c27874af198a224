"""Two machines over TCP: the server listens and serves one client after the other, the client dials.

The well-known port carries the control channel. The tensors' connection is gloo's own, between the two addresses that
the control channel already joins; its addresses are exchanged over that channel, so no further port has a known number.
"""

from __future__ import annotations

import errno
import re
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from splitlib.errors import ConfigError, PeerError, SplitlibError
from splitlib.pipeline.remote.client import Line
from splitlib.pipeline.remote.control import SocketControl
from splitlib.pipeline.remote.door import Door, format_address
from splitlib.pipeline.remote.handshake import LEAST_SECRET, SECRET, greet_server
from splitlib.pipeline.remote.mailbox import Mailbox
from splitlib.pipeline.remote.rendezvous import ControlStore
from splitlib.pipeline.remote.server import check_required, serve
from splitlib.pipeline.remote.transport import GlooTransport, gloo_transport

DEFAULT_PORT = 29511
_CONNECT_SECONDS = 10.0
_REMEDIES = {
    errno.EADDRINUSE: "; choose another port with --port",
    errno.EACCES: "; choose another port with --port",
    errno.EADDRNOTAVAIL: "; listen on an address of this machine",
}
Log = Callable[[str], None]


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port; without a port, the default one. An IPv6 address stands in brackets.

    >>> parse_address("10.0.0.2:80"), parse_address("[::1]:80"), parse_address("[::1]")
    (('10.0.0.2', 80), ('::1', 80), ('::1', 29511))
    """
    match = re.fullmatch(r"(?:\[([^][]+)\]|([^][:]+))(?::([0-9]{1,5}))?", text)
    port = int(match[3] or DEFAULT_PORT) if match else 0
    if not match or not 0 < port < 1 << 16:
        raise ConfigError(
            f"server {text!r} is no address; write HOST:PORT, such as 10.0.0.2:{DEFAULT_PORT}, "
            f"an IPv6 address in brackets: [::1]:{DEFAULT_PORT}"
        )
    return match[1] or match[2], port


def dial(address: tuple[str, int], secret: bytes) -> Line:
    """Connect to a server and prove to each other that both know the secret.

    Raises:
        PeerError: nobody answers, or the other side is refused or refuses.
    """
    peer = f"the server {format_address(*address)}"
    try:
        connection = socket.create_connection(address, timeout=_CONNECT_SECONDS)
    except (OSError, UnicodeError) as error:
        raise PeerError(f"{peer} cannot be reached ({_why(error)}); start it with python -m splitlib server") from None
    try:
        greet_server(connection, secret)
    except (PeerError, OSError) as error:
        connection.close()
        raise PeerError(f"{peer} cannot be used: {error}") from None
    return _line(connection, peer, rank=1)


def _line(connection: socket.socket, peer: str, rank: int) -> Line:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    address = connection.getsockname()[0]
    control = SocketControl(connection, Mailbox(peer))

    def transport() -> GlooTransport:
        try:
            return gloo_transport(ControlStore(control), rank, address)
        except PeerError:
            control.mailbox.check()  # a peer that is gone is the better reason
            raise

    return Line(control=control, transport=transport)


@dataclass(kw_only=True)
class Server:
    """Listens, and serves one client after the other."""

    bind: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    """0 takes any free one."""
    secret: bytes = b""
    hub: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    required: Mapping[str, Any] = field(default_factory=dict)
    """Settings that a client's config must have."""
    log: Log = print
    _saying: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def run(self, *, once: bool = False) -> None:
        """Serve clients for ever, or the first that is let in.

        Raises:
            ConfigError: the address cannot be bound, strangers could reach it and the secret is short or missing, or no
                client can bring what is required.
            SplitlibError: with ``once``, whatever ended the client's run early.
        """
        check_required(self.required)
        with self._listening() as listener, closing(Door(listener, self.secret, self.say)) as door:
            while True:
                trouble = self._serve(*door.next())
                if once and trouble is not None:
                    raise trouble
                if once:
                    return

    def say(self, line: str) -> None:
        """Log a line, whatever a peer made it contain: in ASCII it can always be printed, and forges no other line."""
        with self._saying:
            self.log(line.encode("unicode_escape").decode())

    @contextmanager
    def _listening(self) -> Iterator[socket.socket]:
        try:
            family = socket.AF_INET6 if ":" in self.bind else socket.AF_INET
            listener = socket.create_server((self.bind, self.port), family=family)
        except (OSError, UnicodeError, OverflowError) as error:
            where, remedy = format_address(self.bind, self.port), _REMEDIES.get(getattr(error, "errno", 0), "")
            raise ConfigError(f"cannot listen on {where}: {_why(error)}{remedy}") from None
        with listener:
            host, port = listener.getsockname()[:2]
            if not self.secret and not _is_loopback(host):
                raise ConfigError(
                    f"listening on {host} needs a shared secret, or anybody could use this server: "
                    f"set ${SECRET} or --secret-file on both sides"
                )
            if len(self.secret) < LEAST_SECRET and not _is_loopback(host):
                raise ConfigError(
                    f"listening on {host} needs a secret of at least {LEAST_SECRET} characters: "
                    "python -c 'import secrets; print(secrets.token_hex(16))' makes one; "
                    f"set ${SECRET} or --secret-file on both sides"
                )
            self.port = port
            self.say(f"listening on {format_address(host, port)}")
            yield listener

    def _serve(self, connection: socket.socket, client: str) -> Exception | None:
        """Serve one client, and return what ended it early. Whatever Python can catch, the next one is welcome.

        Gloo ends the process for a message longer than announced, which only who knows the secret can send.
        """
        self.say(f"{client} connected")
        line = _line(connection, f"the client {client}", rank=0)
        control = line.control
        try:
            session = serve(line, hub=self.hub, device=self.device, required=self.required, log=self.say)
            self.say(f"{client} finished its run at step {session.step}")
            return None
        except PeerError as error:
            self.say(str(error))
            return self._end(line, error)
        except SplitlibError as error:
            self.say(f"{client} ended at step {control.mailbox.step}: {error}")
            return self._end(line, error)
        except Exception as error:
            self.say(f"{client} ended at step {control.mailbox.step} by an error of this program:")
            for row in traceback.format_exc().splitlines():
                self.say(f"    {row}")
            return self._end(line, error)
        except KeyboardInterrupt:
            control.close("Ctrl-C")
            raise
        finally:
            control.close()

    def _end(self, line: Line, error: Exception) -> Exception:
        if not line.control.mailbox.lost:
            line.control.send("refused", reason=str(error))
            line.control.close(str(error))
        return error


def _why(error: Exception) -> str:
    """Return what the system says of an address, without Python's repeating it; of one it never saw, Python says it."""
    said = getattr(error, "strerror", None) or str(error)
    return said.partition(" (while attempting to bind")[0]


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host == "::1"
