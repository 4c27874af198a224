"""Learned compressors are layers: convolutions put on both sides of a cut and trained with the model.

The sending side shrinks the tensor with a strided convolution, the receiving side restores it with the mirrored
transposed one (003 §1.2 "Conv Insert", 002 §3 types 2 and 3).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class ConvSpec:
    """One inserted convolution: channels in and out, and a kernel that equals its stride, so patches do not overlap."""

    channels_in: int
    channels_out: int
    kernel: int

    def shrink(self) -> nn.Module:
        """Return the layer of the sending side: [B, in, H, W] to [B, out, H / kernel, W / kernel]."""
        return nn.Conv2d(self.channels_in, self.channels_out, self.kernel, stride=self.kernel)

    def restore(self) -> nn.Module:
        """Return the layer of the receiving side; it restores the shape where the kernel divides H and W."""
        return nn.ConvTranspose2d(self.channels_out, self.channels_in, self.kernel, stride=self.kernel)


def conv_pair(specs: tuple[ConvSpec, ...]) -> tuple[nn.Sequential, nn.Sequential]:
    """Return (sending, receiving) stacks: the receiver undoes the sender's convolutions in reverse order."""
    sender = nn.Sequential(*(spec.shrink() for spec in specs))
    receiver = nn.Sequential(*(spec.restore() for spec in reversed(specs)))
    return sender, receiver
