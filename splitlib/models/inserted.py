"""Learned compressors are layers, put on both sides of a cut and trained with the model.

The sending side shrinks the tensor, the receiving side restores it: convolutions (003 §1.2 "Conv Insert", 002 §3 types
2 and 3), linear layers, and linear layers that start as the identity and shrink while they train (002 §1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from splitlib.errors import ConfigError
from splitlib.options import build, check_choices, described

Pair = tuple[nn.Module, nn.Module]

# --- Convolutions ----------------------------------------------------------------------------------------------------


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


def conv_pair(specs: tuple[ConvSpec, ...]) -> Pair:
    """Return (sending, receiving) stacks: the receiver undoes the sender's convolutions in reverse order."""
    sender = nn.Sequential(*(spec.shrink() for spec in specs))
    receiver = nn.Sequential(*(spec.restore() for spec in reversed(specs)))
    return sender, receiver


# --- Linear layers ---------------------------------------------------------------------------------------------------


class Insert(Protocol):
    """What can be inserted around both cuts of a text model, by name and options."""

    def pair(self, width: int, length: int) -> Pair:
        """Return new (sending, receiving) layers for hidden states [B, ``length``, ``width``]."""
        ...


@dataclass(frozen=True, kw_only=True)
class LinearInsert:
    """Two linear layers without bias: width to width * ratio, and back (002 §1.1)."""

    ratio: float = described(0.5, "share of the width that crosses the cut")
    start: str = described(
        "identity",
        "how the layers begin, passing the first features unchanged or as torch starts any",
        ("identity", "random"),
    )

    def __post_init__(self) -> None:
        check_choices(self)
        if not 0 < self.ratio <= 1:
            raise ConfigError(f"linear: ratio must be in (0, 1], not {self.ratio}")

    def pair(self, width: int, length: int) -> Pair:
        """Return the two layers; at the identity start and ratio 1 they change no bit of a float32 tensor."""
        narrow = max(1, round(width * self.ratio))
        sender, receiver = nn.Linear(width, narrow, bias=False), nn.Linear(narrow, width, bias=False)
        if self.start == "identity":
            nn.init.eye_(sender.weight)
            nn.init.eye_(receiver.weight)
        return sender, receiver


@dataclass(frozen=True, kw_only=True)
class DecayingLinearInsert:
    """Square linear layers that start as the identity and of which ever less is used (002 §1.2).

    Every ``steps`` training steps the kept rank is multiplied by ``rate``, ``iterations`` times.
    """

    steps: int = described(300, "training steps from one cut of the rank to the next")
    rate: float = described(0.9, "what each cut multiplies the rank by")
    iterations: int = described(9, "how many cuts there are")
    l1: float = described(0.0, "strength of the L1 penalty on the weights about to be cut")
    token_rate: float = described(0.0, "rate of a second set, which works along the tokens; 0: none")

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("iterations", self.iterations)):
            if value < 1:
                raise ConfigError(f"decaying_linear: {name} must be at least 1, not {value}")
        if not 0 < self.rate <= 1:
            raise ConfigError(f"decaying_linear: rate must be in (0, 1], not {self.rate}")
        if not 0 <= self.token_rate <= 1:
            raise ConfigError(f"decaying_linear: token_rate must be in [0, 1], not {self.token_rate}")
        if not 0 <= self.l1 < float("inf"):
            raise ConfigError(f"decaying_linear: l1 must be at least 0 and finite, not {self.l1}")

    def pair(self, width: int, length: int) -> Pair:
        """Return the two sides: one layer each, or two with a second set, which the receiver undoes first."""
        sender, receiver = self._set(width, self.rate, along_tokens=False)
        if not self.token_rate:
            return sender, receiver
        token_sender, token_receiver = self._set(length, self.token_rate, along_tokens=True)
        return nn.Sequential(sender, token_sender), nn.Sequential(token_receiver, receiver)

    def share(self, width: int, length: int, step: int) -> float:
        """Return the share of hidden states [B, ``length``, ``width``] that crosses after ``step`` training steps."""
        kept = Decay(width, self.steps, self.rate, self.iterations).kept(step) / width
        if not self.token_rate:
            return kept
        return kept * Decay(length, self.steps, self.token_rate, self.iterations).kept(step) / length

    def shortened(self, share: float) -> DecayingLinearInsert:
        """Return the schedule for a run of ``share`` times as many steps, at most 1.

        It ends after the same share of the run and at the same share of the width; cuts that would come less than a
        step apart become one.

        >>> DecayingLinearInsert(steps=100, rate=0.9, iterations=9).shortened(0.05).steps
        5
        """
        end = self.steps * self.iterations * share
        cuts = max(1, min(self.iterations, round(end)))
        merged = self.iterations / cuts
        return replace(
            self,
            steps=max(1, round(end / cuts)),
            rate=self.rate**merged,
            iterations=cuts,
            token_rate=self.token_rate**merged,
        )

    def _set(self, size: int, rate: float, *, along_tokens: bool) -> Pair:
        decay = Decay(size, self.steps, rate, self.iterations)
        sender, receiver = (
            DecayingLinear(decay, sends=sends, along_tokens=along_tokens, l1=self.l1) for sends in (True, False)
        )
        return sender, receiver


