"""Replicas give the unsplit run's results, and never outlive each other or whoever started them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from splitlib.errors import ConfigError, WorkerError
from splitlib.experiment import run
from splitlib.pipeline import processes
from splitlib.pipeline.data_parallel import replica_devices
from splitlib.pipeline.processes import run_together
from splitlib.results import load_record
from splitlib.runtime import checkpoints_dir
from tests.support import TINY

UNSPLIT = TINY.replace(partition="none", chunks=1, epochs=1, train_samples=48)
REPLICA = UNSPLIT.replace(engine="data_parallel")
ROOT = Path(__file__).resolve().parent.parent


def workers(*code: str, count: int = 2) -> None:
    run_together(["-c", "\n".join(code)], count, threads=1)


def replicas() -> list[int]:
    """Replicas that this process started and that still run, the first one first."""
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return sorted(int(line.split()[0]) for line in found.stdout.splitlines() if "splitlib.replica" in line)


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether the process ends in time; a zombie has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            return True
        time.sleep(0.1)
    return False


# --- The same results -------------------------------------------------------------------------------------------------


def test_one_replica_is_the_unsplit_run_bit_for_bit():
    alone, replica = run(UNSPLIT, device="cpu"), run(REPLICA, device="cpu")
    assert replica.history == alone.history
    assert replica.parameters == alone.parameters and replica.samples_seen == alone.samples_seen
    assert replica.config == REPLICA and replica.environment["hardware"] == alone.environment["hardware"]


@pytest.mark.slow
def test_two_replicas_under_torchrun_are_two_micro_batches(tmp_path):
    """Also their dropout is the same: a replica draws for its share what a pipeline draws for that micro-batch."""
    config = REPLICA.replace(replicas=2)
    names = [
        "task", "model", "weights", "max_length", "train_samples", "eval_samples", "epochs", "batch_size", "lr",
        "engine", "replicas", "partition", "chunks",
    ]  # fmt: skip
    flags = [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(config, name)))]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "splitlib"]
    done = subprocess.run([*command, "run", "--device", "cpu", *flags], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("record ") == 1, "one replica speaks for all"
    found, wanted = load_record(config), run(UNSPLIT.replace(chunks=2), device="cpu")
    assert found is not None and len(found.history) == 1
    assert found.last.train_loss == pytest.approx(wanted.last.train_loss, rel=1e-5)
    assert found.last.eval_loss == pytest.approx(wanted.last.eval_loss, rel=1e-5)


def test_gradients_of_two_replicas_are_the_whole_batchs(tmp_path):
    out = tmp_path / "found.json"
    workers(
        "import json, torch",
        "from pathlib import Path",
        "from torch import nn",
        "from splitlib.pipeline.data_parallel import DataParallel, joined",
        "from splitlib.pipeline.processes import leave",
        "class Net(nn.Module):",
        "    def __init__(self):",
        "        super().__init__()",
        "        self.layers = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))",
        "    def forward(self, values):",
        "        return (self.layers(values[0]),)",
        "torch.manual_seed(0)",
        "net, x, y = Net(), torch.randn(8, 6), torch.randint(0, 3, (8,))",
        "whole = nn.functional.cross_entropy(net((x,))[0], y)",
        "wanted = torch.autograd.grad(whole, list(net.parameters()))",
        "with joined(2, 'cpu') as group:",
        "    engine = DataParallel(net, group).train()",
        "    loss = engine.train_batch((x,), y, step=0, scale=lambda loss: loss)",
        "    worst = max((p.grad - w).abs().max().item() for p, w in zip(engine.parameters(), wanted))",
        "    seen = dict(loss=loss, whole=whole.item(), worst=worst, leads=engine.leads)",
        f"    Path({str(out)!r} + str(group.rank)).write_text(json.dumps(seen))",
        "leave(0)",
    )
    for rank in (0, 1):
        seen = json.loads(Path(f"{out}{rank}").read_text())
        assert seen["loss"] == pytest.approx(seen["whole"], rel=1e-6) and seen["worst"] < 1e-6
        assert seen["leads"] == (rank == 0)


# --- Living and dying together ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_replica_ends_the_run_with_its_name_and_the_next_run_goes_on():
    config = REPLICA.replace(replicas=2, epochs=20)
    seen = []

    def kill_the_second() -> None:
        while not list(checkpoints_dir().glob("*.pt")):  # both are in the middle of training
            time.sleep(0.05)
        seen.extend(replicas())
        os.kill(seen[1], signal.SIGKILL)

    threading.Thread(target=kill_the_second, daemon=True).start()
    with pytest.raises(WorkerError, match=r"worker 2 of 2 was killed by SIGKILL; the others were ended"):
        run(config, device="cpu")
    assert len(seen) == 2 and all(gone(pid) for pid in seen)
    (checkpoint,) = checkpoints_dir().glob("*.pt")
    assert torch.load(checkpoint, weights_only=True)["state"]["epoch"] < config.epochs
    resumed, wanted = run(config, device="cpu"), run(UNSPLIT.replace(chunks=2, epochs=20), device="cpu")
    assert [e.train_loss for e in resumed.history] == pytest.approx([e.train_loss for e in wanted.history], rel=1e-3)
    assert not checkpoint.exists()


def test_ctrl_c_ends_the_workers_and_nobody_else(interruptible):
    threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        workers("import time", "time.sleep(60)")
    assert time.monotonic() - started < 20


def test_the_first_failure_is_the_one_that_is_told():
    with pytest.raises(WorkerError, match=r"worker 2 of 2 ended with status 3: no memory left; the others were ended"):
        workers(
            "import os, sys, time",
            "if os.environ['RANK'] == '1':",
            "    print('no memory left')",
            "    sys.exit(3)",
            "time.sleep(60)",
        )


def test_bytes_that_are_no_text_neither_silence_nor_hang_a_run(capfd):
    """A library may print a path of another encoding, and as much after it as a pipe holds."""
    with pytest.raises(WorkerError, match=r"worker 1 of 1 ended with status 3: last words; the others were ended"):
        workers(
            "import sys",
            r"sys.stdout.buffer.write(b'caf\xe9\n' + b'more\n' * 50_000 + b'last words\n')",
            "sys.stdout.flush()",
            "sys.exit(3)",
            count=1,
        )
    assert capfd.readouterr().out.startswith("caf\\xe9\nmore\n")


def test_what_a_user_can_act_on_is_told_once():
    with pytest.raises(WorkerError, match=r"^dataset 'x' is missing$"):
        workers("import sys", "print('splitlib: error: dataset \\'x\\' is missing')", "sys.exit(2)")


def test_only_the_first_worker_is_heard(capfd):
    workers("import os", "print('worker', os.environ['RANK'], os.environ['OMP_NUM_THREADS'])", count=3)
    assert capfd.readouterr().out == "worker 0 1\n"


def test_who_leaves_is_heard_and_skips_pythons_shutdown(capfd):
    workers(
        "import atexit, os",
        "from splitlib.pipeline.processes import leave",
        "atexit.register(os._exit, 9)",
        "print('last words', end='')",
        "leave(0)",
    )
    assert capfd.readouterr().out == "last words"


def test_workers_end_with_whoever_started_them():
    code = (
        "import importlib.util\n"  # the file alone: its package takes seconds to import
        f"spec = importlib.util.spec_from_file_location('processes', {processes.__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "worker = 'import os, sys; print(os.getpid(), flush=True); sys.stdin.read()'\n"
        "module.run_together(['-c', worker], 1, threads=1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert gone(pid)


# --- Devices ----------------------------------------------------------------------------------------------------------


def test_replicas_share_the_cpu_or_have_a_device_each():
    cpu = torch.device("cpu")
    assert replica_devices("cpu", 3) == replica_devices("cpu,cpu,cpu", 3) == [cpu] * 3
    with pytest.raises(ConfigError, match="2 replicas need 2 devices of one kind, or cpu for all, not 'cpu,cpu,cpu'"):
        replica_devices("cpu,cpu,cpu", 2)
    with pytest.raises(ConfigError, match="this machine has"):
        replica_devices("cuda", torch.cuda.device_count() + 1)
