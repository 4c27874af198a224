"""Top-k sparsification: the largest values and no others, in exact bytes, and what chance exchanges in training."""

import dataclasses
import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splitlib.compressors import HEADER_BYTES, Payload, decode, make_compressor, relative_error
from splitlib.compressors.base import Header, _sealed
from splitlib.compressors.topk import VALUES, largest, swapped
from splitlib.errors import ConfigError, PayloadError
from splitlib.pipeline.channel import Channel, Place
from tests.test_compressors_properties import generated, tensors

UNIT = {"float16": 2.0**-11, "float8": 2.0**-4}  # half of it: what rounding costs a value at most, of itself
# Below the largest, where a dtype's steps stop becoming finer.
FLOOR = {"float16": 2.0**-39, "float8": 2.0**-17}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def straightforward(x, kept):
    """Which of 1-d values are kept, one after the other: larger ones first, and of equal ones the first."""
    order = sorted(range(len(x)), key=lambda i: (-abs(x[i]), i))
    return {*order[:kept]}


def count(share, n):
    """How many of n values are kept; the share is a float32, which is what decides halves."""
    return max(1, round(torch.tensor(share).item() * n))


# --- What is kept ---


@pytest.mark.parametrize("scale", ["tensor", "row"])
@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 1.0])
def test_exactly_the_largest_values_are_kept(scale, share):
    x = normal(4, 16, 50, seed=1)
    back = decode(make_compressor("topk", share=share, scale=scale).encode(x))
    rows = x.reshape(-1, 50 if scale == "row" else 3200)
    kept = count(share, rows.shape[1])
    places = rows.abs().topk(kept).indices
    expected = torch.zeros_like(rows).scatter(1, places, rows.gather(1, places)).reshape(x.shape)
    assert torch.equal(back != 0, expected != 0) and int((back != 0).sum()) == kept * len(rows)
    assert ((back - expected).abs() <= expected.abs() * UNIT["float16"]).all()


