"""One micro-batch through the layers of a model and back: how long each layer takes, and what leaves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from splitlib.models.units import Values
from splitlib.pipeline.engine import batch_loss
from splitlib.pipeline.stage import Stage
from splitlib.planner.costs import ACTIVATION
from splitlib.runtime import timed


@dataclass(frozen=True)
class Tensors:
    """What one micro-batch sends over each possible cut."""

    outputs: Sequence[Tensor]
    """Of each layer."""
    gradients: Sequence[Tensor | None]
    """Of each layer's input."""
    beside: Values

    def at(self, direction: str, cut: int) -> Tensor | None:
        """Return the tensor at the cut after ``cut`` layers; None for a gradient that nothing needs."""
        return self.outputs[cut - 1] if direction == ACTIVATION else self.gradients[cut]


@dataclass
class Pass:
    """One micro-batch through all layers and back, each cut off from the next as at a cut."""

    stages: Sequence[Stage]
    leaves: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    forward_seconds: list[float] = field(default_factory=list)
    backward_seconds: list[float] = field(default_factory=list)

    def forward(self, inputs: Values, labels: Tensor, *, share: float) -> None:
        """Go forward; the last layer's time has the loss in it, which is ``share`` of the batch's."""
        values, needed = inputs, False
        for number, stage in enumerate(self.stages):
            leaf = values[0].detach().requires_grad_(needed)
            last = number == len(self.stages) - 1
            made, seconds = timed(self._run, stage, (leaf, *values[1:]), labels if last else None, share)
            self.leaves.append(leaf)
            self.outputs.append(made[0])
            self.forward_seconds.append(seconds)
            values, needed = made, made[0].requires_grad

    def _run(self, stage: Stage, values: Values, labels: Tensor | None, share: float) -> Values:
        made: Values = stage(values, 0)
        return made if labels is None else (batch_loss(made[0], labels) * share,)

    def backward(self, scale: Callable[[Tensor], Tensor]) -> None:
        """Go back as far as anything trains."""
        upstream: Tensor | None = None
        seconds = []
        for output, leaf in zip(reversed(self.outputs), reversed(self.leaves), strict=True):
            if not output.requires_grad:
                seconds.append(0.0)
                continue
            target = scale(output) if upstream is None else output
            seconds.append(timed(target.backward, upstream)[1])
            upstream = leaf.grad
        self.backward_seconds = seconds[::-1]
