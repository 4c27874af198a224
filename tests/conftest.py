"""Every test keeps its records, figures and checkpoints to itself."""

import os
import signal

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may depend on a network
# The tests' tensors are small: a second thread gains nothing there, and on a busy machine the two wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Point everything splitlib writes to the test's own folder."""
    for folder in ("results", "figures", "checkpoints", "images"):
        monkeypatch.setenv(f"SPLITLIB_{folder.upper()}", str(tmp_path / folder))
    monkeypatch.delenv("SPLITLIB_RUN_DIR", raising=False)


@pytest.fixture
def real_hub():
    """The mirror of real data and weights, when ``SPLITLIB_HUB`` names one."""
    hub = os.environ.get("SPLITLIB_HUB")
    if not hub or not os.path.isdir(hub):
        pytest.skip("SPLITLIB_HUB names no mirror of real data")
    return hub


@pytest.fixture
def interruptible():
    """Python's own Ctrl-C, which a process that runs tests for another one ignores."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)
