"""A stage as every engine runs it: in its precision, with random numbers that depend on nothing that ran before."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from splitlib.models.units import Values
from splitlib.runtime import turn_to_draw

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class CurrentStep:
    """The run's seed, and which optimizer step its stages are in: their engine sets that before each batch."""

    seed: int = 0
    step: int = 0


class Stage(nn.Module):
    """One part of a split model, called with one micro-batch after the other.

    In training, its device's generator is seeded before each micro-batch from the run's seed, the step, the stage
    and the micro-batch. So dropout is the same whichever engine runs the stages, in whatever order and on however many
    machines.
    """

    def __init__(
        self, layers: nn.Module, index: int, current: CurrentStep, precision: str, device: torch.device
    ) -> None:
        super().__init__()
        self.layers, self.index, self.current, self.precision = layers, index, current, precision
        self.device = device

    def forward(self, values: Values, micro_batch: int, step: int | None = None) -> Values:
        """Return what the stage makes of the ``micro_batch``-th part of the batch of ``step``, or else the current."""
        if not self.training:
            return self._compute(values)
        step = self.current.step if step is None else step
        with turn_to_draw(self.device) as generator:
            generator.manual_seed(stage_seed(self.current.seed, step, self.index, micro_batch))
            return self._compute(values)

    def _compute(self, values: Values) -> Values:
        with self._autocast():
            return self.layers(values)

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        """Return autocast as a stage enters it itself: torchgpipe's threads do not inherit it."""
        dtype = PRECISIONS.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype) if dtype else nullcontext()


def stage_seed(*numbers: int) -> int:
    """Return 64 bits that look random and depend on all the numbers, the same on every machine.

    >>> stage_seed(0, 1, 2, 3) == stage_seed(0, 1, 2, 3) != stage_seed(0, 1, 3, 2)
    True
    """
    text = ",".join(map(str, numbers))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
