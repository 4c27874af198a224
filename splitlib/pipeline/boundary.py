"""The cut itself: one autograd function sends activations forward and gradients backward, each through its compressor.

The original wrote the cross product of methods and directions out by hand; here the compressors are arguments.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from splitlib.compressors import Compressor
from splitlib.errors import ConfigError
from splitlib.pipeline.channel import Coding, Place

_ADDING = threading.Lock()


@dataclass
class Traffic:
    """What crossed the cuts while training: exact bytes of the payloads, and of what would cross without compression.

    Layers inserted before a cut compress too: uncompressed is the tensor that they were given.
    """

    activation_bytes: int = 0
    gradient_bytes: int = 0
    uncompressed_bytes: int = 0

    def add(self, *, activation: int = 0, gradient: int = 0, uncompressed: int = 0) -> None:
        """Count bytes; stages on several devices do so at the same time, each in a thread of its own."""
        with _ADDING:
            self.activation_bytes += activation
            self.gradient_bytes += gradient
            self.uncompressed_bytes += uncompressed

    @property
    def sent_bytes(self) -> int:
        """Bytes of all payloads, headers included."""
        return self.activation_bytes + self.gradient_bytes

    @property
    def compression_ratio(self) -> float:
        """Bytes sent over bytes uncompressed; smaller is better."""
        return self.sent_bytes / self.uncompressed_bytes if self.uncompressed_bytes else 1.0


def uncompressed_nbytes(x: Tensor, shrinkage: float) -> int:
    """Return the bytes that ``x`` would have had before layers inserted in front of it made it so much smaller."""
    return round(x.numel() * x.element_size() * shrinkage)


class _Cross(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, boundary: Boundary, place: Place) -> Tensor:
        ctx.boundary, ctx.place = boundary, place
        received, nbytes = boundary.forth.cross(x, place)
        if boundary.training:
            boundary.traffic.add(activation=nbytes, uncompressed=boundary.uncompressed(x))
        return received

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        boundary = ctx.boundary
        if not boundary.returns:
            return gradient, None, None
        received, nbytes = boundary.back.cross(gradient, ctx.place)
        boundary.traffic.add(gradient=nbytes, uncompressed=boundary.uncompressed(gradient))
        return received, None, None


class Boundary(nn.Module):
    """One cut between two stages: encodes the first tensor, passes the others (an attention mask) as they are.

    The others are not counted, so none of them may need a gradient: it would come back whole and uncounted, too.

    Compression stays on in evaluation, where the deployed model would use it too. Only training is metered, and only
    training changes the compressors' state, from which evaluation starts as well.
    """

    def __init__(
        self,
        activations: Compressor,
        gradients: Compressor,
        traffic: Traffic,
        shrinkage: Callable[[], float] = lambda: 1.0,
        coding: Coding = Coding(),  # noqa: B008  # frozen
        returns: bool = True,
    ) -> None:
        """With ``returns=False`` nothing before the cut trains, so no gradient crosses, whatever asks for one."""
        super().__init__()
        self.forth, self.back = coding.activations(activations), coding.gradients(gradients)
        self.traffic, self.shrinkage, self.coding, self.returns = traffic, shrinkage, coding, returns

    def uncompressed(self, x: Tensor) -> int:
        """Return the bytes that would cross instead of ``x`` if nothing compressed it, inserted layers included."""
        return uncompressed_nbytes(x, self.shrinkage())

    def forward(self, values: tuple[Tensor, ...], step: int = 0, micro_batch: int = 0) -> tuple[Tensor, ...]:
        """Return the tensors as the receiving stage sees them; shapes and dtypes stay.

        Raises:
            ConfigError: a tensor beside the first one needs a gradient.
        """
        x, *beside = values
        if trained := sum(other.requires_grad for other in beside):
            raise ConfigError(
                f"{trained} of the {len(beside)} tensors that cross a cut beside the first need gradients, but only "
                "the first is compressed and counted; join them with torch.cat, or detach them"
            )
        mask = beside[0] if beside else None
        place = self.coding.place(step, micro_batch, mask=mask, training=self.training)
        return (_Cross.apply(x, self, place), *beside)
