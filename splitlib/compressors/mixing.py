"""Arithmetic coding of levels around zero, each bit predicted twice and the predictions mixed; compiled by numba.

A level is taken for a few yes-or-no questions: is it zero, is it negative, is it beyond 1, beyond 2, and so on. The
first is all there is to ask of a zero, so this is quick where most levels are. Two models say how likely each answer
is, each from what it has seen in the same context:

- *how large* levels have lately been in the row and, before, in the column: channels and tokens differ in scale;
- *which* levels the neighbours before and above are: images are smooth.

A weighted sum of their log odds is what is coded by, and the weights follow whichever model was right (Mahoney 2005, as
PAQ mixes). Coding starts with nothing learnt and the decoder learns the same. All of it is integer arithmetic, so that
every machine decodes what any other has coded. It runs on one thread of the CPU, wherever the tensor is.

Interval, counts and probabilities are those of :mod:`splitlib.compressors.arithmetic`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np

from splitlib.compressors.arithmetic import (
    AHEAD,
    BITS,
    BYTE,
    INTERVAL,
    LEAST,
    ONE,
    TOP,
    byte,
    first_number,
    half,
    learn,
    most_bits,
)
from splitlib.compressors.compiled import compiled, inlined
from splitlib.errors import PayloadError

_UNIT = 256  # log odds are in these parts
_FARTHEST = 8 * _UNIT - 1
_ZERO, _SIGN, _BEYOND = 0, 1, 2  # the questions; from the last on, whether a magnitude is beyond 1, 2, ...
_ASKED = 14  # so many of those; what is beyond is written as a number
_QUESTIONS = _BEYOND + _ASKED
_SIZES = 10  # that averages are told apart by
_AVERAGE = 8  # bits of an average behind the point
_ROW_MEMORY, _COLUMN_MEMORY = 4, 2  # a level moves its averages by 2^-these: rows are long, and columns change
_NEAR = 7  # neighbours are told apart up to here
_NEIGHBOURS = 2 * _NEAR + 2  # with one that is not there
_LEARNING = 14  # a weight moves by error times log odds over 2^this
_FIRST_WEIGHT = 2 * (1 << BITS) // 5
_MOST_DOUBLINGS = 15  # of a number written out


def _probabilities() -> np.ndarray:
    """Return the probability, over 2^16, for all log odds that can be; in decimals, whose digits no machine rounds."""
    odds = [(Decimal(place - _FARTHEST) / _UNIT).exp() for place in range(2 * _FARTHEST + 1)]
    chances = [int((1 << BITS) * o / (1 + o)) for o in odds]
    return np.clip(np.array(chances, np.int64), LEAST, ONE - LEAST)


_SQUASHED = _probabilities()
_STRETCHED = np.searchsorted(_SQUASHED, np.arange(8, 1 << BITS, 16)).clip(0, 2 * _FARTHEST) - _FARTHEST
"""Log odds by the leading 12 bits of a probability: :data:`_SQUASHED` the other way round."""


def shrink(packed: np.ndarray, bits: int, numel: int, row: int) -> np.ndarray | None:
    """Return ``numel`` levels, int16 as bytes, coded; or None if that takes more bytes.

    ``bits`` is 16, and ``row`` the tensor's last dimension: the level above another is that many before it.
    """
    out = np.empty(len(packed), np.uint8)
    nbytes = encode(packed.view(np.int16).astype(np.int32), row, out)
    return None if nbytes < 0 else out[:nbytes].copy()


def grow(coded: np.ndarray, bits: int, numel: int, row: int) -> np.ndarray:
    """Return the bytes that :func:`shrink` took.

    Raises:
        PayloadError: the bytes do not hold exactly these levels. Nothing is allocated for a claim no message of this
            size can keep.
    """
    if numel > most_bits(len(coded)):
        raise PayloadError(f"payload's {len(coded)} bytes cannot hold {numel} levels")
    levels = np.empty(numel, np.int32)
    nbytes = decode(coded, row, levels)
    if nbytes != len(coded):
        raise PayloadError(f"payload's levels take {nbytes} bytes; it has {len(coded)} for them")
    return levels.astype(np.int16).view(np.uint8)


def encode(levels: np.ndarray, row: int, out: np.ndarray) -> int:
    """Write the levels into ``out`` and return how many bytes they took, or -1 if there is no room for them.

    Args:
        levels: [n] int32, up to 2^15 away from zero.
        row: levels in a row of the tensor.
        out: uint8.
    """
    low, written = _run(levels, row, out, False)
    if written < 0 or written == len(out):
        return -1
    out[written] = (low >> TOP) + 1  # a number inside the interval, whatever zeros follow
    return int(written) + 1


def decode(data: np.ndarray, row: int, levels: np.ndarray) -> int:
    """Fill ``levels`` from what :func:`encode` wrote and return how many bytes that took; damage gives other levels."""
    _, read = _run(levels, row, data, True)
    return int(read) - AHEAD + 1  # the encoder ends with one


@compiled
def _run(levels: np.ndarray, row: int, data: np.ndarray, decoding: bool) -> Any:
    """Ask every level's questions; encoding answers from ``levels``, decoding from ``data``. One loop: none differs.

    Returns the interval's low end and the place in ``data``, which is -1 once there is no room.
    """
    at = np.int64(0), np.int64(INTERVAL), np.int64(0), np.int64(0)
    if decoding:
        at = at[0], at[1], first_number(data), np.int64(AHEAD)
    sized, placed, doubled = (
        _untaught(_SIZES * _SIZES, _QUESTIONS),
        _untaught(_NEIGHBOURS * _NEIGHBOURS, 2 * _QUESTIONS),
        _untaught(1, _MOST_DOUBLINGS),
    )
    weights = np.full((_QUESTIONS, 2), np.int64(_FIRST_WEIGHT))
    in_row, in_column, mean = np.int64(0), np.zeros(row, np.int64), np.zeros(row, np.int64)
    column = 0
    for i in range(len(levels)):
        before = levels[i - 1] if column else 0
        above = levels[i - row] if i >= row else 0
        size = _size(in_row) * _SIZES + _size(in_column[column])
        beside = _near(before, column > 0) * _NEIGHBOURS + _near(above, i >= row)
        level = np.int64(levels[i])
        magnitude, negative = np.int64(0), np.int64(0)
        other, at = _answer(at, data, decoding, level != 0, sized, placed, weights, size, beside, _ZERO, _ZERO)
        if other:
            lean = _lean(mean[column], before)
            negative, at = _answer(at, data, decoding, level < 0, sized, placed, weights, lean, beside, _SIGN, _SIGN)
            magnitude = np.int64(1)
            while magnitude <= _ASKED:
                asked = _BEYOND + magnitude - 1
                beyond, at = _answer(
                    at, data, decoding, abs(level) > magnitude,
                    sized, placed, weights, size, beside, asked, asked + negative * _QUESTIONS,
                )  # fmt: skip
                if not beyond:
                    break
                magnitude += 1
            if magnitude > _ASKED:
                rest, at = _number(at, data, decoding, abs(level) - _ASKED, doubled)
                magnitude += rest - 1
        signed = -magnitude if negative else magnitude
        if decoding:
            levels[i] = signed
        elif at[3] < 0:
            break
        in_row += ((magnitude << _AVERAGE) - in_row) >> _ROW_MEMORY
        in_column[column] += ((magnitude << _AVERAGE) - in_column[column]) >> _COLUMN_MEMORY
        mean[column] += ((signed << _AVERAGE) - mean[column]) >> _COLUMN_MEMORY
        column = column + 1 if column + 1 < row else 0
    return at[0], at[3]


@inlined
def _answer(
    at: Any,
    data: np.ndarray,
    decoding: bool,
    known: bool,
    sized: Any,
    placed: Any,
    weights: np.ndarray,
    size: int,
    beside: int,
    asked: int,
    other: int,
) -> Any:
    """Code one answer by both models' mixed prediction and let them learn it; return it, and the interval then."""
    one = np.int64(_STRETCHED[sized[0][size, asked] >> 4])
    two = np.int64(_STRETCHED[placed[0][beside, other] >> 4])
    odds = (weights[asked, 0] * one + weights[asked, 1] * two) >> BITS
    chance = _SQUASHED[min(max(odds, -_FARTHEST), _FARTHEST) + _FARTHEST]
    bit, at = _code(at, data, decoding, chance, np.int64(known))
    error = ONE * bit - chance
    weights[asked, 0] += (error * one) >> _LEARNING
    weights[asked, 1] += (error * two) >> _LEARNING
    learn(sized[0], sized[1], size, asked, bit)
    learn(placed[0], placed[1], beside, other, bit)
    return bit, at


