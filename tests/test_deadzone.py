"""Dead-zone quantization: its error bounds, its bytes, and the coder of its levels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splitlib.compressors import HEADER_BYTES, Payload, arithmetic, decode, make_compressor, mixing, relative_error
from splitlib.compressors.base import Header, _sealed
from splitlib.errors import ConfigError, PayloadError


def normal(*shape, seed=0, peaked=False):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x * x.abs() if peaked else x


def tokens():
    """Rows alike in shape whose sizes differ a thousandfold, as gradients of tokens do; one is padding."""
    x = normal(64, 384, seed=1) * torch.logspace(-3, 0, 64).reshape(-1, 1)
    x[5] = 0
    return x


# --- The quantizer ---


@pytest.mark.parametrize("step", [0.05, 0.7, 2.0])
@pytest.mark.parametrize("scale", ["tensor", "row"])
def test_every_value_is_within_its_bin(step, scale):
    x = tokens()
    steps = step * (x.square().mean(1, keepdim=True) if scale == "row" else x.square().mean()).sqrt()
    steps = steps * (2 ** (1 / 8) if scale == "row" else 1)  # scales of rows are rounded to quarters of an octave
    back = decode(make_compressor("deadzone", step=step, scale=scale).encode(x))
    assert ((back - x).abs() <= steps + 1e-7).all()
    near = x.abs() < 0.59 * steps / (2 ** (1 / 4) if scale == "row" else 1)
    assert (back[near] == 0).all()
    assert (back[x.abs() > 0.61 * steps] != 0).all()
    assert ((back == 0) | (back.sign() == x.sign())).all()


def test_what_is_not_zero_is_restored_without_bias():
    """At its bin's mean, not at its middle: over all such values the errors of magnitudes add up to nothing."""
    x = normal(20_000, peaked=True)
    back = decode(make_compressor("deadzone", step=1.5).encode(x))
    far = back != 0
    assert (back.abs() - x.abs())[far].mean().abs() < 1e-5
    assert 0.01 < far.float().mean() < 0.5


def test_a_row_has_a_step_of_its_own():
    """Of rows whose sizes differ a thousandfold, one step for all loses the small ones, and one for each none."""
    x = tokens()

    def lost(scale):
        back = decode(make_compressor("deadzone", step=1.0, scale=scale).encode(x))
        live = x.abs().sum(1) > 0
        assert (back[~live] == 0).all()
        return ((back - x).square().sum(1) / x.square().sum(1))[live]

    assert lost("tensor")[:20].min() == 1.0
    assert lost("row").max() < 0.13


@pytest.mark.parametrize(("bits", "step", "share"), [(2, 2.0, 0.7), (3, 1.0, 0.8), (4, 0.5, 0.85), (5, 0.25, 0.9)])
def test_at_equal_error_it_takes_fewer_bytes_than_levels_of_least_error(bits, step, share):
    """Peaked values, each quantizer with the coder it has: the coarser, the more is saved."""
    x = normal(512, 384, peaked=True)
    dense = make_compressor("sort", level_bits=0, bin_bits=bits, edges="least_error", codes="context").encode(x)
    dead_zone = make_compressor("deadzone", step=step).encode(x)
    assert relative_error(x, decode(dead_zone)) <= relative_error(x, decode(dense))
    assert dead_zone.nbytes < share * dense.nbytes


def test_bytes_are_those_of_the_parts():
    x = tokens()
    for scale, scales in (("tensor", 0), ("row", 64)):
        payload = make_compressor("deadzone", codes="packed", scale=scale).encode(x)
        assert payload.nbytes == HEADER_BYTES + 8 + scales + 2 * x.numel()
        coded = make_compressor("deadzone", scale=scale).encode(x)
        assert coded.header.context and coded.nbytes < payload.nbytes / 5
        assert torch.equal(decode(coded), decode(payload))
        squeezed = make_compressor("deadzone", codes="packed", zstd=3, scale=scale).encode(x)
        assert torch.equal(decode(squeezed), decode(payload)) and coded.nbytes < squeezed.nbytes < payload.nbytes


def test_a_step_too_small_for_the_largest_value_is_widened():
    x = torch.zeros(1 << 20)
    x[7], x[8] = 1.0, -0.5
    back = decode(make_compressor("deadzone", step=0.001).encode(x))
    assert back[:10].tolist() == pytest.approx(x[:10].tolist(), abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(), (1,), (3, 0), (2, 3, 5, 7), (1, 1, 384)])
