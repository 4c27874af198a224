"""Starting both sides together: a server of this machine for a notebook, and the pair that torchrun starts."""

from __future__ import annotations

import datetime
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from splitlib.errors import ConfigError, PeerError
from splitlib.pipeline.remote.client import Line
from splitlib.pipeline.remote.handshake import SECRET, read_secret
from splitlib.pipeline.remote.network import Server, dial, parse_address

_START_SECONDS = 60.0
_LISTENING = "listening on "


@contextmanager
def local_server(
    *, hub: Path | None = None, device: str = "cpu", arguments: tuple[str, ...] = (), threads: int = 0
) -> Iterator[Dial]:
    """Run a server process on this machine, on a free port, for the block.

    Yields what ``experiment.run(config, server=...)`` takes. The process ends with the block, and with this process
    however that ends. ``threads`` are torch's there; 0 leaves them to torch.

    Raises:
        PeerError: the server did not start; what it said is in the message.
    """
    secret = secrets.token_hex(16)
    command = [sys.executable, "-m", "splitlib", "server", "--port", "0", "--with-parent", "--device", device]
    hub_option = [] if hub is None else ["--hub", str(hub)]
    limit = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    process = subprocess.Popen(
        [*command, *hub_option, *arguments],
        env={**os.environ, **limit, SECRET: secret},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="backslashreplace",  # a byte that is no text must not end the reader: the pipe would fill
    )
    try:
        yield Dial(process, secret)
    finally:
        process.terminate()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def server_when_needed(**options: Any) -> Iterator[Callable[[], Line]]:
    """As :func:`local_server`, but the process starts when the first line is asked for, if one ever is."""
    with ExitStack() as stack:
        started: list[Dial] = []

        def call() -> Line:
            if not started:
                started.append(stack.enter_context(local_server(**options)))
            return started[0]()

        yield call


class Dial:
    """Connects to a server process; its output is in ``log``."""

    def __init__(self, process: subprocess.Popen[str], secret: str) -> None:
        self.process, self.log, self._secret = process, list[str](), secret
        self._listening = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        if not self._listening.wait(_START_SECONDS) or not self.address:
            process.kill()
            raise PeerError(f"the server did not start: {' '.join(self.log) or 'it said nothing'}")

    @property
    def address(self) -> str:
        """``host:port`` of the server."""
        return next((line.removeprefix(_LISTENING) for line in self.log if line.startswith(_LISTENING)), "")

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.log.append(line.rstrip("\n"))
                if line.startswith(_LISTENING):
                    self._listening.set()
        self._listening.set()

    def __call__(self) -> Line:
        """Return a new line to the server."""
        return dial(parse_address(self.address), self._secret.encode())


def end_with_parent() -> None:
    """End this process when whoever started it ends, however: its end of our standard input closes."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


# --- torchrun --------------------------------------------------------------------------------------------------------


def join_torchrun() -> tuple[int, TCPStore]:
    """Return this process's rank and the store that torchrun's processes share.

    Raises:
        ConfigError: torchrun did not start this process, or started other than two.
    """
    environment = os.environ
    if "RANK" not in environment or "MASTER_PORT" not in environment:
        raise ConfigError("pair runs under torchrun: torchrun --nproc-per-node 2 -m splitlib pair ...")
    if environment.get("WORLD_SIZE") != "2":
        raise ConfigError(f"pair is two processes, not {environment.get('WORLD_SIZE')}: torchrun --nproc-per-node 2")
    rank = int(environment["RANK"])
    timeout = datetime.timedelta(seconds=_START_SECONDS)
    hosts = rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    return rank, TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), 2, hosts, timeout)


def serve_under_torchrun(store: TCPStore, *, hub: Path | None, device: torch.device) -> None:
    """Serve the other process, once, and tell it where and with which secret."""
    secret = read_secret().decode() or secrets.token_hex(16)

    def log(line: str) -> None:
        print(f"server: {line}", flush=True)
        if line.startswith(_LISTENING):
            store.set("splitlib", f"{line.removeprefix(_LISTENING)} {secret}")

    bind = "127.0.0.1" if os.environ.get("LOCAL_WORLD_SIZE") == "2" else os.environ["MASTER_ADDR"]
    Server(bind=bind, port=0, secret=secret.encode(), hub=hub, device=device, log=log).run(once=True)


def dial_under_torchrun(store: TCPStore) -> Line:
    """Return a line to the other process."""
    address, secret = store.get("splitlib").decode().split(" ", 1)
    return dial(parse_address(address), secret.encode())
