"""Running a stage twice instead of keeping its activations: torchgpipe's checkpoint modes, called ``recompute`` here.

torchgpipe's own checkpointing back-propagates through every tensor that a stage returns, and the attention mask that
travels with the hidden states has no gradient. So torch's does the work, and torchgpipe is told that there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from torchgpipe.checkpoint import enable_recomputing

from splitlib.models.units import Values
from splitlib.pipeline.stage import Stage


def recomputed(mode: str, micro_batches: int) -> int:
    """Return how many of the micro-batches, from the first, run twice.

    >>> [recomputed(mode, 4) for mode in ("never", "except_last", "always")]
    [0, 3, 4]
    """
    return {"never": 0, "except_last": micro_batches - 1, "always": micro_batches}[mode]


def run_twice(stage: Stage, values: Values, micro_batch: int) -> Values:
    """Return ``stage(values, micro_batch)``, keeping its inputs alone; the backward pass runs it again.

    The second run draws the same random numbers, because a stage seeds its generator itself, and for the step of the
    first run, whatever ran in between. It leaves batch norm's running statistics as they are.
    """
    return checkpoint(
        stage,
        values,
        micro_batch,
        stage.current.step,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _second_run(stage)),
    )


@contextmanager
def _second_run(stage: nn.Module) -> Iterator[None]:
    """Let batch norm update copies of its statistics, which are then dropped."""
    norms = [module for module in stage.modules() if isinstance(module, _BatchNorm)]
    kept = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        norm._buffers.update({name: None if x is None else x.clone() for name, x in norm._buffers.items()})
    try:
        with enable_recomputing():  # what torchgpipe's deferred batch norm asks for
            yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
