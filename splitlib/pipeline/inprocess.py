"""All stages in one process: torchgpipe runs micro-batches through them on any list of devices."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchgpipe import GPipe

from splitlib.compressors import Compressor
from splitlib.errors import ConfigError
from splitlib.partition import Sender
from splitlib.pipeline.boundary import Boundary, Traffic

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class _Autocast(nn.Module):
    """Run a stage under autocast. torchgpipe's worker threads do not inherit it, so each stage enters it itself."""

    def __init__(self, stage: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.stage, self.dtype, self.device_type = stage, dtype, device.type

    def forward(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with torch.autocast(self.device_type, dtype=self.dtype):
            return self.stage(values)


class Pipeline(nn.Module):
    """The stages as one module: inputs to logits, micro-batched, differentiable.

    The loss is taken over the whole batch's logits, so gradients are the unsplit batch's (the original back-propagated
    each micro-batch's mean undivided, which made them ``chunks`` times larger).
    """

    def __init__(self, gpipe: GPipe, traffic: Traffic) -> None:
        super().__init__()
        self.gpipe, self.traffic = gpipe, traffic

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return logits [B, classes] on the last stage's device."""
        first = self.gpipe.devices[0]
        (logits,) = self.gpipe(tuple(x.to(first, non_blocking=True) for x in inputs))
        return logits

    def _compressors(self) -> list[Compressor]:
        boundaries = [module for module in self.modules() if isinstance(module, Boundary)]
        return [codec for boundary in boundaries for codec in (boundary.activations, boundary.gradients)]

    def compressor_state(self) -> list[Tensor | None]:
        """Return what the compressors have learnt, cut by cut, activations before gradients."""
        return [codec.state for codec in self._compressors()]

    def load_compressor_state(self, states: Sequence[Tensor | None]) -> None:
        """Give the compressors back what :meth:`compressor_state` returned."""
        for codec, state in zip(self._compressors(), states, strict=True):
            if state is not None:
                codec.state = state


def build_pipeline(
    stages: Sequence[nn.Module],
    *,
    devices: Sequence[torch.device],
    chunks: int,
    activations: Compressor | Sequence[Compressor],
    gradients: Compressor | Sequence[Compressor],
    precision: str = "fp32",
) -> Pipeline:
    """Return ``stages`` as a torchgpipe pipeline with a boundary before each stage but the first.

    Args:
        stages: modules that map a tuple of tensors to a tuple of tensors; moved to their devices.
        devices: one for each stage; a device may serve several.
        chunks: micro-batches. Batch norm normalises each by its own statistics and updates its running ones with each.
        activations: encodes what goes forward: one compressor for all cuts, or one for each. Every cut and direction
            works with its own copy, since compressors may learn from the tensors they encode.
        gradients: encodes what comes back, in the same way.
        precision: fp32, or the dtype every stage autocasts to.

    Raises:
        ConfigError: devices and stages differ in number, or the precision is not one this device can train in.
    """
    if len(devices) != len(stages):
        raise ConfigError(f"{len(stages)} stages need {len(stages)} devices, not {len(devices)}")
    check_precision(precision, devices)
    traffic = Traffic()
    codecs = list(zip(_copies(activations, len(stages) - 1), _copies(gradients, len(stages) - 1), strict=True))
    parts = []
    for index, (stage, device) in enumerate(zip(stages, devices, strict=True)):
        part = _Autocast(stage, PRECISIONS[precision], device) if precision in PRECISIONS else stage
        if index:
            part = nn.Sequential(Boundary(*codecs[index - 1], traffic, _shrinkage(stages[index - 1])), part)
        parts.append(part)
    gpipe = GPipe(
        nn.Sequential(*parts), balance=[1] * len(parts), devices=list(devices), chunks=chunks, checkpoint="never"
    )
    return Pipeline(gpipe, traffic)


def _copies(codecs: Compressor | Sequence[Compressor], cuts: int) -> list[Compressor]:
    """Return a compressor of its own for each cut."""
    each = [codecs] * cuts if isinstance(codecs, Compressor) else list(codecs)
    if len(each) != cuts:
        raise ConfigError(f"{cuts} cuts need one compressor, or {cuts}, not {len(each)}")
    return [copy.deepcopy(codec) for codec in each]


def _shrinkage(stage: nn.Module) -> Callable[[], float]:
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
