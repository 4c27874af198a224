"""The cut itself: one autograd function sends activations forward and gradients backward, each through its compressor.

The original wrote the cross product of methods and directions out by hand; here the compressors are arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from splitlib.compressors import HEADER_BYTES, Compressor, Identity, decode


@dataclass
class Traffic:
    """What crossed the cuts while training: exact bytes of the payloads, and of what would cross without compression.

    Layers inserted before a cut compress too: uncompressed is the tensor that they were given.
    """

    activation_bytes: int = 0
    gradient_bytes: int = 0
    uncompressed_bytes: int = 0

    @property
    def sent_bytes(self) -> int:
        """Bytes of all payloads, headers included."""
        return self.activation_bytes + self.gradient_bytes

    @property
    def compression_ratio(self) -> float:
        """Bytes sent over bytes uncompressed; smaller is better."""
        return self.sent_bytes / self.uncompressed_bytes if self.uncompressed_bytes else 1.0


def _through(codec: Compressor, x: Tensor, *, keep_state: bool) -> tuple[Tensor, int]:
    """Return what the other side receives and the bytes that took; ``keep_state`` leaves the codec as it was.

    The identity needs no encoding: its payload is the tensor's own bytes behind a header.
    """
    if isinstance(codec, Identity):
        return x.view_as(x), HEADER_BYTES + x.numel() * x.element_size()
    state = codec.state
    payload = codec.encode(x)
    if keep_state and codec.state is not state:
        codec.state = state
    return decode(payload), payload.nbytes


class _Cross(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, boundary: Boundary) -> Tensor:
        ctx.boundary = boundary
        received, nbytes = _through(boundary.activations, x, keep_state=not boundary.training)
        if boundary.training:
            boundary.traffic.activation_bytes += nbytes
            boundary.traffic.uncompressed_bytes += boundary.uncompressed(x)
        return received

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        boundary = ctx.boundary
        received, nbytes = _through(boundary.gradients, gradient, keep_state=not boundary.training)
        boundary.traffic.gradient_bytes += nbytes
        boundary.traffic.uncompressed_bytes += boundary.uncompressed(gradient)
        return received, None


class Boundary(nn.Module):
    """One cut between two stages: encodes the first tensor, passes the others (an attention mask) as they are.

    Compression stays on in evaluation, where the deployed model would use it too. Only training is metered, and only
    training changes the compressors' state, from which evaluation starts as well.
    """

    def __init__(
        self,
        activations: Compressor,
        gradients: Compressor,
        traffic: Traffic,
        shrinkage: Callable[[], float] = lambda: 1.0,
    ) -> None:
        super().__init__()
        self.activations, self.gradients, self.traffic, self.shrinkage = activations, gradients, traffic, shrinkage

    def uncompressed(self, x: Tensor) -> int:
        """Return the bytes that would cross instead of ``x`` if nothing compressed it, inserted layers included."""
        return round(x.numel() * x.element_size() * self.shrinkage())

    def forward(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the tensors as the receiving stage sees them; shapes and dtypes stay."""
        return (_Cross.apply(values[0], self), *values[1:])
