"""What is random in an epoch follows from its seed and number alone, whatever was drawn before."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def epoch_order(size: int, *, seed: int, epoch: int) -> Tensor:
    """Return the order in which an epoch sees ``size`` samples, [size] int64.

    >>> epoch_order(4, seed=0, epoch=1).sort().values.tolist()
    [0, 1, 2, 3]
    """
    return torch.randperm(size, generator=torch.Generator().manual_seed(mix(seed, epoch)))


def mix(*numbers: int) -> int:
    """Hash numbers into a seed: neighbouring seeds, epochs and samples must not share a stream."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:7])
