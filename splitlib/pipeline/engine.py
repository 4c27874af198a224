"""What trains a split model: every engine takes the same batches and gives the same losses, on other machinery."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from splitlib.compressors import Compressor
from splitlib.config import RunConfig
from splitlib.pipeline.boundary import Traffic
from splitlib.pipeline.channel import Channel, Coding, State
from splitlib.pipeline.parts import weights_norm
from splitlib.timeline import Span

Scale = Callable[[Tensor], Tensor]


def unscaled(loss: Tensor) -> Tensor:
    """Return the loss as it is, which is what every precision but fp16 back-propagates."""
    return loss


@dataclass(frozen=True, kw_only=True)
class Start:
    """What an engine's other machines need to know before the first batch."""

    config: RunConfig
    num_labels: int
    data_fingerprint: str
    total_steps: int
    """Of the whole run: the learning rate's schedule depends on it."""
    train_samples: int
    """Training samples: which of them a batch holds follows from the step."""
    step: int
    """Steps done before; all sides go on from their checkpoints of this step."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**{f.name: getattr(self, f.name) for f in fields(self)}, "config": self.config.to_dict()}


class Engine(nn.Module, ABC):
    """Runs batches through the stages. Its parameters are those that this process updates; the owner steps them.

    Called, it maps a batch's inputs to logits [B, classes]; compression stays on in evaluation.
    """

    traffic: Traffic
    device: torch.device
    """Where labels are needed and logits come out."""
    coding: Coding = Coding()
    """What its channels make of padding and of tensors that they saw before."""
    leads: bool = True
    """Whether this process writes the run's checkpoints and record: of several replicas, the first does."""

    @abstractmethod
    def train_batch(self, inputs: tuple[Tensor, ...], labels: Tensor, *, step: int, scale: Scale = unscaled) -> float:
        """Add a batch's gradients to the parameters' and return its mean loss.

        Args:
            inputs: what the model takes, [B, ...] each.
            labels: [B], the index of each sample's class; they never leave the client.
            step: optimizer steps before this one in the whole run. Dropout depends on it and on the seed, on nothing
                drawn before, so a resumed run and every engine draw the same.
            scale: what to back-propagate instead of the loss: fp16 scales it, by default it stays.
        """

    @abstractmethod
    def channels(self) -> Sequence[Channel]:
        """Return this process's channels at the cuts, cut by cut, activations before gradients."""

    def compressors(self) -> Sequence[Compressor]:
        """Return what encodes in this process, in the order of :meth:`channels`."""
        return [channel.codec for channel in self.channels()]

    def open(self, start: Start) -> None:
        """Get ready for the first batch; an engine of one process always is."""

    def keep(self, step: int) -> None:
        """Have the other machines write their checkpoints of ``step``, before this one writes its own."""

    def close(self, reason: str = "") -> None:
        """Let go of the other machines: the run is complete, or ended early for ``reason``."""

    def take_spans(self) -> list[Span]:
        """Return what both sides did when in the last training batch; an engine of one process keeps no time."""
        return []

    @property
    def parameter_count(self) -> int:
        """Parameters of all stages, wherever they are."""
        return sum(parameter.numel() for parameter in self.parameters())

    def weights_norm(self) -> float:
        """Return the L2 norm of all stages' weights and statistics, wherever they are; before the first step."""
        return weights_norm(self)

    def channel_state(self) -> list[State]:
        """Return what the channels have learnt, in the order of :meth:`channels`."""
        return [channel.state for channel in self.channels()]

    def load_channel_state(self, states: Sequence[State]) -> None:
        """Give the channels back what :meth:`channel_state` returned."""
        for channel, state in zip(self.channels(), states, strict=True):
            channel.state = state


def batch_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits [B, classes] in float32, whatever the stages computed in."""
    return nn.functional.cross_entropy(logits.float(), labels.to(logits.device))
