"""Which samples make up which batch: a function of the seed and the step alone, so every machine can tell.

The client needs it to load data, and both sides of a cut to find what they remember of a sample.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


def mix(*numbers: int) -> int:
    """Hash numbers into a seed: neighbouring seeds, epochs and samples must not share a stream."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:7])


@functools.lru_cache(maxsize=4)
def epoch_order(samples: int, seed: int, epoch: int) -> Tensor:
    """Return the indices [samples] of the training samples in the order in which ``epoch`` takes them."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(mix(seed, epoch)))


@dataclass(frozen=True)
class BatchOrder:
    """The batches of a run; the last incomplete one of an epoch is dropped.

    >>> BatchOrder(samples=10, batch_size=4, seed=0).at(3).tolist() == epoch_order(10, 0, 1)[4:8].tolist()
    True
    """

    samples: int
    batch_size: int
    seed: int

    def at(self, step: int) -> Tensor:
        """Return the indices [batch_size] of the samples in the batch of an optimizer step, counted from 0."""
        epoch, batch = divmod(step, self.samples // self.batch_size)
        start = batch * self.batch_size
        return epoch_order(self.samples, self.seed, epoch)[start : start + self.batch_size]
