"""What crosses the cuts: one batch's activations and gradients as they are, to look at compressors before training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from pathlib import Path

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from splitlib.config import RunConfig
from splitlib.experiment import prepare
from splitlib.pipeline import Boundary, Engine
from splitlib.runtime import pick_device
from splitlib.training import Trainer


def tensors_at_cuts(config: RunConfig, *, hub: Path | None = None, device: str = "auto") -> dict[str, Tensor]:
    """Return the first training batch's tensors at each cut: ``activation 1`` ..., ``gradient 1`` ...

    The model is ``config``'s before its first step, so a fresh classifier's gradients are those at the start of
    training. Nothing is compressed, whatever ``config`` says, and the batch is not cut into micro-batches: each is
    [B, ...].
    """
    trainer = prepare(config.uncompressed(chunks=1), hub, pick_device(device))
    return tensors_of_batch(trainer, *next(iter(trainer.rest_of_epoch())))


def micro_batches_at_cuts(
    config: RunConfig, count: int, *, hub: Path | None = None, device: str = "auto"
) -> dict[str, list[Tensor]]:
    """Return what each of ``count`` micro-batches in the order of training sends over each cut.

    As with :func:`tensors_at_cuts` each batch goes through the model whole; what crossed is cut into ``config.chunks``.
    Compressors that learn, such as power iteration, are measured on these, one after the other.
    """
    trainer = prepare(config.uncompressed(chunks=1), hub, pick_device(device))
    found: dict[str, list[Tensor]] = {}
    batches = islice(cycle(trainer.rest_of_epoch()), math.ceil(count / config.chunks))
    for inputs, labels in batches:
        for name, x in tensors_of_batch(trainer, inputs, labels).items():
            found.setdefault(name, []).extend(x.chunk(config.chunks))
    return {name: each[:count] for name, each in found.items()}


def tensors_of_batch(trainer: Trainer, inputs: tuple[Tensor, ...], labels: Tensor) -> dict[str, Tensor]:
    """Return what crosses the cuts of ``trainer``'s engine in one batch, as :func:`tensors_at_cuts` does.

    Mode and batch norm's running statistics are afterwards what they were, and no gradient is left. Traffic is counted,
    and compressors that learn do.

    Args:
        trainer: of an engine in this process.
        inputs: what the model takes, [B, ...] each.
        labels: of the batch, [B].

    Returns:
        The tensors at each cut, [B, ...] each; no gradient where nothing before the cut trains.
    """
    engine, found = trainer.engine, dict[str, Tensor]()
    boundaries = [module for module in engine.modules() if isinstance(module, Boundary)]
    with _unchanged(engine), ExitStack() as hooks:
        for cut, boundary in enumerate(boundaries, start=1):
            hooks.enter_context(_watch(boundary, cut, found))
        logits = engine.train()(*inputs)
        nn.functional.cross_entropy(logits.float(), labels.to(logits.device)).backward()
    return dict(sorted(found.items()))


@contextmanager
def _unchanged(engine: Engine) -> Iterator[None]:
    """Have mode and buffers after the block as before, and no gradients."""
    mode, before = engine.training, {name: x.clone() for name, x in engine.named_buffers()}
    try:
        yield
    finally:
        engine.train(mode).zero_grad()
        for name, x in engine.named_buffers():
            x.copy_(before[name])


def _watch(boundary: Boundary, cut: int, found: dict[str, Tensor]) -> RemovableHandle:
    """Store what goes through ``boundary`` forward and comes back."""

    def note(module: nn.Module, inputs: tuple[tuple[Tensor, ...]], outputs: tuple[Tensor, ...]) -> None:
        found[f"activation {cut}"] = inputs[0][0].detach()
        if outputs[0].requires_grad:
            outputs[0].register_hook(lambda gradient: found.update({f"gradient {cut}": gradient.detach()}))

    return boundary.register_forward_hook(note)
