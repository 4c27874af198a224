"""What happens to weights between two batches: optimizer, schedule, loss scaling, decaying layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from splitlib.config import POLYNOMIAL_END, RunConfig
from splitlib.models.inserted import DecayingLinear


def rate_left(schedule: str, step: int, *, warmup: int, total: int, lr: float) -> float:
    """Return the share of the learning rate ``lr`` at ``step`` of ``total``; it grows from 0 over the first ``warmup``.

    The same numbers as transformers' schedules, whose import would double the time in which a vision run starts.

    >>> [rate_left("linear", step, warmup=2, total=6, lr=0.1) for step in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step < warmup:
        return step / warmup
    done, steps = step - warmup, max(1, total - warmup)
    if schedule == "linear":
        return max(0.0, (steps - done) / steps)
    if schedule == "cosine":
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * (done / steps))))
    if schedule == "polynomial":
        return ((lr - POLYNOMIAL_END) * (1 - min(1.0, done / steps)) + POLYNOMIAL_END) / lr
    return 1.0


class Updater:
    """Steps one process's part of a model; client and server of a split model have one each."""

    def __init__(self, model: nn.Module, config: RunConfig, *, total_steps: int, device: torch.device) -> None:
        self.optimizer = make_optimizer(model, config)
        warmup = round(config.warmup * total_steps)
        left = partial(rate_left, config.scheduler, warmup=warmup, total=total_steps, lr=config.lr)
        self.scheduler = LambdaLR(self.optimizer, left)
        self.decaying = [module for module in model.modules() if isinstance(module, DecayingLinear)]
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    def zero_grad(self) -> None:
        """Forget the last batch's gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def scale(self, loss: Tensor) -> Tensor:
        """Return what to back-propagate for ``loss``: scaled in fp16, else itself."""
        return self.scaler.scale(loss)

    def step(self) -> None:
        """Add the penalties' gradients to the batch's, take one step, and let learning rate and ranks decay.

        Penalties come after the batch, so that gradients add up in one order wherever the layers are.
        """
        for layer in self.decaying:
            self.scale(layer.penalty()).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        for layer in self.decaying:
            layer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes."""
        return {name: getattr(self, name).state_dict() for name in _PARTS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])


_PARTS = ("optimizer", "scheduler", "scaler")


def make_optimizer(model: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    """Return the optimizer of ``config`` over the parameters that train."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(
        parameters, config.lr, betas=(0.9, config.adam_beta2), eps=config.adam_eps, weight_decay=config.weight_decay
    )