@given(tensors, st.floats(1e-6, 1.0), st.sampled_from(["tensor", "row"]), st.sampled_from([*VALUES]))
@generated(5000)
def test_what_is_kept_errs_by_half_a_unit_and_all_else_is_zero(x, share, scale, values):
    x = x if scale == "tensor" or len(x) % 5 else x.reshape(-1, 5)
    payload = make_compressor("topk", share=share, scale=scale, values=values, codes="packed").encode(x)
    back = decode(payload)
    assert back.shape == x.shape and back.dtype == x.dtype and not payload.header.raw
    if not x.numel():
        return
    rows = x.reshape(-1, x.shape[-1])
    kept = count(share, rows.shape[1])
    nbytes = 2 + len(rows) * kept * VALUES[values].itemsize + -(-x.numel() // 8)
    assert payload.nbytes == HEADER_BYTES + nbytes
    info, floor = torch.finfo(x.dtype), FLOOR[values] * x.double().abs().max()
    for row, arrived in zip(rows.double(), back.reshape(rows.shape).double(), strict=True):
        ours = straightforward(row.tolist(), kept)
        for place, (value, other) in enumerate(zip(row.tolist(), arrived.tolist(), strict=True)):
            own = info.eps * max(abs(other), info.smallest_normal)  # of rounding to the tensor's own dtype
            bound = abs(value) * UNIT[values] + floor + own if place in ours else 0
            assert abs(other - (value if place in ours else 0)) <= bound


def test_of_equal_values_the_first_are_kept():
    x = torch.tensor([[1.0, -2.0, 2.0, -1.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0, 3.0, -3.0]])
    back = decode(make_compressor("topk", share=0.5, scale="row").encode(x))
    assert back.tolist() == [[1, -2, 2, 0, 0, 0], [3, 3, 3, 0, 0, 0]]
    back = decode(make_compressor("topk", share=0.5).encode(x))
    assert back.tolist() == [[0, 0, 0, 0, 0, 0], [3, 3, 3, 3, 3, -3]]


def test_one_value_at_least_is_kept():
    x = normal(30, 7)
    for scale, count in (("tensor", 1), ("row", 30)):
        back = decode(make_compressor("topk", share=1e-6, scale=scale).encode(x))
        assert int((back != 0).sum()) == count and back.abs().max() == pytest.approx(float(x.abs().max()), rel=1e-3)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_the_error_is_that_of_a_normal_density_without_its_tails(share):
    """Of values within t of zero the mean square is P(|x| < t) - 2 t density(t), and all of it is lost."""
    law = statistics.NormalDist()
    t = law.inv_cdf(1 - share / 2)
    x = normal(400_000)
    for values, slack in (("float16", 0.01), ("float8", 0.02)):
        back = decode(make_compressor("topk", share=share, values=values).encode(x))
        assert relative_error(x, back) == pytest.approx(1 - share - 2 * t * law.pdf(t), rel=slack)


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("size", [1e-38, 1e-12, 1.0, 1e12, 3e38])
def test_huge_and_tiny_values_survive(size, values):
    x = torch.linspace(0.01, 1, 41) * size * torch.tensor([1.0, -1.0]).repeat(21)[:41]
    back = decode(make_compressor("topk", share=1.0, values=values).encode(x))
    assert ((back - x).abs() <= UNIT[values] * x.abs()).all()


def test_rows_of_a_thousand_sizes_keep_their_largest():
    x = normal(64, 384, seed=1) * torch.logspace(-3, 0, 64).reshape(-1, 1)
    lost = {}
    for scale in ("tensor", "row"):
        back = decode(make_compressor("topk", share=0.2, scale=scale).encode(x))
        lost[scale] = (back - x).square().sum(1) / x.square().sum(1)
    assert lost["row"].max() < 0.5 and (lost["tensor"][:20] == 1).all()


# --- Bytes ---


@pytest.mark.parametrize(("values", "width"), [("float16", 2), ("float8", 1)])
@pytest.mark.parametrize("scale", ["tensor", "row"])
def test_bytes_are_those_of_the_parts(scale, values, width):
    x = normal(64, 384)
    options = {"share": 0.05, "scale": scale, "values": values}
    kept = 64 * 19 if scale == "row" else 1229
    packed = make_compressor("topk", codes="packed", **options).encode(x)
    assert packed.nbytes == HEADER_BYTES + 2 + width * kept + 64 * 384 // 8
    coded = make_compressor("topk", **options).encode(x)
    assert coded.header.context and torch.equal(decode(coded), decode(packed))
    entropy = -(0.05 * math.log2(0.05) + 0.95 * math.log2(0.95)) * x.numel() / 8
    assert coded.nbytes - HEADER_BYTES - 2 - width * kept == pytest.approx(entropy, rel=0.03)


def test_places_that_repeat_take_fewer_bytes():
    loud = normal(1, 384, seed=3).abs()
    x = normal(64, 384) * loud**4
    codec, values = make_compressor("topk", share=0.05, scale="row"), 64 * 19 * 2
    places = [codec.encode(each).nbytes - HEADER_BYTES - 2 - values for each in (x, normal(64, 384))]
    assert places[0] < 0.75 * places[1]


def test_squeezed_by_zstd_it_says_the_same():
    x = normal(64, 384)
    plain, squeezed = (make_compressor("topk", codes="packed", zstd=zstd).encode(x) for zstd in (0, 3))
    assert squeezed.nbytes < plain.nbytes and torch.equal(decode(squeezed), decode(plain))


# --- Chance ---


@given(st.integers(1, 6), st.integers(1, 30), st.integers(1, 30), st.floats(0, 1), st.integers(-(2**40), 2**40))
@settings(max_examples=300, deadline=None)
def test_as_many_enter_as_leave(rows, n, kept, chance, seed):
    kept = min(kept, n)
    chosen = largest(normal(rows, n).abs(), kept)
    other = swapped(chosen, chance, seed)
    assert (other.sum(1) == kept).all()
    if kept == n or not chance:
        assert torch.equal(other, chosen)


def test_a_share_of_the_largest_gives_way_to_any_other():
    """Each leaves with the same chance, and each of the rest enters with the same."""
    x = normal(1, 50).expand(20_000, 50)
    chosen = largest(x.abs(), 10)
    sent = swapped(chosen, 0.3, seed=1).double().mean(0)
    assert sent[chosen[0]] == pytest.approx(0.7, abs=0.02)
    assert sent[~chosen[0]] == pytest.approx(0.3 * 10 / 40, abs=0.01)


def test_the_same_tensor_draws_the_same_and_disturbs_nobody():
    x, codec = normal(40, 60), make_compressor("topk", random=0.2, scale="row")
    torch.manual_seed(5)
    first = codec.encode(x).message
    drawn = torch.rand(3)
    torch.manual_seed(6)
    assert torch.equal(codec.encode(x.clone()).message, first)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)
    plain = make_compressor("topk", scale="row").encode(x)
    exchanged = (decode(plain) != 0) & (decode(codec.encode(x)) == 0)
    assert 20 < int(exchanged.sum()) < 80  # a fifth of 6 values in each of 40 rows
    assert not torch.equal(swapped(decode(plain) != 0, 0.2, 1), swapped(decode(plain) != 0, 0.2, 2))