@dataclass(frozen=True)
class Decay:
    """How much of ``size`` is kept after a number of training steps.

    >>> [Decay(768, steps=100, rate=0.9, iterations=9).kept(step) for step in (0, 99, 100, 200, 900, 5000)]
    [768, 768, 691, 622, 297, 297]
    """

    size: int
    steps: int
    rate: float
    iterations: int

    def kept(self, step: int) -> int:
        """Return the rank after ``step`` steps: the document's formula, so truncation does not add up over the cuts."""
        return max(1, int(self.size * self.rate ** min(step // self.steps, self.iterations)))

    def kept_next(self, step: int) -> int:
        """Return the rank after the next cut."""
        return self.kept(step + self.steps)


class DecayingLinear(nn.Module):
    """One square layer, of whose matrix only a slice is used: the first rows where it sends, columns where it receives.

    The parameter keeps its full shape, so the optimizer's state stays valid through every cut.
    """

    def __init__(self, decay: Decay, *, sends: bool, along_tokens: bool, l1: float) -> None:
        super().__init__()
        self.decay, self.l1, self.along_tokens = decay, l1, along_tokens
        self.cut_dimension = 0 if sends else 1
        self.weight = nn.Parameter(torch.eye(decay.size))
        self.steps_taken = 0

    @property
    def kept(self) -> int:
        """Rows or columns in use."""
        return self.decay.kept(self.steps_taken)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [B, L, D] to [B, L, kept] or [B, kept, D] where it sends, and back where it receives."""
        matrix = self.weight.narrow(self.cut_dimension, 0, self.kept)
        return matrix @ hidden if self.along_tokens else nn.functional.linear(hidden, matrix)

    def penalty(self) -> Tensor:
        """Return l1 * the absolute sum of the weights that the next cut removes.

        Its gradient is the sign of the weight. The listing in 002 §1.2 takes the sign of the gradient, which is no L1
        penalty. As part of the loss it counts once a batch, whatever the micro-batches and the loss scale.
        """
        after = self.decay.kept_next(self.steps_taken)
        doomed = self.weight.narrow(self.cut_dimension, after, self.kept - after)
        return self.l1 * doomed.abs().sum()

    def step(self) -> None:
        """Count one training step of the whole batch; the trainer calls this after each optimizer step."""
        self.steps_taken += 1

    def get_extra_state(self) -> Tensor:
        """Put the count into the state dict: without it a resumed run would start at full rank."""
        return torch.tensor(self.steps_taken)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the count from the state dict."""
        self.steps_taken = int(state)


# --- By name ---------------------------------------------------------------------------------------------------------

INSERTS: dict[str, type[Insert]] = {
    "linear": LinearInsert,
    "decaying_linear": DecayingLinearInsert,
}


def make_insert(name: str, **options: Any) -> Insert:
    """Return the insert ``name`` with its parameters.

    >>> make_insert("linear", ratio=0.25)
    LinearInsert(ratio=0.25, start='identity')

    Raises:
        ConfigError: the name or a parameter is unknown, or a parameter has the wrong type or an impossible value.
    """
    return build("insert", INSERTS, name, options)
