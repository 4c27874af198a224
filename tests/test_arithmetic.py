"""Codes in context: the same values back, in about as many bits as an ideal coder with the same model takes."""

import contextlib
import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splitlib.compressors import HEADER_BYTES, Payload, arithmetic, decode, make_compressor
from splitlib.compressors.base import Header, _sealed, whole_body
from splitlib.errors import ConfigError, PayloadError

SETTINGS = [("uniform", {"bits": 3}), ("uniform", {"bits": 4, "block": 64}), ("fast", {}),
            ("sort", {"level_bits": 0, "bin_bits": 5, "edges": "least_error"})]  # fmt: skip


def coded(codes, bits, row, kept=None):
    """Encode, check that decoding gives the codes back, and return the bytes."""
    codes = np.asarray(codes, np.int32)
    kept = arithmetic.neighbour_bits(len(codes), bits) if kept is None else kept
    out = np.empty(4 * len(codes) + 64, np.uint8)
    nbytes = arithmetic.encode(codes, bits, row, kept, out)
    back = np.empty_like(codes)
    assert arithmetic.decode(out[:nbytes], bits, row, kept, back) == nbytes
    assert np.array_equal(back, codes)
    tight = np.zeros(nbytes + 8, np.uint8)
    assert arithmetic.encode(codes, bits, row, kept, tight[:nbytes]) == nbytes, "exactly enough room"
    assert arithmetic.encode(codes, bits, row, kept, tight[: nbytes - 1]) == -1 and not tight[nbytes:].any()
    return bytes(out[:nbytes])


@given(
    st.integers(1, 16),
    st.integers(1, 400),
    st.integers(1, 50),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 4),
)
@settings(max_examples=300, deadline=None)
def test_every_code_comes_back(bits, numel, row, skew, seed, kept):
    random = np.random.default_rng(seed)
    codes = (random.random(numel) ** (1 + 20 * skew) * (1 << bits)).astype(np.int32)
    coded(codes, bits, row, min(bits, kept))


@pytest.mark.parametrize(("value", "nbytes"), [(0, 20), (1, 30), (6, 40), (7, 50)])
def test_what_never_changes_takes_next_to_nothing(value, nbytes):
    """Of 30 kB; a 1 costs a little more than a 0, see ``_LEAST``."""
    assert len(coded(np.full(80_000, value), 3, 64)) < nbytes


def ideal_bits(codes, bits, row, kept):
    """What an ideal coder needs whose probabilities are counted as the module says, in exact arithmetic."""
    chances, seen, total = {}, {}, 0.0
    for i, code in enumerate(codes):
        before = int(codes[i - 1]) >> bits - kept if i % row else None
        above = int(codes[i - row]) >> bits - kept if i >= row else None
        for place in range(bits - 1, -1, -1):
            bit, key = int(code) >> place & 1, (before, above, place, int(code) >> place + 1)
            chance, times = chances.get(key, 0.5), seen.get(key, 0)
            total -= math.log2(chance if bit else 1 - chance)
            chance += (bit - chance) / (times + 1.5)
            chances[key], seen[key] = min(max(chance, 2**-12), 1 - 2**-12), min(times + 1, 62)
    return total


