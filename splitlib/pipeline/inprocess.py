"""All stages in one process: torchgpipe runs micro-batches through them on any list of devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchgpipe import GPipe

from splitlib.compressors import Compressor, Identity
from splitlib.errors import ConfigError
from splitlib.models.units import Sender
from splitlib.pipeline.arguments import (
    Devices,
    check_choices,
    check_chunks,
    check_inputs,
    codecs_of,
    devices_of,
    stages_of,
)
from splitlib.pipeline.boundary import Boundary, Traffic
from splitlib.pipeline.channel import Channel, Coding
from splitlib.pipeline.engine import Engine, Scale, batch_loss, unscaled
from splitlib.pipeline.inline import compute_inline
from splitlib.pipeline.parts import trains
from splitlib.pipeline.recompute import recomputed, run_twice
from splitlib.pipeline.stage import CurrentStep, Stage


class _Counted(nn.Module):
    """A stage behind its boundary, for torchgpipe, which calls it with one micro-batch after the other."""

    def __init__(self, stage: Stage, boundary: Boundary | None, current: CurrentStep) -> None:
        super().__init__()
        self.boundary, self.stage, self.current, self.calls = boundary, stage, current, 0
        self.twice = 0
        """How many micro-batches, from the first, are run again in the backward pass."""

    def forward(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        micro_batch, self.calls = self.calls, self.calls + 1
        if self.boundary is not None:
            values = self.boundary(values, self.current.step, micro_batch)
        if micro_batch < self.twice:
            return run_twice(self.stage, values, micro_batch)
        return self.stage(values, micro_batch)


class Pipeline(Engine):
    """The stages as one module: inputs to logits, micro-batched, differentiable.

    It trains as any module does: call it, take a loss of what it returns, ``backward``, step an optimizer. Or
    :meth:`train_batch` does all but the last with the cross-entropy, at a step of its caller's. :attr:`traffic` adds up
    the bytes of all training batches.

    With the loss ``mean``, taken over the whole batch's logits, gradients are the unsplit batch's. With ``sum`` each
    micro-batch's mean is back-propagated undivided, as the original did: gradients are as many times larger as there
    are micro-batches; that is :meth:`train_batch`'s alone.
    """

    def __init__(
        self,
        gpipe: GPipe,
        traffic: Traffic,
        current: CurrentStep,
        coding: Coding,
        *,
        recompute: str,
        micro_batch_loss: str,
    ) -> None:
        super().__init__()
        self.gpipe, self.traffic, self.current, self.coding = gpipe, traffic, current, coding
        self.recompute, self.micro_batch_loss = recompute, micro_batch_loss
        self.device = gpipe.devices[-1]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return what the last stage makes of ``inputs``, [B, ...] each, such as logits [B, classes], on its device.

        In training each call is a step of its own, in which dropout draws anew.

        Raises:
            ConfigError: an input is no tensor, or the last stage returns several.
        """
        made = self._run(inputs)
        self.current.step += self.training
        return made

    def _run(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Return what the last stage makes of ``inputs`` in the current step."""
        check_inputs(inputs)
        keeps_graph = self.training and torch.is_grad_enabled()
        twice = recomputed(self.recompute, len(inputs[0].chunk(self.gpipe.chunks))) if keeps_graph else 0
        for module in self.modules():
            if isinstance(module, _Counted):
                module.calls, module.twice = 0, twice
        first = self.gpipe.devices[0]
        logits, *others = self.gpipe(tuple(x.to(first, non_blocking=True) for x in inputs))
        if others:
            raise ConfigError(f"the last stage returns {1 + len(others)} tensors; return one, such as the logits")
        return logits

    def train_batch(self, inputs: tuple[Tensor, ...], labels: Tensor, *, step: int, scale: Scale = unscaled) -> float:
        """As :meth:`Engine.train_batch`."""
        self.current.step = step
        logits = self._run(inputs)
        loss = batch_loss(logits, labels)
        if self.micro_batch_loss == "sum":
            parts = zip(logits.chunk(self.gpipe.chunks), labels.chunk(self.gpipe.chunks), strict=True)
            scale(torch.stack([batch_loss(*part) for part in parts]).sum()).backward()
        else:
            scale(loss).backward()
        return loss.item()

    def channels(self) -> list[Channel]:
        """As :meth:`Engine.channels`."""
        return [channel for boundary in self.boundaries() for channel in (boundary.forth, boundary.back)]

    def boundaries(self) -> list[Boundary]:
        """Return the cuts, from the first on."""
        return [module for module in self.modules() if isinstance(module, Boundary)]


def build_pipeline(
    parts: Sequence[nn.Module],
    *,
    devices: Devices = None,
    chunks: int = 1,
    activations: Compressor | Sequence[Compressor] = Identity(),  # noqa: B008  # copied
    gradients: Compressor | Sequence[Compressor] = Identity(),  # noqa: B008  # copied
    precision: str = "fp32",
    seed: int = 0,
    recompute: str = "never",
    batch_norm: str = "micro_batch",
    micro_batch_loss: str = "mean",
    coding: Coding = Coding(),  # noqa: B008  # frozen
) -> Pipeline:
    """Return ``parts`` as a torchgpipe pipeline with a boundary before each stage but the first.

    >>> from splitlib.compressors import make_compressor
    >>> model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))
    >>> pipeline = build_pipeline(
    ...     [model[:2], model[2:4], model[4:]],
    ...     chunks=4,
    ...     activations=make_compressor("sort", level_bits=6, bin_bits=2),
    ...     gradients=make_compressor("uniform", bits=4),
    ... )
    >>> loss = nn.functional.cross_entropy(pipeline(torch.randn(256, 20)), torch.zeros(256, dtype=torch.long))
    >>> loss.backward()
    >>> pipeline.traffic
    Traffic(activation_bytes=33472, gradient_bytes=16896, uncompressed_bytes=262144)
    >>> round(pipeline.traffic.compression_ratio, 4)
    0.1921

    Args:
        parts: the stages, any modules; moved to their devices, and not copied. As in torchgpipe a stage takes a tensor
            [B, ...], or a tuple of several, and returns the same; the last one returns one tensor. Of several that
            cross a cut the first is compressed and counted; the others, such as a mask, cross as they are. A
            :class:`~splitlib.models.units.Unit`, of which :func:`~splitlib.partition.split` makes its parts, always
            takes and returns a tuple. Which parameters train must be settled before: no gradient crosses a cut that
            has none before it.
        devices: one for all stages, or one for each, as :class:`torch.device` or by name; a device may serve several.
            By default each stage stays where its weights are.
        chunks: micro-batches, of equal size but for the last; a batch of fewer samples makes fewer.
        activations: encodes what goes forward: one compressor for all cuts, or one for each. Every cut and direction
            works with its own copy, since compressors may learn from the tensors they encode. By default nothing is
            compressed, but counted.
        gradients: encodes what comes back, in the same way.
        precision: fp32, or the dtype every stage autocasts to.
        seed: what dropout depends on, beside the step; weights are the stages' own.
        recompute: which micro-batches a stage runs again in the backward pass instead of keeping their activations:
            ``never``, ``except_last`` or ``always``. Losses and weights are the same bit for bit.
        batch_norm: each micro-batch is normalised by its own statistics. ``micro_batch`` moves the running ones with
            each of them, so they forget faster the more there are. ``deferred``, torchgpipe's, moves them once a
            batch, but towards the biased variance, and only after ``chunks`` micro-batches. ``frozen`` is a matter of
            the parts: they hold :class:`~splitlib.models.mobilenet.FrozenStatistics`, and nothing moves.
        micro_batch_loss: ``mean`` or ``sum``, see :class:`Pipeline`.
        coding: what the channels at the cuts make of padding and of tensors that they saw before.

    Raises:
        ConfigError: a stage is no module, shares a weight with another, or would overwrite in place what crossed its
            cut; devices or compressors are no such thing or do not fit the stages in number; a mode has no such value;
            or the precision is not one this device can train in. While it runs: a stage returns something else than
            tensors, or further tensors that need gradients.
    """
    parts = stages_of(parts)
    devices = devices_of(devices, parts)
    check_chunks(chunks)
    check_choices(precision=precision, recompute=recompute, batch_norm=batch_norm, micro_batch_loss=micro_batch_loss)
    check_precision(precision, devices)
    traffic, current = Traffic(), CurrentStep(seed)
    cuts = len(parts) - 1
    codecs = zip(codecs_of("activations", activations, cuts), codecs_of("gradients", gradients, cuts), strict=True)
    boundaries = [
        Boundary(*pair, traffic, shrinkage(parts[cut]), coding, trains(*parts[: cut + 1]))
        for cut, pair in enumerate(codecs)
    ]
    stages = [
        _Counted(Stage(part, index, current, precision, device), boundary, current)
        for index, (part, device, boundary) in enumerate(zip(parts, devices, [None, *boundaries], strict=True))
    ]
    compute_inline()
    gpipe = GPipe(
        nn.Sequential(*stages),
        balance=[1] * len(stages),
        devices=devices,
        chunks=chunks,
        checkpoint="never",  # a stage recomputes by itself, see splitlib.pipeline.recompute
        deferred_batch_norm=batch_norm == "deferred",
    )
    return Pipeline(gpipe, traffic, current, coding, recompute=recompute, micro_batch_loss=micro_batch_loss)


def shrinkage(stage: nn.Module) -> Callable[[], float]:
    """Return how to ask by how much the layers inserted at the end of ``stage`` shrank what it sent."""
    senders = [module for module in stage.modules() if isinstance(module, Sender)]
    return lambda: math.prod(sender.shrinkage for sender in senders)


def check_precision(precision: str, devices: Sequence[torch.device]) -> None:
    """Refuse fp16 training on a CPU, for the reason 003 §2 gives."""
    if precision == "fp16" and any(device.type == "cpu" for device in devices):
        raise ConfigError(
            "fp16 training on a CPU is refused: 003 §2 found that layer normalisation does not train in 16 bits there, "
            "and NaN losses with Adam; use --precision bf16 or fp32, or --device cuda"
        )
