"""Two real processes over gloo: the same bits as one, and what happens when one of them goes away."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from splitlib import experiment
from splitlib.cli import _parser, config_from_options
from splitlib.compressors import COMPRESSORS
from splitlib.data.text import grammar_tokenizer
from splitlib.errors import PeerError
from splitlib.models.roberta import roberta_tiny
from splitlib.pipeline.remote.launch import local_server, server_when_needed
from splitlib.pipeline.remote.network import parse_address
from splitlib.results import all_records, record_path
from splitlib.runtime import checkpoints_dir
from splitlib.training import Trainer
from tests.support import TINY, TINY_VISION

TEXT = TINY.replace(engine="two_machines", train_samples=48, epochs=1, chunks=3)
VISION = TINY_VISION.replace(engine="two_machines")
SMALL = ["--profile", "smoke", "--task", "cola", "--train-samples", "64", "--batch-size", "16", "--chunks", "2"]
# Of compressors whose default options leave a part of them out.
OPTIONS = {"power_iteration": {"rank": "3,7"}, "deadzone": {"scale": "row"}, "topk": {"scale": "row", "random": 0.1}}
OPTIONS |= {"fast": {"scale": "row"}}
SURVIVES = 10.0  # seconds in which a side notices that the other is gone


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server process for all tests that leave it alive."""
    os.environ["SPLITLIB_CHECKPOINTS"] = str(tmp_path_factory.mktemp("server"))
    with local_server() as made:
        yield made


