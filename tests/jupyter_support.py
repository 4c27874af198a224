"""A JupyterLab for the browser test: started with folders of its own, waited for, ended with its kernels.

Its processes, and what its kernels start in turn, carry a mark in their environment, so that nothing stays behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[1]
MARK = "SPLITLIB_BROWSER_TEST"
# Else JupyterLab asks, in front of the notebook, whether it may fetch news.
SETTINGS = {"apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}
FOLDERS = (
    "JUPYTER_CONFIG_DIR",
    "JUPYTER_DATA_DIR",
    "JUPYTER_RUNTIME_DIR",
    "JUPYTERLAB_SETTINGS_DIR",
    "JUPYTERLAB_WORKSPACES_DIR",
    "IPYTHONDIR",
)
T = TypeVar("T")


def until(what: str, ask: Callable[[], T], seconds: float = 30, wait: Callable[[float], None] = time.sleep) -> T:
    """Ask until the answer is true and return it; fail with ``what`` was waited for, and the last answer."""
    end = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:g} s for {what}; last seen: {answer!r}")
        wait(0.05)
    return answer


class Lab:
    """A running JupyterLab: its address, its token, its log."""

    def __init__(self, process: subprocess.Popen[bytes], token: str, folder: Path) -> None:
        self.token = token
        self._process = process
        self._log = folder / "jupyterlab.log"
        self._info = folder / "jupyter_runtime_dir" / f"jpserver-{process.pid}.json"
        self.url = until("JupyterLab to start", self._address, seconds=60)
        until("JupyterLab to answer", self._answers, seconds=60)

    def log(self, characters: int = 3000) -> str:
        """Return the end of what JupyterLab and its kernels wrote."""
        return self._log.read_text(errors="replace")[-characters:]

    def stop_kernels(self) -> None:
        """End every kernel, as closing its session in JupyterLab does."""
        for kernel in self._ask("api/kernels"):
            self._ask(f"api/kernels/{kernel['id']}", method="DELETE")

    def _ask(self, path: str, method: str = "GET") -> list[dict[str, str]]:
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", f"token {self.token}")
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # to this machine, whatever proxy is set
        with direct.open(request, timeout=10) as answer:
            return json.loads(answer.read() or "[]")

    def _address(self) -> str:
        if (code := self._process.poll()) is not None:
            raise AssertionError(f"JupyterLab ended with {code}:\n{self.log()}")
        with contextlib.suppress(OSError, ValueError):  # not there yet, or half-written
            return str(json.loads(self._info.read_text())["url"])
        return ""

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            self._ask("api/kernels")
            return True
        return not self._address()  # which fails if the process is gone


@contextlib.contextmanager
def jupyter_lab(served: Path, folder: Path, variables: Mapping[str, str]) -> Iterator[Lab]:
    """Serve the notebooks in ``served`` on a free port of the loopback device; the server's files lie in ``folder``.

    Kernels import splitlib from this checkout. ``variables`` are added to their environment.
    """
    token = secrets.token_hex(16)
    own = {name: str(folder / name.lower()) for name in FOLDERS}
    environment = {**os.environ, **own, "PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1", **variables}
    for name, settings in SETTINGS.items():
        path = Path(own["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab", f"{name}.jupyterlab-settings")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(settings))
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser"),
        *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={served}"),
        *("--LabApp.news_url=None", "--LabApp.extension_manager=readonly"),
        # Should the test itself be killed: a kernel that nobody uses ends, and then the server.
        *("--MappingKernelManager.cull_idle_timeout=120", "--MappingKernelManager.cull_interval=30"),
        "--ServerApp.shutdown_no_activity_timeout=120",
        *(["--allow-root"] if is_root() else []),
    ]
    with (folder / "jupyterlab.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=served,
            env={**environment, "JUPYTER_TOKEN": token},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        lab = Lab(process, token, folder)
        yield lab
        lab.stop_kernels()
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[dict[str, str]]:
    """Give a mark for the environment of processes; kill those that carry it and are still there at the end.

    A kernel has a session of its own: killing its server's process group does not end it. Where there is no ``/proc``,
    nothing is found, and ending the server has to do.
    """
    mark = {MARK: secrets.token_hex(16)}
    try:
        yield mark
    finally:
        for number in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


def marked(mark: Mapping[str, str]) -> list[int]:
    """Return the numbers of the running processes that have this in their environment."""
    ((name, value),) = mark.items()
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{name}={value}".encode() in environment.read_bytes():
                found.append(int(environment.parent.name))
    return found


def is_root() -> bool:
    """Say whether this runs as root, which JupyterLab and Chromium want to be told."""
    return hasattr(os, "geteuid") and os.geteuid() == 0
