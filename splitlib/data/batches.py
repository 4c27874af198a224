"""Batches in an order, and with an augmentation, that depend on the seed and the epoch alone.

Not on how many workers load them, how they are batched, or where a resumed run starts. Loading leaves torch's global
random state as it was: dropout draws from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from splitlib.data.loading import Sample, TaskData, check_batch_size
from splitlib.data.order import epoch_order, mix
from splitlib.runtime import turn_to_draw

Batch = tuple[tuple[Tensor, ...], Tensor]


class Batches(Protocol):
    """What :func:`train_batches` and :func:`eval_batches` return, wherever images are augmented."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


def train_batches(
    data: TaskData, *, batch_size: int, seed: int, epoch: int, start: int = 0, workers: int = 0
) -> Batches:
    """Return the shuffled, augmented training batches of one epoch as ``(inputs, labels)``, labels [B] int64.

    The last incomplete batch is dropped. A resumed run names in ``start`` how many batches it has already seen;
    ``len()`` counts those that are left. Resident images need no ``workers``.

    Raises:
        ConfigError: a batch holds more than the whole training set.
    """
    size = len(data.train)  # type: ignore[arg-type]
    check_batch_size(batch_size, size)
    if data.resident is not None:
        return data.resident.train_batches(batch_size=batch_size, seed=seed, epoch=epoch, start=start)
    sampler = _EpochSampler(size, seed=seed, epoch=epoch, skip=start * batch_size)
    return _loader(_Reseeded(data.train), batch_size, workers, sampler=sampler, drop_last=True)


def eval_batches(data: TaskData, *, batch_size: int, workers: int = 0) -> Batches:
    """Return the evaluation batches in the data's order as ``(inputs, labels)``; the last may be short."""
    if data.resident is not None:
        return data.resident.eval_batches(batch_size=batch_size)
    return _loader(data.eval, batch_size, workers)


def _loader(samples: Dataset[Any], batch_size: int, workers: int, **options: Any) -> DataLoader[Any]:
    # A loader without its own generator draws its workers' seed from the global one.
    return DataLoader(
        samples, batch_size, num_workers=workers, collate_fn=_collate, generator=torch.Generator(), **options
    )


def _collate(samples: list[Sample]) -> Batch:
    """Stack samples into a batch; torch's own collation would turn the tuple of inputs into a list."""
    inputs, labels = zip(*samples, strict=True)
    return tuple(torch.stack(tensors) for tensors in zip(*inputs, strict=True)), torch.tensor(labels)


class _EpochSampler(Sampler[tuple[int, int]]):
    """An epoch's order as (index, seed of its augmentation), without the first ``skip``."""

    def __init__(self, size: int, *, seed: int, epoch: int, skip: int) -> None:
        self.size, self.seed, self.epoch, self.skip = size, seed, epoch, skip

    def __len__(self) -> int:
        return max(0, self.size - self.skip)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for index in epoch_order(self.size, self.seed, self.epoch).tolist()[self.skip :]:
            yield index, mix(self.seed, self.epoch, index)


class _Reseeded(Dataset[Sample]):
    """Samples by (index, seed): whatever is random in a sample follows from its seed, and nothing outlasts it."""

    def __init__(self, samples: Dataset[Sample]) -> None:
        self.samples = samples

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        index, seed = key
        with turn_to_draw() as generator, torch.random.fork_rng(devices=[]):
            generator.manual_seed(seed)
            return self.samples[index]