@pytest.mark.parametrize(
    ("bits", "numel", "row"), [(3, 20_000, 40), (4, 9_000, 90), (5, 70_000, 16), (8, 4_000, 4_000)]
)
def test_the_coder_is_within_half_a_percent_of_its_own_model(bits, numel, row):
    random = np.random.default_rng(bits)
    smooth = np.cumsum(random.normal(size=(numel // row, row)), axis=1) / 4
    codes = np.clip(np.rint(smooth + 2 ** (bits - 1)), 0, 2**bits - 1).astype(np.int32).reshape(-1)
    ideal = ideal_bits(codes, bits, row, arithmetic.neighbour_bits(numel, bits))
    assert 8 * len(coded(codes, bits, row)) == pytest.approx(ideal, rel=0.005, abs=16)


def test_neighbours_are_what_saves():
    """Random codes, but each row the one above: no count of single codes finds that."""
    row = np.random.default_rng(0).integers(0, 8, 100)
    codes = np.tile(row, 200)
    assert 8 * len(coded(codes, 3, 100)) < 0.1 * 3 * len(codes) < 8 * len(coded(codes, 3, 99))


def test_the_format_is_pinned():
    """Both sides of a link, and payloads that were kept, agree on every bit of it."""
    codes = np.arange(60) ** 2 % 11 % 8
    assert coded(codes, 3, 12).hex() == "f89a2682ed7e57c1605bd9d13e0331d251eb8b7224"


@pytest.mark.parametrize(("name", "options"), SETTINGS)
@pytest.mark.parametrize("shape", [(4, 6, 40, 40), (90, 384), (5000,), (1, 1), ()])
def test_the_values_are_those_of_packed_codes(name, options, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).cumsum(-1) if shape else torch.tensor(2.0)
    plain, small = (
        make_compressor(name, **options).encode(x),
        make_compressor(name, **options, codes="context").encode(x),
    )
    assert torch.equal(decode(Payload(small.message.clone())), decode(plain))
    assert torch.equal(whole_body(small.header, small.body), plain.body) and small.nbytes <= plain.nbytes
    assert small.header.context == (small.nbytes < plain.nbytes) == (x.numel() > 1)


def test_smooth_tensors_take_fewer_bytes_than_with_zstd():
    x = torch.randn(8, 4, 64, 64, generator=torch.Generator().manual_seed(0)).cumsum(-1).cumsum(-2)
    options = {"level_bits": 0, "bin_bits": 5, "edges": "least_error"}
    sizes = {stage: make_compressor("sort", **options, **more).encode(x).nbytes
             for stage, more in {"zstd": {"zstd": 3}, "context": {"codes": "context"}}.items()}  # fmt: skip
    assert sizes["context"] < 0.65 * sizes["zstd"]


def test_what_cannot_be_shortened_and_what_is_not_finite_travel_as_before():
    noise = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    codec = make_compressor("uniform", bits=8, codes="context")
    assert not codec.encode(noise).header.context
    noise[7] = float("nan")
    payload = codec.encode(noise)
    assert payload.header.raw and not payload.header.context and torch.equal(decode(payload)[:7], noise[:7])


def resealed(payload, body=None, **changes):
    """The payload with another body or header, and a checksum that fits."""
    body = payload.body if body is None else body
    room = torch.zeros(HEADER_BYTES, dtype=torch.uint8)
    return _sealed(dataclasses.replace(payload.header, **changes), torch.cat([room, body]))


def test_damage_behind_a_valid_checksum_is_an_error_or_other_values():
    payload = make_compressor("sort", level_bits=2, bin_bits=1, codes="context").encode(torch.arange(4000.0).sin())
    assert payload.header.context
    for damaged in (
        resealed(payload, payload.body[:5]),
        resealed(payload, shape=(8000,)),
        resealed(payload, shape=(2**30, 2**20)),
        resealed(payload, codec=0),
        resealed(payload, zstd=True),
        resealed(payload, raw=True),
    ):
        with pytest.raises(PayloadError):
            decode(damaged)
    flipped = payload.body.clone()
    flipped[-200] ^= 255
    for other in (flipped, payload.body[:-1], torch.cat([payload.body, payload.body[-1:]])):
        with contextlib.suppress(PayloadError):
            assert decode(resealed(payload, other)).shape == (4000,)


@given(
    st.integers(2, 4),
    st.tuples(*[st.integers(0, 2**16 - 1)] * 2),
    st.lists(st.sampled_from([0, 1, 7, 64, 2**16, 2**31, 2**32 - 1]), max_size=4),
    st.binary(max_size=300),
)
@settings(max_examples=1000, deadline=None)
def test_a_crafted_message_is_an_error_or_values(codec, numbers, shape, body):
    """The coder is compiled, and nothing checks its bounds but what it is given."""
    header = Header(codec, torch.float32, tuple(shape), (*numbers, 0, 0), context=True)
    room = torch.zeros(HEADER_BYTES, dtype=torch.uint8)
    crafted = _sealed(header, torch.cat([room, torch.tensor(list(body), dtype=torch.uint8)]))
    with contextlib.suppress(PayloadError):
        assert decode(crafted).shape == tuple(shape)


def test_two_stages_or_an_unknown_one_are_refused():
    with pytest.raises(ConfigError, match="codes must be one of packed, context, not 'huffman'"):
        make_compressor("sort", codes="huffman")
    with pytest.raises(ConfigError, match="choose one of the two"):
        make_compressor("uniform", zstd=1, codes="context")
