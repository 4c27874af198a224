"""Codes of 1 to 16 bits packed to their true width: n codes of b bits take ceil(n * b / 8) bytes.

Eight codes of b bits fill b bytes exactly, so a row of eight is packed at a time; bits are in little-endian order, so
1, 8 and 16 bits have the layout one expects.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROW = 8


def packed_nbytes(numel: int, bits: int) -> int:
    """Return the bytes that ``numel`` codes of ``bits`` take."""
    return -(-numel * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Return the codes (1-d, int32, each in [0, 2^bits)) as bytes.

    >>> pack(torch.tensor([1, 2, 3], dtype=torch.int32), 4).tolist()
    [33, 3]
    """
    rows = _rows(codes, codes.numel())
    packed = torch.empty(len(rows), bits, dtype=torch.uint8, device=codes.device)
    for byte in range(bits):
        first, last = 8 * byte // bits, (8 * byte + 7) // bits
        value = torch.zeros(len(rows), dtype=torch.int32, device=codes.device)
        for column in range(first, last + 1):
            value |= _shift(rows[:, column], column * bits - 8 * byte)
        packed[:, byte] = value.bitwise_and_(0xFF)
    return packed.reshape(-1)[: packed_nbytes(codes.numel(), bits)]


def unpack(packed: Tensor, bits: int, numel: int) -> Tensor:
    """Return the ``numel`` codes (1-d, int32) that :func:`pack` packed into ``packed``.

    >>> unpack(torch.tensor([33, 3], dtype=torch.uint8), 4, 3).tolist()
    [1, 2, 3]
    """
    padding = -packed.numel() % bits
    rows = torch.nn.functional.pad(packed, (0, padding)).reshape(-1, bits).int()
    codes = torch.empty(len(rows), ROW, dtype=torch.int32, device=packed.device)
    for column in range(ROW):
        first, last = column * bits // 8, (column * bits + bits - 1) // 8
        value = torch.zeros(len(rows), dtype=torch.int32, device=packed.device)
        for byte in range(first, last + 1):
            value |= _shift(rows[:, byte], 8 * byte - column * bits)
        codes[:, column] = value.bitwise_and_((1 << bits) - 1)
    return codes.reshape(-1)[:numel]


def _rows(codes: Tensor, numel: int) -> Tensor:
    return torch.nn.functional.pad(codes, (0, -numel % ROW)).reshape(-1, ROW)


def _shift(values: Tensor, left: int) -> Tensor:
    return values << left if left >= 0 else values >> -left
