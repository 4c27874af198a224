"""Two machines that are really two to the kernel: network namespaces, joined by a link that ``tc tbf`` shapes.

Needs root and iproute2 (``apt-get install iproute2``); skips elsewhere and says so.
"""

import os
import secrets
import subprocess
import sys

import pytest

from benchmarks.namespaces import ADDRESSES, missing, two_namespaces
from splitlib.results import all_records

RATE_MBIT = 4  # slow enough that the bytes decide on a busy machine too
PORT = 29511
SERVER_ADDRESS = ADDRESSES[0]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_shaped_link_between_two_namespaces(tmp_path):
    """Over a real 4 Mbit/s a batch takes what its bytes take, and 8 bits take less than half as long."""
    if reason := missing():
        pytest.skip(f"network namespaces need {reason}")
    environment = {**os.environ, "SPLITLIB_SECRET": secrets.token_hex(8), "SPLITLIB_PROGRESS": "none"}
    splitlib = [sys.executable, "-m", "splitlib"]
    run = (
        "--profile smoke --task cifar10 --image-size 64 --train-samples 32 --eval-samples 1 --epochs 2 "
        "--batch-size 32 --chunks 8 --schedule 1f1b"
    )
    with two_namespaces(RATE_MBIT) as names:
        in_server, in_client = (["ip", "netns", "exec", name] for name in names)
        server = subprocess.Popen(
            [*in_server, *splitlib, "server", "--bind", SERVER_ADDRESS, "--port", str(PORT)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout.readline() == f"listening on {SERVER_ADDRESS}:{PORT}\n"
            for compressor in ("none", "uniform"):
                command = [*splitlib, "client", "--server", f"{SERVER_ADDRESS}:{PORT}", *run.split()]
                subprocess.run(
                    [*in_client, *command, "--compressor", compressor],
                    env=environment,
                    check=True,
                    capture_output=True,
                )
        finally:
            server.terminate()
            server.wait()
    records = {record.config.compressor: record for record in all_records()}
    seconds = {name: record.train_seconds / 2 for name, record in records.items()}
    assert records["none"].history[0].train_loss == pytest.approx(records["uniform"].history[0].train_loss, rel=0.2)
    one_way = (records["none"].activation_bytes + records["none"].gradient_bytes) / 2 / 2
    ideal = 8e-6 * one_way / RATE_MBIT
    assert seconds["none"] > 0.9 * ideal, "nothing is faster than the link"
    assert seconds["uniform"] < 0.5 * seconds["none"]