def test_evaluation_leaves_nothing_to_chance():
    x = normal(40, 60)
    channel, plain = (Channel(make_compressor("topk", random=random)) for random in (0.3, 0.0))
    assert torch.equal(channel.cross(x, Place(training=False))[0], plain.cross(x, Place(training=False))[0])
    assert not torch.equal(channel.cross(x, Place())[0], plain.cross(x, Place())[0])
    assert channel.codec.random == 0.3


# --- Mistakes and damage ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"share": 0.0}, "share must be above 0 and at most 1, not 0.0"),
        ({"share": 1.5}, "not 1.5"),
        ({"share": math.nan}, "not nan"),
        ({"random": -0.1}, "random must be from 0 to 1, not -0.1"),
        ({"random": math.nan}, "random must be from 0 to 1, not nan"),
        ({"scale": "token"}, "scale must be one of tensor, row, not 'token'"),
        ({"values": "int8"}, "values must be one of float16, float8, not 'int8'"),
    ],
)
def test_impossible_options(options, words):
    with pytest.raises(ConfigError, match=words):
        make_compressor("topk", **options)


def resealed(payload: Payload, header: Header, body: torch.Tensor) -> Payload:
    """A payload with a right checksum, whatever it says."""
    return _sealed(header, torch.cat([torch.zeros(HEADER_BYTES, dtype=torch.uint8), body]))


@pytest.mark.parametrize("parameters", [(2, 0, 0x3F00, 0), (0, 0, 0x3F00, 2), (0, 0, 0x4000, 0), (0, 0, 0x7FC0, 0)])
def test_parameters_that_cannot_be_are_refused(parameters):
    """No such scale, no such values, a share of 2 and one that is no number."""
    payload = make_compressor("topk").encode(normal(40))
    with pytest.raises(PayloadError, match="for top-k sparsification"):
        decode(resealed(payload, dataclasses.replace(payload.header, parameters=parameters), payload.body))


def test_values_and_places_that_do_not_fit_are_refused():
    payload = make_compressor("topk", codes="packed").encode(normal(40))
    more, no_number, far = (payload.body.clone() for _ in range(3))
    more[-5:] = 255
    no_number[2:4] = torch.tensor([0, 0x7E], dtype=torch.uint8)  # NaN
    far[:2] = torch.tensor([0xFF, 0x7F], dtype=torch.uint8)  # an exponent of 32767
    for body, words in ((more, "4 for 40 places"), (no_number, "not finite"), (far, "not finite")):
        with pytest.raises(PayloadError, match=words):
            decode(resealed(payload, payload.header, body))
