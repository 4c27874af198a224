"""The quantizers' loops as torch operations, for any device: what the faster loops must equal bit for bit.

Tensors of values and bytes are on one device; tables are small, and may be on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from splitlib.compressors.packing import pack, unpack

STRIPE = 1024  # values after which the histogram's stride starts one further on


def span(x: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest value; one of them is inf or NaN if any value is."""
    low, high = torch.stack(torch.aminmax(x)).tolist()  # aminmax passes NaN on
    return low, high


def word_sum(message: Tensor) -> Tensor:
    """Return the sum modulo 2^64 of a message's 8-byte words, the last one filled up with zeros: int64.

    The message (1-d uint8) is contiguous and begins where a word may.
    """
    whole = len(message) // 8 * 8
    if whole == len(message):
        return message.view(torch.int64).sum()
    tail = torch.nn.functional.pad(message[whole:], (0, whole + 8 - len(message)))
    return message[:whole].view(torch.int64).sum() + tail.view(torch.int64).sum()


def histogram(x: Tensor, every: int) -> Tensor:
    """Count the values (1-d float32) up to each cell, the leading 16 bits of their place in the order: [2^16] int64.

    One value in ``every`` is counted, ``every`` being a power of two; which one moves on with each stripe, so that no
    row or column of an image is left out.
    """
    place = torch.arange(len(x), device=x.device)
    bits = x[place % every == place // STRIPE % every].view(torch.int32)
    # Negative floats fall as their bits rise; flipping them makes the order of the bits that of the values.
    keys = torch.where(bits < 0, ~bits, bits ^ -(1 << 31)) >> 16
    return torch.bincount((keys & 0xFFFF).long(), minlength=1 << 16).cumsum(0)


def write_codes(x: Tensor, edges: Tensor, scaling: Tensor, level_bits: int, bits: int, body: Tensor) -> None:
    """Quantize values (1-d float32) and write their packed codes into ``body``.

    Args:
        x: the values.
        edges: where each bin but the first begins, rising, [k - 1].
        scaling: half of each bin's minimum and twice its inverse step, [2, k]. Halves keep ``x - minimum`` from
            overflowing.
        level_bits: Q of the code ``bin * 2^Q + level``.
        bits: the width of a code.
        body: uint8, exactly as long as the codes are.
    """
    bins = torch.searchsorted(edges.to(x.device), x, right=True)
    body.copy_(pack(_levels(x, scaling.to(x.device)[:, bins], level_bits) + (bins.int() << level_bits), bits))


def read_codes(body: Tensor, values: Tensor, bits: int, numel: int) -> Tensor:
    """Return the value (1-d) of each of ``numel`` packed codes."""
    return values.to(body.device)[unpack(body, bits, numel)]


def extremes(x: Tensor, block: int) -> Tensor:
    """Return the smallest and largest value, [2, blocks], of each ``block`` values; the last block may be shorter."""
    padding = -len(x) % block
    padded = torch.cat([x, x[-1:].expand(padding)])
    return torch.stack(torch.aminmax(padded.reshape(-1, block), dim=1))


def write_blocks(x: Tensor, scaling: Tensor, block: int, bits: int, body: Tensor) -> None:
    """Quantize values block by block, each by its own column of ``scaling`` [2, blocks], and write packed codes."""
    body.copy_(pack(_levels(x, _by_value(scaling.to(x.device), block, len(x)), bits), bits))


def read_blocks(body: Tensor, table: Tensor, block: int, bits: int, numel: int, limit: float) -> Tensor:
    """Return the value (1-d) of each of ``numel`` codes by its block's minimum and step, held within ``limit``."""
    low, step = _by_value(table.to(body.device).double(), block, numel)
    return (low + step * unpack(body, bits, numel)).clamp_(-limit, limit).float()


def _by_value(columns: Tensor, block: int, numel: int) -> Tensor:
    """Return each value's block's column, [2, numel]; the only block's column, [2, 1], serves all."""
    return columns if block >= numel else columns.repeat_interleave(block, dim=1)[:, :numel]


def _levels(x: Tensor, scaling: Tensor, bits: int) -> Tensor:
    half_low, double_inverse = scaling
    levels = ((x * 0.5 - half_low) * double_inverse).round_()  # below 0 where the lowest level lies inside its bin
    return levels.clamp_(0, (1 << bits) - 1).int()
