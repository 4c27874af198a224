"""Arithmetic coding of a quantizer's codes, each in the context of its neighbours, compiled by numba on first use.

A code is taken for the path through a binary tree, its highest bit first. How likely the next bit is to be 1 is learnt
on the way, apart for each node of the tree and each context: the code before, and the one a row above. Tensors are
smooth along their last dimensions (images), or have rows that are alike (tokens), so what follows is seldom a surprise.
Nothing is learnt before and nothing sent: the decoder learns the same from what it has decoded.

Arithmetic coding is Witten, Neal and Cleary's (1987), here in the form of PAQ (Mahoney 2005): an interval of 32 bits
whose ends send a byte as soon as they share it, so that nothing is ever carried. Neighbours as contexts for adaptive
probabilities are those of lossless image coders (JBIG, ISO/IEC 11544). All of it is integer arithmetic: every machine
decodes what any other has coded. It runs on one thread of the CPU, wherever the tensor is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from splitlib.compressors.compiled import compiled, pack, unpack
from splitlib.compressors.packing import packed_nbytes
from splitlib.errors import PayloadError

BITS = 16  # of a probability
ONE = (1 << BITS) - 1
# Over 2^16: no bit is ever taken for certain. Steps are rounded down, so that a 1 stops earlier, about 2^-10 short of
# it; rounding both ways alike was tried on the eight tensors of CIFAR-10 and CoLA: 0.2 % of the bytes at most.
LEAST = 16
# A bit moves its probability by 1 / (how often it was seen + 1.5); from here on it forgets the oldest.
_MEMORY = 62
_RATES = np.array([int((1 << BITS) / (seen + 1.5)) for seen in range(_MEMORY + 1)])
_SEEN_OFTEN = 32  # codes that each probability should have to learn from: as many of the neighbours' bits are looked at
TOP, BYTE = 24, 255
INTERVAL = (1 << 32) - 1
AHEAD = 4  # bytes that a decoder reads ahead

_MOST_BITS = math.ceil(-8 / math.log2(1 - LEAST / (1 << BITS)))  # of codes in a byte, all of them as likely as can be


def shrink(packed: np.ndarray, bits: int, numel: int, row: int) -> np.ndarray | None:
    """Return ``numel`` packed codes coded in context, or None if that takes more bytes.

    ``row`` is the tensor's last dimension: the code above another is that many before it.
    """
    codes = np.empty(numel, np.int32)
    unpack(packed, bits, codes)
    out = np.empty(len(packed), np.uint8)
    nbytes = encode(codes, bits, row, neighbour_bits(numel, bits), out)
    return None if nbytes < 0 else out[:nbytes].copy()


def grow(coded: np.ndarray, bits: int, numel: int, row: int) -> np.ndarray:
    """Return the packed codes that :func:`shrink` took.

    Raises:
        PayloadError: the bytes do not hold exactly these codes. Nothing is allocated for a claim no message of this
            size can keep.
    """
    if numel * bits > most_bits(len(coded)):
        raise PayloadError(f"payload's {len(coded)} bytes cannot hold {numel} codes of {bits} bits")
    codes = np.empty(numel, np.int32)
    nbytes = decode(coded, bits, row, neighbour_bits(numel, bits), codes)
    if nbytes != len(coded):
        raise PayloadError(f"payload's codes take {nbytes} bytes; it has {len(coded)} for them")
    packed = np.empty(packed_nbytes(numel, bits), np.uint8)
    pack(codes, bits, packed)
    return packed


def most_bits(nbytes: int) -> int:
    """Return how many bits ``nbytes`` can hold at most, all of them as likely as can be."""
    return (nbytes + 4) * _MOST_BITS


def neighbour_bits(numel: int, bits: int) -> int:
    """Return how many leading bits of each neighbour tell contexts apart, for ``numel`` codes of ``bits``.

    >>> neighbour_bits(2_000_000, 5), neighbour_bits(40_000, 4), neighbour_bits(100, 8)
    (5, 3, 0)
    """
    kept = 0
    while kept < bits and _SEEN_OFTEN << (2 * kept + 2 + bits) <= numel:
        kept += 1
    return kept


@compiled
def encode(codes: np.ndarray, bits: int, row: int, kept: int, out: np.ndarray) -> int:
    """Write the codes into ``out`` and return how many bytes they took, or -1 if there is no room for them.

    ``middle`` lies from ``low`` to below ``high``: neither half is ever empty, however narrow the interval.

    Args:
        codes: [n] int32, each below ``2^bits``.
        bits: of a code.
        row: codes in a row of the tensor, so that the code above is that many before.
        kept: see :func:`neighbour_bits`.
        out: uint8.
    """
    chances, seen = _nothing_learnt(bits, kept)
    low, high, written = np.int64(0), np.int64(INTERVAL), 0
    for i in range(len(codes)):
        context, node = _context(codes, i, row, bits, kept), 1
        for place in range(bits - 1, -1, -1):
            bit = (codes[i] >> place) & 1
            middle = low + ((high - low) * np.int64(chances[context, node]) >> BITS)
            low, high = half(low, high, middle, bit)
            learn(chances, seen, context, node, bit)
            while (low ^ high) >> TOP == 0:
                if written == len(out):
                    return -1
                out[written] = np.uint8(high >> TOP)
                low, high, written = low << 8 & INTERVAL, high << 8 & INTERVAL | BYTE, written + 1
            node = 2 * node + bit
    if written == len(out):
        return -1
    out[written] = np.uint8((low >> TOP) + 1)  # a number inside the interval, whatever zeros follow
    return written + 1


@compiled
def decode(data: np.ndarray, bits: int, row: int, kept: int, codes: np.ndarray) -> int:
    """Fill ``codes`` from what :func:`encode` wrote and return how many bytes that took; damage gives other codes."""
    chances, seen = _nothing_learnt(bits, kept)
    low, high, number, read = np.int64(0), np.int64(INTERVAL), first_number(data), AHEAD
    for i in range(len(codes)):
        context, node = _context(codes, i, row, bits, kept), 1
        for _ in range(bits):
            middle = low + ((high - low) * np.int64(chances[context, node]) >> BITS)
            bit = 1 if number <= middle else 0
            low, high = half(low, high, middle, bit)
            learn(chances, seen, context, node, bit)
            while (low ^ high) >> TOP == 0:
                number = number << 8 & INTERVAL | byte(data, read)
                low, high, read = low << 8 & INTERVAL, high << 8 & INTERVAL | BYTE, read + 1
            node = 2 * node + bit
        codes[i] = node - (1 << bits)
    return read - AHEAD + 1  # the encoder ends with one


@compiled
def half(low: np.int64, high: np.int64, middle: np.int64, bit: int) -> tuple[np.int64, np.int64]:
    """Return the ends of the part of the interval that stands for ``bit``."""
    return (low, middle) if bit else (middle + 1, high)


@compiled
def _nothing_learnt(bits: int, kept: int) -> Any:
    """Return every node's probability of a 1 in every context, and how often it was seen."""
    contexts = ((1 << kept) + 1) ** 2
    chances = np.full((contexts, 1 << bits), np.uint16(1 << BITS - 1))
    return chances, np.zeros((contexts, 1 << bits), np.uint8)


