"""A program that nobody reads ends as Unix tools do: at once, without a word, with the status of SIGPIPE."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from splitlib.results import save_record
from tests.support import record

ROOT = Path(__file__).resolve().parent.parent
UNREAD = 141


def unread(*arguments: str, error: int = subprocess.PIPE) -> tuple[int, str]:
    """Run Python with a reader of its output that has gone; return its status and what it wrote as errors."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=writer, stderr=error, timeout=120)
    finally:
        os.close(writer)
    return ended.returncode, (ended.stderr or b"").decode()


def script() -> list[str]:
    """The script that pyproject.toml installs, as pip writes it."""
    module, start = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["splitlib"].split(":")
    return ["-c", f"import sys; from {module} import {start}; sys.exit({start}())"]


@pytest.mark.parametrize(
    "arguments", [["-m", "splitlib", "records"], [*script(), "records"], ["run_all.py", "--list"]], ids=" ".join
)
def test_a_list_that_nobody_reads_ends_without_a_word(arguments):
    """Python's own end is a traceback, or a complaint of its shutdown."""
    save_record(record())
    assert unread(*arguments) == (UNREAD, "")


def in_block(*lines: str) -> list[str]:
    """A program that does this, as ``python -m splitlib`` does what it is asked."""
    start = ["import socket, sys, threading", "from splitlib.ending import ending_unread", "with ending_unread():"]
    return ["-c", "\n".join([*start, *(f"    {line}" for line in lines)])]


@pytest.mark.parametrize(
    "line",
    [
        "print('little')",
        "print('much' * 100_000)",
        "print('at once', flush=True)",
        "print('a complaint', file=sys.stderr)",
        "print('last words'); sys.exit(2)",
        "print('of a server', flush=True); raise ValueError",
    ],
)
def test_whatever_is_printed(line):
    assert unread(*in_block(line), error=subprocess.STDOUT)[0] == UNREAD


def test_a_thread_that_prints_ends_the_program():
    """A server prints from threads, too: there the error ended the thread alone, with a traceback."""
    lines = ["thread = threading.Thread(target=print, args=['words'], kwargs={'flush': True})"]
    lines += ["thread.start()", "thread.join()", "sys.exit(3)"]
    assert unread(*in_block(*lines)) == (UNREAD, "")


@pytest.mark.parametrize("thread", [False, True])
def test_a_peer_that_is_gone_is_an_error_as_before(thread):
    lines = ["ours, theirs = socket.socketpair()", "theirs.close()", "def say(): ours.sendall(b'words')"]
    lines += ["thread = threading.Thread(target=say)", "thread.start()", "thread.join()"] if thread else ["say()"]
    ended = subprocess.run([sys.executable, *in_block(*lines)], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == (0 if thread else 1)
    assert "BrokenPipeError" in ended.stderr
