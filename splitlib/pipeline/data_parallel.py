"""Data parallel, what the pipeline has to beat: whole replicas of the model, each with its share of every batch.

One process for each device: gloo between CPUs, NCCL between GPUs. torch's DistributedDataParallel averages the
gradients while the backward pass still computes, so every replica takes the same step.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from splitlib.errors import ConfigError
from splitlib.pipeline.boundary import Traffic
from splitlib.pipeline.channel import Channel
from splitlib.pipeline.engine import Engine, Scale, batch_loss, unscaled
from splitlib.pipeline.processes import MEETING
from splitlib.pipeline.stage import CurrentStep, Stage
from splitlib.runtime import pick_device

_TIMEOUT = datetime.timedelta(minutes=30)


@dataclass(frozen=True, kw_only=True)
class Group:
    """This process's place among the replicas."""

    rank: int
    size: int
    device: torch.device

    def share(self, tensor: Tensor) -> Tensor:
        """Return this replica's rows of a batch, on its device."""
        return tensor.chunk(self.size)[self.rank].to(self.device, non_blocking=True)


def in_group() -> bool:
    """Say whether this process is one of several that torchrun, or :func:`run_together`, started."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def follows() -> bool:
    """Say whether this process is a replica other than the first, which speaks for all."""
    return in_group() and os.environ["RANK"] != "0"


def replica_devices(names: str, replicas: int) -> list[torch.device]:
    """Return a device for each replica: as many GPUs as ``auto`` or ``cuda`` need, the CPU for all, or those named.

    >>> replica_devices("cpu", 2)
    [device(type='cpu'), device(type='cpu')]

    Raises:
        ConfigError: there are too few GPUs, or another number of devices is named; NCCL wants a GPU for each process.
    """
    if names == "auto":
        names = "cuda" if torch.cuda.is_available() else "cpu"
    listed = [name.strip() for name in names.split(",")]
    if listed == ["cuda"]:
        listed = [f"cuda:{index}" for index in range(replicas)]
    devices = [pick_device(name) for name in listed * (replicas if listed == ["cpu"] else 1)]
    if len(devices) != replicas or len({device.type for device in devices}) > 1:
        raise ConfigError(f"{replicas} replicas need {replicas} devices of one kind, or cpu for all, not {names!r}")
    if devices[0].type == "cuda" and len(set(devices)) < replicas:
        raise ConfigError(f"{replicas} replicas need {replicas} different GPUs, not {names!r}")
    return devices


@contextmanager
def joined(replicas: int, devices: str) -> Iterator[Group]:
    """Be one of the replicas for the block.

    Raises:
        ConfigError: other than ``replicas`` processes were started, or a device is missing.
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if size != replicas:
        raise ConfigError(f"replicas {replicas}, but {size} processes were started; let them agree")
    if rank:
        os.environ["SPLITLIB_PROGRESS"] = "none"  # one of them is enough to watch
    device = replica_devices(devices, replicas)[rank]
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    method = f"file://{os.environ[MEETING]}" if MEETING in os.environ else "env://"
    dist.init_process_group(backend, init_method=method, rank=rank, world_size=size, timeout=_TIMEOUT)
    try:
        yield Group(rank=rank, size=size, device=device)
    finally:
        dist.destroy_process_group()


class DataParallel(Engine):
    """One replica of the unsplit model.

    Gradients are the whole batch's, but for batch norm, which normalises each share by its own statistics; the first
    replica's running ones count for all. Dropout draws for each share what a pipeline draws for that micro-batch.
    Evaluation is every replica's own work, on all samples.
    """

    def __init__(self, model: nn.Module, group: Group, *, precision: str = "fp32", seed: int = 0) -> None:
        """``model`` maps a tuple of tensors to a tuple that starts with the logits."""
        super().__init__()
        self.group, self.device, self.leads = group, group.device, group.rank == 0
        self.traffic, self.current = Traffic(), CurrentStep(seed)
        stage = Stage(model, 0, self.current, precision, group.device).to(group.device)
        self.replica = DistributedDataParallel(stage)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logits of all the inputs given."""
        (logits,) = self.replica(tuple(x.to(self.device) for x in inputs), self.group.rank)
        return logits

    def train_batch(self, inputs: tuple[Tensor, ...], labels: Tensor, *, step: int, scale: Scale = unscaled) -> float:
        """As :meth:`Engine.train_batch`; every replica gets the whole batch and takes its share."""
        self.current.step = step
        loss = batch_loss(self(*map(self.group.share, inputs)), self.group.share(labels))
        scale(loss).backward()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        return mean.item() / self.group.size

    def channels(self) -> list[Channel]:
        """As :meth:`Engine.channels`: nothing is cut."""
        return []
