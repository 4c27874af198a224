"""The documents' pseudo-code (001 §2) written down step by step: the slow reference of the tests and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Sorted:
    """What the pseudo-code returns: codes in the tensor's order, and each chunk's minimum M and step P."""

    codes: Tensor
    minima: Tensor
    steps: Tensor
    shape: torch.Size


def sort_encode(x: Tensor, level_bits: int, bin_bits: int) -> Sorted:
    """Sort, cut into 2^S chunks, quantize each with its own minimum and step, write the codes back by index."""
    ordered, index = torch.sort(x.reshape(-1).float(), stable=True)
    codes, minima, steps = [], [], []
    for i, chunk in enumerate(ordered.chunk(1 << bin_bits)):
        low, high = chunk[0].double(), chunk[-1].double()
        step = ((high - low) / max((1 << level_bits) - 1, 1)).float()
        level = (
            ((chunk - low) / step).round().clamp(max=(1 << level_bits) - 1)
            if 0 < step < torch.inf
            else torch.zeros_like(chunk)
        )
        codes.append(level.to(torch.int32) + (i << level_bits))
        minima.append(low.float())
        steps.append(step)
    scattered = torch.empty(len(ordered), dtype=torch.int32, device=x.device)
    scattered[index] = torch.cat(codes)
    return Sorted(scattered, torch.stack(minima), torch.stack(steps), x.shape)


def sort_decode(payload: Sorted, level_bits: int) -> Tensor:
    """Return minimum + level x step of each code, chunk by chunk (the original forgot code 0)."""
    chunk, level = payload.codes >> level_bits, payload.codes & ((1 << level_bits) - 1)
    result = torch.empty(len(payload.codes), device=payload.codes.device)
    for i in range(len(payload.minima)):
        here = chunk == i
        result[here] = payload.minima[i] + level[here] * payload.steps[i]
    return result.reshape(payload.shape)


def uniform_encode(x: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Uniform quantization the plain way, up to 8 bits: codes, minimum and step."""
    low, high = x.min(), x.max()
    step = (high - low) / ((1 << bits) - 1)
    return ((x - low) / step).round().to(torch.uint8), low, step


def uniform_decode(codes: Tensor, low: Tensor, step: Tensor) -> Tensor:
    """Return minimum + code x step."""
    return codes.float() * step + low
