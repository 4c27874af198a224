"""A checkpoint is written whole or not at all, and a full disk is one clear line."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from splitlib.checkpoints import read_tensors, write_tensors
from splitlib.errors import WriteError
from splitlib.pipeline.remote.kept import KeptSteps
from splitlib.runtime import checkpoints_dir
from tests.support import TINY, trainer_of


@contextmanager
def disk_with_room_for(nbytes: int) -> Iterator[None]:
    """Files may grow to ``nbytes`` and no further: like a full disk, it makes write() fail in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_tensors(tmp_path / "own.pt", {"a": torch.arange(3), "b": [1, "two"]})
    found = read_tensors(tmp_path / "own.pt")
    assert found["a"].tolist() == [0, 1, 2] and found["b"] == [1, "two"]


@pytest.mark.parametrize("room", [1_000, 900_000, 1_000_000])
def test_a_full_disk_is_a_write_error_wherever_the_file_ends(room: int, tmp_path: Path) -> None:
    """In a tensor torch tells of a position that is off; in the directory at the end it passes the reason on."""
    path = tmp_path / "own.pt"
    write_tensors(path, "the one before")
    with disk_with_room_for(room), pytest.raises(WriteError, match=r"cannot write .*own\.pt: File too large"):
        write_tensors(path, [torch.zeros(250_000 - 100)])
    assert read_tensors(path) == "the one before" and list(tmp_path.iterdir()) == [path]


def test_a_run_that_cannot_save_its_state_says_so() -> None:
    trainer, path = trainer_of(TINY), checkpoints_dir() / "own.pt"
    with disk_with_room_for(10_000), pytest.raises(WriteError, match=r"cannot write .*own\.pt: File too large"):
        trainer.save(path)


def test_a_server_that_cannot_keep_a_step_says_so() -> None:
    with disk_with_room_for(10_000), pytest.raises(WriteError, match=r"-server-3\.pt: File too large"):
        KeptSteps(TINY, "data").save(3, {"model": {"weight": torch.zeros(10_000)}})
