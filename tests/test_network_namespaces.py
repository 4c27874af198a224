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


ONE_END = """
import sys, threading, time
import torch
from torch.distributed import FileStore
from splitlib.compressors import make_compressor
from splitlib.pipeline.remote.transport import gloo_transport
from splitlib.pipeline.remote.wire import ACTIVATION_1, GRADIENT_2, KINDS, Frame, encode_frame

rank, store, address = int(sys.argv[1]), FileStore(sys.argv[2], 2), sys.argv[3]
transport = gloo_transport(store, rank, address)
sizes = {ACTIVATION_1: 500_000, GRADIENT_2: 10_000}

def each(kind):
    if rank == 0:
        for _ in transport.messages(kind):
            print(KINDS[kind], flush=True)
        return
    message = encode_frame(make_compressor("none").encode, torch.zeros(sizes[kind]), Frame(kind=kind))[1]
    time.sleep(0.3 * (kind == GRADIENT_2))
    transport.send(kind, message)

threads = [threading.Thread(target=each, args=(kind,)) for kind in sizes]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
transport.close(sizes if rank else [])
if rank:
    sys.stdin.read()  # what has not left the buffers yet would be lost with the process
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_short_gradient_arrives_before_a_long_activation_that_left_first(tmp_path):
    """2 MB take 4 s on this link; 40 KB that are sent 0.3 s later do not wait behind them."""
    if reason := missing():
        pytest.skip(f"network namespaces need {reason}")
    with two_namespaces(RATE_MBIT) as names:
        ends = [
            subprocess.Popen(
                [
                    "ip",
                    "netns",
                    "exec",
                    name,
                    sys.executable,
                    "-c",
                    ONE_END,
                    str(rank),
                    str(tmp_path / "store"),
                    address,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank, (name, address) in enumerate(zip(names, ADDRESSES, strict=True))
        ]
        try:
            assert [ends[0].stdout.readline() for _ in range(2)] == ["gradient 2\n", "activation 1\n"]
        finally:
            for end in ends:
                end.kill()
                end.wait()


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