@compiled
def _context(codes: np.ndarray, i: int, row: int, bits: int, kept: int) -> int:
    """Return the number of the pair of neighbours; one that is not there is a neighbour of its own."""
    dropped = bits - kept
    before = (codes[i - 1] >> dropped) + 1 if i % row else 0
    above = (codes[i - row] >> dropped) + 1 if i >= row else 0
    return before * ((1 << kept) + 1) + above


@compiled
def learn(chances: np.ndarray, seen: np.ndarray, context: int, node: int, bit: int) -> None:
    """Move a probability towards the bit that was seen, the less the more often it has learnt."""
    chance, times = np.int64(chances[context, node]), seen[context, node]
    chance += (ONE * bit - chance) * _RATES[times] >> BITS
    chances[context, node] = min(max(chance, LEAST), ONE - LEAST)
    if times < _MEMORY:
        seen[context, node] = times + 1


@compiled
def first_number(data: np.ndarray) -> np.int64:
    """Return what a decoder has read ahead before the first bit."""
    number = np.int64(0)
    for place in range(AHEAD):
        number = number << 8 | byte(data, place)
    return number


@compiled
def byte(data: np.ndarray, place: int) -> np.int64:
    """Return a byte of a message, behind whose end there are zeros."""
    return np.int64(data[place]) if place < len(data) else np.int64(0)
