"""Client and server in one process, without a socket: the code of two machines, for tests and quick trials.

What differs is only what carries the messages. A link can be shaped as between machines, but both sides compute on the
same cores, so a timeline from here shows their order, not two machines' speed.
"""

from __future__ import annotations

import threading
from pathlib import Path

import torch

from splitlib.pipeline.remote.client import Line
from splitlib.pipeline.remote.control import LocalControl
from splitlib.pipeline.remote.mailbox import Mailbox
from splitlib.pipeline.remote.server import Session, serve
from splitlib.pipeline.remote.transport import local_pair


class SimulatedServer:
    """A server in a thread; called, it makes a line to itself."""

    def __init__(self, *, hub: Path | None, device: torch.device) -> None:
        self._hub, self._device = hub, device
        self.session: Session | None = None
        """The last complete run, to look at."""

    def __call__(self) -> Line:
        """Return the client's end of a new line; the thread serves the other."""
        client, server = LocalControl(Mailbox("the simulated server")), LocalControl(Mailbox("the client"))
        client.peer, server.peer = server, client
        here, there = local_pair()
        line = Line(control=server, transport=lambda: there)
        threading.Thread(target=self._serve, args=(line,), daemon=True).start()
        return Line(control=client, transport=lambda: here)

    def _serve(self, line: Line) -> None:
        try:
            self.session = serve(line, hub=self._hub, device=self._device, required={})
        except Exception as error:  # the main thread is the one to raise it
            line.control.close(str(error))
