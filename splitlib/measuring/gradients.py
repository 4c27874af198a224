"""Are the pipeline's gradients the unsplit model's? One batch through torchgpipe, and the same by accumulation."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from splitlib.compressors import make_compressor
from splitlib.config import RunConfig
from splitlib.data import load_task, train_batches
from splitlib.models import build_model
from splitlib.partition import split
from splitlib.pipeline import build_pipeline
from splitlib.runtime import turn_to_draw

TOLERANCE = 1e-4  # of the whole gradient's length: float32 sums in another order stay far below


@dataclass(frozen=True, kw_only=True)
class GradientComparison:
    """One batch's gradients, of the pipeline with the identity at its cuts and of accumulation on the unsplit model."""

    difference: float
    """Length of the difference over the length of the unsplit model's gradient, all weights together."""
    largest: float
    """The same of the weight where it is largest."""
    loss: float
    """The pipeline's."""
    unsplit_loss: float

    @property
    def equal(self) -> bool:
        """Whether the difference is within float32's rounding."""
        return self.difference <= TOLERANCE


def compare_gradients(
    config: RunConfig, *, devices: Sequence[torch.device], hub: Path | None = None
) -> GradientComparison:
    """Compare torchgpipe on ``devices``, one for each stage, with the unsplit model on the last of them.

    Model, cut, micro-batches and data are ``config``'s: a vision model, cut in three. Nothing is compressed, and
    dropout is off, since it draws by stage. Convolutions compute in float32 proper, without TensorFloat-32.

    Raises:
        SplitlibError: data or weights are missing, or devices and stages differ in number.
    """
    data = load_task(config, hub=hub, device=devices[0])
    with turn_to_draw() as generator:
        generator.manual_seed(config.seed)
        model = _without_dropout(build_model(config, num_labels=data.num_labels, hub=hub)).train()
    inputs, labels = next(iter(train_batches(data, batch_size=config.batch_size, seed=config.seed, epoch=0)))
    parts = split(copy.deepcopy(model), str(config.partition)).parts
    codec = make_compressor("none")
    pipeline = build_pipeline(parts, devices=devices, chunks=config.chunks, activations=codec, gradients=codec).train()
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        unsplit_loss = accumulate(model.to(devices[-1]), inputs[0], labels, config.chunks)
        loss = pipeline.train_batch(inputs, labels, step=0)
    ours, theirs = _gradients(pipeline.parameters()), _gradients(model.parameters())
    off = [(one - other).norm() for one, other in zip(ours, theirs, strict=True)]
    lengths = [gradient.norm() for gradient in theirs]
    whole = torch.stack(off).norm() / torch.stack(lengths).norm()
    largest = max(float(error / length) for error, length in zip(off, lengths, strict=True) if length)
    return GradientComparison(difference=float(whole), largest=largest, loss=loss, unsplit_loss=unsplit_loss)


def accumulate(model: nn.Module, images: Tensor, labels: Tensor, chunks: int) -> float:
    """Add a batch's gradients to the model's, micro-batch by micro-batch, and return the batch's mean loss."""
    device, total = next(model.parameters()).device, 0.0
    for part, answers in zip(images.to(device).chunk(chunks), labels.to(device).chunk(chunks), strict=True):
        loss = nn.functional.cross_entropy(model(part), answers) * len(answers) / len(labels)
        loss.backward()
        total += loss.item()
    return total


def _gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad.double().cpu() for parameter in parameters if parameter.grad is not None]


def _without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model