def client_process(address: str, *arguments: str, secret: str | None = None) -> subprocess.Popen:
    """A client as a user starts it, on a link slow enough to be caught in the middle of a batch."""
    command = [sys.executable, "-m", "splitlib", "client", "--server", address, *SMALL, *arguments]
    environment = {**os.environ, "SPLITLIB_PROGRESS": "log"}
    environment.pop("SPLITLIB_SECRET", None)
    if secret is not None:
        environment["SPLITLIB_SECRET"] = secret
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(found, seconds: float = 60.0):
    """Wait until ``found()`` is true and return it."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return result


def losses(record) -> list[tuple[float, float]]:
    return [(epoch.train_loss, epoch.eval_loss) for epoch in record.history]


@pytest.mark.parametrize(
    ("compressor", "options"),
    [*((name, OPTIONS.get(name, {})) for name in COMPRESSORS), ("uniform", {"bits": 4, "block": 64})],
)
@pytest.mark.parametrize("config", [TEXT, VISION], ids=["text", "vision"])
def test_two_processes_give_the_bits_of_one(server, config, compressor, options):
    config = config.replace(compressor=compressor, compressor_options=options)
    together = experiment.run(config.replace(engine="in_process"))
    apart = experiment.run(config, server=server)
    assert apart.history == together.history
    for name in ("activation_bytes", "gradient_bytes", "uncompressed_bytes", "parameters"):
        assert getattr(apart, name) == getattr(together, name), name


@pytest.mark.parametrize("config", [TEXT, VISION.replace(compressor="sort")], ids=["text", "vision"])
def test_two_processes_agree_on_1f1b_as_well(server, config):
    config = config.replace(schedule="1f1b")
    assert losses(experiment.run(config, server=server)) == losses(experiment.run(config.replace(engine="simulated")))


def test_a_killed_client_is_noticed_and_the_next_one_served(server):
    victim = client_process(server.address, "--link", "1Mbit", secret=server._secret)
    wait_for(lambda: any("from step 0" in line for line in server.log[-1:]))
    time.sleep(1.0)  # a batch takes several seconds on this link
    seen = len(server.log)
    victim.kill()
    killed = time.monotonic()
    (line,) = wait_for(lambda: server.log[seen:], SURVIVES)
    assert time.monotonic() - killed < SURVIVES
    assert re.fullmatch(r"the client 127\.0\.0\.1:\d+ was lost at step 0: it closed the connection", line), line
    assert losses(experiment.run(TEXT, server=server)) == losses(experiment.run(TEXT.replace(engine="in_process")))


def test_a_killed_server_ends_the_client_and_frees_the_port():
    with local_server() as doomed:
        client = client_process(doomed.address, "--link", "1Mbit", secret=doomed._secret)
        wait_for(lambda: any("from step 0" in line for line in doomed.log))
        time.sleep(1.0)
        os.kill(doomed.process.pid, signal.SIGKILL)
        killed = time.monotonic()
        _, error = client.communicate(timeout=SURVIVES)
        assert time.monotonic() - killed < SURVIVES
        assert client.returncode == 2
        expected = f"splitlib: error: the server {doomed.address} was lost at step 0: it closed the connection\n"
        assert error == expected
        with socket.create_server(parse_address(doomed.address)):
            pass


@pytest.mark.slow
def test_killed_sides_resume_with_the_bits_of_an_uninterrupted_run(server, tmp_path, monkeypatch):
    """Client and server are killed in turn, always in the middle of a batch; each time the other side is told why."""
    arguments = ["--epochs", "3", "--compressor", "power_iteration", "--seed", "5"]
    config = config_from_options(_parser().parse_args(["run", *SMALL, *arguments])).replace(engine="two_machines")
    expected = losses(experiment.run(config.replace(engine="in_process")))
    checkpoint = checkpoints_dir() / f"{config.key}.pt"

    client = client_process(server.address, *arguments, "--link", "1Mbit", secret=server._secret)
    wait_for(checkpoint.exists)  # the first epoch is over, the second has begun
    time.sleep(0.3)
    client.kill()
    client.wait()
    wait_for(lambda: "was lost at step" in server.log[-1], SURVIVES)

    resumed = experiment.run(config, server=server)
    assert any(f"config {config.key}, from step 4 of 12" in line for line in server.log)
    assert losses(resumed) == expected


@pytest.mark.slow
def test_a_server_started_again_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("splitlib.training.CHECKPOINT_SECONDS", 0.0)
    config = TEXT.replace(epochs=2, compressor="sort", seed=3)
    expected = losses(experiment.run(config.replace(engine="in_process")))
    with local_server() as first:
        step = Trainer.step

        def kill_at_two(self, inputs, labels):
            if self.steps_done == 2:
                os.kill(first.process.pid, signal.SIGKILL)
            return step(self, inputs, labels)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", kill_at_two)
            with pytest.raises(PeerError, match=f"the server {first.address} was lost at step 2: "):
                experiment.run(config, server=first)
    with local_server() as second:
        assert losses(experiment.run(config, server=second)) == expected
        assert any("from step 2 of 6" in line for line in second.log)


@pytest.mark.slow
def test_torchrun_starts_the_pair():
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "splitlib", "pair", *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "server: 127.0.0.1:" in done.stdout and "finished its run at step" in done.stdout
    (record,) = all_records()
    assert record.config.engine == "two_machines" and record.config.key in done.stdout


def test_a_server_with_other_weights_of_the_same_name_is_refused(tmp_path):
    for seed, side in enumerate(("ours", "theirs")):
        torch.manual_seed(seed)
        folder = tmp_path / side / "models" / "tiny" / "encoder"
        roberta_tiny(2).save_pretrained(folder)
        grammar_tokenizer().save_pretrained(folder)
        (tmp_path / side / "datasets").mkdir()
    config = TEXT.replace(model="tiny/encoder", weights="pretrained", max_length=None)
    with local_server(hub=tmp_path / "theirs") as server:
        with pytest.raises(PeerError, match=r"the server has other weights of encoder: .*give both sides the same"):
            experiment.run(config, hub=tmp_path / "ours", server=server)
        assert not record_path(config).exists()
        trained = experiment.run(config, hub=tmp_path / "theirs", server=server)
    alone = experiment.run(config.replace(engine="in_process"), hub=tmp_path / "theirs")
    assert losses(trained) == losses(alone)
    assert trained.weights_norm == pytest.approx(alone.weights_norm, rel=1e-12)


def test_a_server_that_prints_bytes_that_are_no_text_is_heard_all_the_same(tmp_path, monkeypatch):
    Path(tmp_path, "sitecustomize.py").write_text(r"import sys; sys.stdout.buffer.write(b'caf\xe9\n')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with local_server() as server:
        assert server.log[0] == "caf\\xe9"
        assert server.address


def test_a_server_nobody_calls_never_starts(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **options: pytest.fail("a process was started"))
    with server_when_needed(threads=1):
        pass


def test_a_server_that_was_called_ends_with_its_block(monkeypatch):
    started, popen = [], subprocess.Popen

    def noted(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    with pytest.raises(RuntimeError, match="a cell failed"), server_when_needed(threads=1) as call:
        for _ in range(2):
            call().control.close("only looking")
        (process,) = started
        assert process.poll() is None
        raise RuntimeError("a cell failed")
    assert process.poll() is not None
    assert process.stdin.closed and wait_for(lambda: process.stdout.closed)
