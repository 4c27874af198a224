"""Widgets over tensors captured at the cuts: the error of each codec by ratio, and what a rank keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

import ipywidgets
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from splitlib import plots
from splitlib.compressors import Compressor, decode, make_compressor, relative_error
from splitlib.errors import ConfigError
from splitlib.plots.exploring import energy_by_rank, error_by_ratio
from splitlib.widgets.explorer import Explorer, one_of, several

LARGEST = 1 << 19
"""Values of a tensor that are encoded, in whole samples: enough for a picture that follows the hand."""
RANKS = (1, 2, 4, 8, 16, 32)


def _quantizers(make: Callable[[int], Compressor]) -> Callable[[Tensor], Iterator[tuple[str, Compressor]]]:
    return lambda x: ((f"{bits} bits", make(bits)) for bits in range(2, 9))


def _sort(edges: str) -> Callable[[int], Compressor]:
    """The documents' share of bin bits, a quarter."""
    return lambda bits: make_compressor(
        "sort", level_bits=bits - max(1, round(bits / 4)), bin_bits=max(1, round(bits / 4)), edges=edges
    )


def _low_ranks(x: Tensor) -> Iterator[tuple[str, Compressor]]:
    smaller = min(x.flatten(2).shape[1:]) if x.dim() > 2 else min(x.shape)
    return ((f"rank {rank}", make_compressor("power_iteration", rank=rank)) for rank in RANKS if rank < smaller)


CODECS: Mapping[str, Callable[[Tensor], Iterator[tuple[str, Compressor]]]] = {
    "uniform": _quantizers(lambda bits: make_compressor("uniform", bits=bits)),
    "uniform, blocks of 256": _quantizers(lambda bits: make_compressor("uniform", bits=bits, block=256)),
    "sort, equal count": _quantizers(_sort("equal_count")),
    "sort, cube root": _quantizers(_sort("cube_root")),
    "power iteration": _low_ranks,
}


def explore_codecs(title: str, tensors: Mapping[str, Tensor]) -> Explorer:
    """Return a choice of tensor and of codecs: squared error over variance by exact ratio, for many settings of each.

    Nothing is timed, and settings that send more than the tensor itself are left out. A tensor
    of more than :data:`LARGEST` values is cut to its first samples.
    """
    parts = {name: _first_samples(x) for name, x in tensors.items()}

    @cache
    def curve(tensor: str, codec: str) -> pd.DataFrame:
        x = parts[tensor]
        rows = [_once(x, text, compressor) for text, compressor in CODECS[codec](x)]
        found = pd.DataFrame(rows, columns=["text", "compression_ratio", "error"])
        return found[found["compression_ratio"] < 1]

    def draw(tensor: str, codecs: Sequence[str]) -> Figure:
        if not codecs:
            raise ConfigError("no codec is chosen: mark one or more in the list")
        shape = " x ".join(map(str, parts[tensor].shape))
        with plots.figure(f"Measured error: {tensor}, {shape}\n{title}", height=4.4) as (drawing, axes):
            error_by_ratio(axes[0], {codec: curve(tensor, codec) for codec in codecs})
        return drawing

    return Explorer({"tensor": one_of(parts, "tensor"), "codecs": several(CODECS, "codecs")}, draw)


def _first_samples(x: Tensor) -> Tensor:
    each = max(1, x[0].numel()) if len(x) else 1
    return x[: max(1, LARGEST // each)].detach().float().cpu()


def _once(x: Tensor, text: str, compressor: Compressor) -> dict[str, object]:
    payload = compressor.encode(x)
    error = relative_error(x, decode(payload))
    return {"text": text, "compression_ratio": payload.nbytes / (4 * x.numel()), "error": error}


def explore_spectrum(title: str, tensors: Mapping[str, Tensor]) -> Explorer:
    """Return a choice of tensors and a rank: the share of the energy that no low-rank method can exceed.

    Samples are matrices, [tokens, width] or [channels, pixels]; the shares are means over the samples.
    """
    energy = {name: _energy(_first_samples(x)) for name, x in tensors.items()}

    def draw(shown: Sequence[str], rank: int) -> Figure:
        if not shown:
            raise ConfigError("no tensor is chosen: mark one or more in the list")
        with plots.figure(f"Measured: energy kept by rank\n{title}", height=4.2) as (drawing, axes):
            energy_by_rank(axes[0], {name: energy[name] for name in shown}, rank=rank)
        return drawing

    most = max(map(len, energy.values()))
    rank = ipywidgets.IntSlider(value=min(4, most), min=1, max=most, description="rank", continuous_update=False)
    return Explorer({"shown": several(energy, "tensors"), "rank": rank}, draw)


def _energy(x: Tensor) -> list[float]:
    squares = torch.linalg.svdvals(x.flatten(2) if x.dim() > 2 else x[None]).square()
    total = squares.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return (squares / total).cumsum(1).mean(0).tolist()