@inlined
def _number(at: Any, data: np.ndarray, decoding: bool, known: int, doubled: Any) -> Any:
    """Code a number from 1 on: how often it doubles, as learnt, then its other bits, which are as likely either way."""
    doublings = np.int64(0)
    while doublings < _MOST_DOUBLINGS:
        chance, twice = np.int64(doubled[0][0, doublings]), np.int64(known >> (doublings + 1) > 0)
        twice, at = _code(at, data, decoding, chance, twice)
        learn(doubled[0], doubled[1], 0, doublings, twice)
        if not twice:
            break
        doublings += 1
    number = np.int64(1)
    for place in range(doublings - 1, -1, -1):
        bit, at = _code(at, data, decoding, np.int64(1 << BITS - 1), np.int64((known >> place) & 1))
        number = 2 * number + bit
    return number, at


@inlined
def _code(at: Any, data: np.ndarray, decoding: bool, chance: np.int64, bit: np.int64) -> Any:
    """Narrow the interval by one bit, written or read with the bytes that its ends share; return the bit and interval.

    An interval is its low and high end, the decoder's number, and the place in ``data``.
    """
    low, high, number, place = at
    middle = low + ((high - low) * chance >> BITS)
    if decoding:
        bit = np.int64(number <= middle)
    low, high = half(low, high, middle, bit)
    while (low ^ high) >> TOP == 0:
        if decoding:
            number = number << 8 & INTERVAL | byte(data, place)
        elif place < 0 or place == len(data):
            place = np.int64(-2)
        else:
            data[place] = np.uint8(high >> TOP)
        low, high, place = low << 8 & INTERVAL, high << 8 & INTERVAL | BYTE, place + 1
    return bit, (low, high, number, place)


@compiled
def _untaught(contexts: int, questions: int) -> Any:
    """Return every answer's probability in every context, and how often it was seen."""
    return np.full((contexts, questions), np.uint16(1 << BITS - 1)), np.zeros((contexts, questions), np.uint8)


@compiled
def _size(average: int) -> int:
    """Return an average in octaves: 0 below a 32nd."""
    size, rest = 0, average >> (_AVERAGE - 5)
    while rest and size < _SIZES - 1:
        size, rest = size + 1, rest >> 1
    return size


@compiled
def _near(level: int, there: bool) -> int:
    return min(max(level, -_NEAR), _NEAR) + _NEAR if there else _NEIGHBOURS - 1


@compiled
def _lean(mean: int, before: int) -> int:
    """Return the context of a sign: how far the column leans to one side, and the sign before."""
    slight, strong = 1 << _AVERAGE - 2, 1 << _AVERAGE
    side = 2 + (mean > slight) + (mean > strong) - (mean < -slight) - (mean < -strong)
    return side * 3 + (before > 0) + 2 * (before < 0)