@pytest.mark.parametrize("scale", ["tensor", "row"])
def test_any_shape_and_dtype_comes_back(dtype, shape, scale):
    x = normal(*shape).to(dtype)
    back = decode(make_compressor("deadzone", step=0.01, scale=scale).encode(x))
    assert back.dtype == dtype and torch.allclose(back.float(), x.float(), atol=0.02 * (1 + x.float().norm().item()))


def straightforward_body(x, step, by_row):
    """The packed body of a finite tensor, one operation after the other in double precision."""
    rows = x.double().reshape(math.prod(x.shape[:-1]) if by_row else 1, -1)
    size = torch.maximum(rows.square().mean(1).sqrt(), rows.abs().amax(1) / (step * 32767))
    widest = (step * size.max()).clamp(2.0**-125, torch.finfo(torch.float32).max).float()
    octaves = (size.max() / size).log2().nan_to_num(nan=math.inf)
    scales = (4 * octaves).round().clamp(0, 255).to(torch.uint8)
    steps = widest.double() * 2.0 ** (-scales.double() / 4).reshape(-1, 1) if by_row else widest.double()
    distances = rows.abs() / steps
    levels = (distances + 0.4).floor().clamp(max=32767)
    far = levels > 0
    shift = ((distances - levels) * far).sum() / far.sum().clamp(min=1)
    parts = [widest, shift.float(), *([scales] if by_row else []), (levels * rows.sign()).short()]
    return b"".join(part.numpy().tobytes() for part in parts)


AWKWARD = {
    "zeros": torch.zeros(3, 5),
    "minus zeros": -torch.zeros(3, 5),
    "tokens": tokens(),
    "images": normal(2, 3, 8, 8, seed=2, peaked=True).relu(),
    "odd": normal(7, 1, 13, seed=3),
    "a number": torch.tensor(-2.5),
    "subnormal": normal(4, 9, seed=4) * 1e-41,
    "smallest": torch.tensor([[2.0**-149, -(2.0**-149), 0.0], [0.0, 0.0, 0.0]]),
    "huge": torch.tensor([[3.4e38, -3.4e38], [1.0, 1e-38]]),
    "one far away": torch.cat([torch.zeros(5001), torch.tensor([-1e6, 3e-3, 1.0])]).reshape(3, -1),
    "ties": torch.arange(-40.0, 40.0).reshape(8, 10) * 0.1,
    "columns": normal(6, 10, seed=5).T,
    "strided": normal(9, 8, 7, seed=6)[::2, :, 1::3],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("x", AWKWARD.values(), ids=AWKWARD)
@pytest.mark.parametrize("step", [0.001, 0.7, 1000.0])
@pytest.mark.parametrize("scale", ["tensor", "row"])
def test_bytes_are_those_of_the_plain_computation(scale, step, x, dtype):
    x = x.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)
    before, payload = x.clone(), make_compressor("deadzone", step=step, scale=scale, codes="packed").encode(x)
    assert payload.body.numpy().tobytes() == straightforward_body(x, step, scale == "row")
    assert torch.equal(x, before) and not payload.header.raw


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_travels_as_it_is(value):
    x = tokens()
    x[3, 4] = value
    payload = make_compressor("deadzone", scale="row").encode(x)
    assert payload.header.raw and payload.body.numpy().tobytes() == x.numpy().tobytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"step": 0.0}, "step must be from 0.001 to 1000 root mean squares, not 0.0"),
        ({"step": math.nan}, "not nan"),
        ({"scale": "token"}, "scale must be one of tensor, row, not 'token'"),
        ({"zstd": 3}, "choose one of the two"),
    ],
)
def test_impossible_options(options, words):
    with pytest.raises(ConfigError, match=words):
        make_compressor("deadzone", **options)


def test_a_payload_that_names_no_scale_is_refused():
    header = Header(6, torch.float32, (4,), (2, 0, 0, 0))
    with pytest.raises(PayloadError, match="payload names the scale 2"):
        decode(Payload(_sealed(header, torch.zeros(HEADER_BYTES + 16, dtype=torch.uint8)).message))


# --- The coder ---


def coded(levels, row):
    """Encode, check that decoding gives the levels back, and return the bytes."""
    levels = np.asarray(levels, np.int32)
    out = np.empty(4 * len(levels) + 64, np.uint8)
    nbytes = mixing.encode(levels, row, out)
    back = np.empty_like(levels)
    assert mixing.decode(out[:nbytes], row, back) == nbytes
    assert np.array_equal(back, levels)
    tight = np.zeros(nbytes + 8, np.uint8)
    assert mixing.encode(levels, row, tight[:nbytes]) == nbytes, "exactly enough room"
    assert mixing.encode(levels, row, tight[: nbytes - 1]) == -1 and not tight[nbytes:].any()
    return bytes(out[:nbytes])


