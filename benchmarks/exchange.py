"""Tensors from one process to another, as the pipeline sends them and as gloo alone does: seconds of each round."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed import FileStore, PrefixStore, Store, Work  # type: ignore[attr-defined]

from splitlib.compressors import make_compressor
from splitlib.pipeline.channel import Channel, Coding
from splitlib.pipeline.remote.endpoint import Endpoint
from splitlib.pipeline.remote.link import Link
from splitlib.pipeline.remote.mailbox import Mailbox
from splitlib.pipeline.remote.side import Batch
from splitlib.pipeline.remote.transport import gloo_transport
from splitlib.pipeline.remote.wire import ACTIVATION_1, ACTIVATION_2
from splitlib.timeline import Timeline

RECEIVER, SENDER = 0, 1
WARMUP = 2
FRAMED, BARE = "framed", "bare"
_ANSWER_SECONDS = 120.0
_NETWORK_NAMESPACE = 0x40000000  # linux/sched.h: CLONE_NEWNET


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What is sent, and where the two processes are."""

    shape: tuple[int, ...]
    """Of every tensor, float32."""
    count: int
    """Tensors in a round."""
    rounds: int
    """That count, after a warm-up."""
    ways: tuple[str, ...] = (FRAMED, BARE)
    """Taken in turn."""
    places: tuple[str, str] = ("", "")
    """Network namespaces of receiver and sender; empty: this one."""
    addresses: tuple[str, str] = ("127.0.0.1", "127.0.0.1")

    def run(self) -> dict[str, list[float]]:
        """Return for each way the seconds from the first tensor until the receiver has said that it holds the last."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        ours, theirs = context.Pipe(duplex=False)
        with tempfile.TemporaryDirectory() as folder:
            both = [context.Process(target=_side, args=(self, rank, folder, theirs)) for rank in (RECEIVER, SENDER)]
            for process in both:
                process.start()
            try:
                if not ours.poll(_ANSWER_SECONDS):
                    raise TimeoutError(f"no answer from {self}")
                found: dict[str, list[float]] = ours.recv()
            finally:
                for process in both:
                    process.kill()
                    process.join()
        return found


def _side(what: Exchange, rank: int, folder: str, result: Connection) -> None:
    """Be one of the two; the sender tells the seconds."""
    if what.places[rank]:
        _enter(what.places[rank])
    torch.set_num_threads(1)
    store, address = FileStore(str(Path(folder, "store")), 2), what.addresses[rank]
    tensors, answer = [torch.randn(what.shape) for _ in range(what.count)], torch.zeros(1)
    made = {way: _MAKE[way](rank, PrefixStore(way, store), address, tensors, answer) for way in what.ways}
    taken: dict[str, list[float]] = {way: [] for way in what.ways}
    for _ in range(WARMUP + what.rounds):
        for way, sides in made.items():
            start = time.perf_counter()
            _round(sides, rank, tensors, answer)
            taken[way].append(time.perf_counter() - start)
    if rank == SENDER:
        result.send({way: seconds[WARMUP:] for way, seconds in taken.items()})
    time.sleep(_ANSWER_SECONDS)  # until the parent has heard: a sender that ends early may take its messages along


def _enter(name: str) -> None:
    with open(f"/run/netns/{name}") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _NETWORK_NAMESPACE):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _round(sides: _Framed | _Bare, rank: int, tensors: Sequence[Tensor], answer: Tensor) -> None:
    if rank == SENDER:
        sides.send(tensors)
        sides.receive(1)
    else:
        sides.receive(len(tensors))
        sides.send([answer])


class _Framed:
    """Through a pipeline's endpoint: encoded with the identity, framed, metered, checked and decoded."""

    def __init__(self, rank: int, store: Store, address: str, tensors: Sequence[Tensor], answer: Tensor) -> None:
        kinds = (ACTIVATION_1, ACTIVATION_2) if rank == SENDER else (ACTIVATION_2, ACTIVATION_1)
        self.sends, self.receives = kinds
        self.step = 0
        self.endpoint = Endpoint(
            gloo_transport(store, rank, address),
            Mailbox("the other process"),
            channels={kind: Channel(make_compressor("none")) for kind in kinds},
            sends=[self.sends],
            receives=[self.receives],
            coding=Coding(),
            timeline=Timeline("client" if rank == SENDER else "server"),
            device=torch.device("cpu"),
            link=Link(),
        )

    def send(self, tensors: Sequence[Tensor]) -> None:
        """Send, metered as a batch is."""
        self.endpoint.timeline.take()
        batch = Batch(self.step, len(tensors), training=True)
        for number, x in enumerate(tensors):
            self.endpoint.send(batch.frame(self.sends, number, x.nbytes), x)
        self.step += 1

    def receive(self, count: int) -> None:
        """Wait for so many tensors."""
        for _ in range(count):
            self.endpoint.mailbox.take(self.receives)


class _Bare:
    """Through gloo alone, into memory that is already there; all sends and receives of a round are posted at once."""

    def __init__(self, rank: int, store: Store, address: str, tensors: Sequence[Tensor], answer: Tensor) -> None:
        groups = gloo_transport(store, rank, address)._groups  # one for each direction, as the framed have
        ways = groups[ACTIVATION_1], groups[ACTIVATION_2]
        self.out, self.into = ways if rank == SENDER else ways[::-1]
        self.peer = 1 - rank
        self.buffers = [torch.empty_like(x) for x in (tensors if rank == RECEIVER else [answer])]

    def send(self, tensors: Sequence[Tensor]) -> None:
        """Send."""
        self._wait([self.out.send([x], self.peer, 0) for x in tensors])

    def receive(self, count: int) -> None:
        """Wait for so many tensors."""
        self._wait([self.into.recv([buffer], self.peer, 0) for buffer in self.buffers[:count]])

    @staticmethod
    def _wait(works: Sequence[Work]) -> None:
        for work in works:
            work.wait()


_MAKE: dict[str, Callable[..., _Framed | _Bare]] = {FRAMED: _Framed, BARE: _Bare}