@given(st.integers(1, 500), st.integers(1, 60), st.floats(0, 10), st.integers(0, 2**32 - 1))
@settings(max_examples=300, deadline=None)
def test_every_level_comes_back(numel, row, octaves, seed):
    random = np.random.default_rng(seed)
    levels = np.rint(random.standard_t(2, size=numel) * 2**octaves).clip(-(2**15), 2**15 - 1)
    coded(levels.astype(np.int32), row)


@pytest.mark.parametrize("level", [0, 1, -1, 14, 15, 16, -17, 2**15 - 1, -(2**15)])
def test_what_never_changes_takes_next_to_nothing(level):
    assert len(coded(np.full(40_000, level), 64)) < (600 if abs(level) < 16 else 80_000)


def entropy_bits(levels):
    shares = np.unique(levels, return_counts=True)[1] / len(levels)
    return -(shares * np.log2(shares)).sum() * len(levels)


def test_levels_without_neighbours_of_interest_take_their_entropy():
    levels = np.rint(np.random.default_rng(3).laplace(size=100_000)).astype(np.int32)
    assert 8 * len(coded(levels, 384)) < 1.01 * entropy_bits(levels)


def test_columns_of_different_scale_are_told_apart():
    """A column's scale is learnt from what came before in it, so the entropy is that of each column by itself."""
    random, scale = np.random.default_rng(4), np.geomspace(0.05, 5, 384)
    levels = np.rint(random.laplace(size=(300, 384)) * scale).astype(np.int32)
    apart = sum(entropy_bits(column) for column in levels.T)
    assert apart < 8 * len(coded(levels.reshape(-1), 384)) < 0.92 * entropy_bits(levels.reshape(-1))


def test_what_repeats_above_is_seen():
    levels = np.rint(np.random.default_rng(5).laplace(size=(40, 50)) * 2).astype(np.int32).repeat(8, axis=0)
    nbytes = len(coded(levels.reshape(-1), 50))
    assert 8 * nbytes < 0.4 * entropy_bits(levels.reshape(-1))
    tree = np.empty(4 * levels.size, np.uint8)
    low, bits = levels.min(), int(levels.max() - levels.min()).bit_length()
    kept = arithmetic.neighbour_bits(levels.size, bits)
    assert nbytes < arithmetic.encode(levels.reshape(-1) - low, bits, 50, kept, tree)


def test_probabilities_are_what_they_should_be():
    """Both tables against the logistic function, in floating point."""
    odds = np.arange(-2047, 2048) / 256
    expected = (65536 / (1 + np.exp(-odds))).clip(16, 65519)
    assert np.abs(mixing._SQUASHED - expected).max() <= 1
    chances = (np.arange(4096) + 0.5) / 4096
    inner = np.abs(np.log(chances / (1 - chances))) < 7
    assert np.abs(mixing._STRETCHED / 256 - np.log(chances / (1 - chances)))[inner].max() < 0.15


@pytest.mark.parametrize("place", [0, 1, 20, -2, -1])
def test_damage_is_noticed_or_gives_other_levels(place):
    """The coder itself survives any bytes; a payload has a checksum before them."""
    levels = np.rint(np.random.default_rng(6).laplace(size=3000) * 3).astype(np.int32)
    data = np.frombuffer(coded(levels, 30), np.uint8).copy()
    data[place] ^= 0x55
    back = np.empty_like(levels)
    mixing.decode(data, 30, back)
    assert not np.array_equal(back, levels)
    with pytest.raises(PayloadError, match=r"levels take \d+ bytes; it has"):
        mixing.grow(np.concatenate([data, np.zeros(9, np.uint8)]), 16, 3000, 30)


@given(st.binary(min_size=0, max_size=200), st.integers(1, 20_000), st.integers(1, 30))
@settings(max_examples=200, deadline=None)
def test_any_bytes_decode_to_levels_or_an_error(data, numel, row):
    try:
        packed = mixing.grow(np.frombuffer(bytearray(data), np.uint8), 16, numel, row)
    except PayloadError:
        return
    assert len(packed) == 2 * numel


def test_a_claim_no_message_can_keep_is_refused_before_anything_is_allocated():
    with pytest.raises(PayloadError, match="12 bytes cannot hold 9000000000000 levels"):
        mixing.grow(np.zeros(12, np.uint8), 16, 9_000_000_000_000, 384)
