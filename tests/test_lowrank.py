"""Power iteration: the documents' sizes, close to the best of its rank, and a state that nothing else disturbs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splitlib.compressors import (
    COMPRESSORS,
    HEADER_BYTES,
    Payload,
    PowerIteration,
    after,
    decode,
    lowrank,
    make_compressor,
    make_compressors,
)
from splitlib.data.text import vocabulary_size
from splitlib.errors import ConfigError, PayloadError
from splitlib.models.roberta import roberta_tiny
from splitlib.partition import split
from splitlib.pipeline import Boundary, Traffic, build_pipeline
from splitlib.progress import Progress
from tests.support import TINY, trainer_of

LOW_RANK = TINY.replace(max_length=18, compressor="power_iteration", compressor_options={"rank": 6})


def matrices(x: torch.Tensor) -> torch.Tensor:
    """The document's matrices: [B, C, HW] of an image, [B, L, D] of a text."""
    return x.flatten(2) if x.ndim > 3 else x


def relative_error(x: torch.Tensor, y: torch.Tensor) -> float:
    """Squared error over the tensor's squares."""
    return float((x - y).double().square().sum() / x.double().square().sum())


def best_error(x: torch.Tensor, rank: int) -> float:
    """The truncated SVD's squared error over the tensor's squares: nothing of this rank is better."""
    squares = torch.linalg.svdvals(matrices(x).double()).square()
    return float(squares[..., rank:].sum() / squares.sum())


def decaying_spectrum(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Matrices of random bases whose singular values fall like 1 / k, roughly as activations' do."""
    generator = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(matrices(torch.randn(shape, generator=generator)), full_matrices=False)
    values = 1 / torch.arange(1, u.shape[-1] + 1)
    return ((u * values) @ v).reshape(shape)


def low_rank(shape: tuple[int, ...], rank: int, seed: int = 0) -> torch.Tensor:
    """Matrices of exactly that rank."""
    generator = torch.Generator().manual_seed(seed)
    *count, rows, columns = (
        (*shape[:-2], shape[-2], shape[-1]) if len(shape) < 4 else (*shape[:2], math.prod(shape[2:]))
    )
    left, right = (torch.randn(*count, n, rank, generator=generator) for n in (rows, columns))
    return (left @ right.mT).reshape(shape)


# --- Sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "ratio"), [(128, 1.17), (32, 0.291), (16, 0.146), (12, 0.109)])
def test_sizes_are_002s(rank, ratio):
    x = torch.randn(2, 128, 768)
    payload = PowerIteration(rank=rank).encode(x)
    assert payload.nbytes == HEADER_BYTES + 4 * 2 * rank * (128 + 768)
    assert (payload.nbytes - HEADER_BYTES) / (4 * x.numel()) == pytest.approx(ratio, abs=0.0051 if ratio > 1 else 1e-3)


def test_ranks_3_and_7_have_000s_size_over_both_cuts():
    shapes, codecs = [(2, 32, 112, 112), (2, 1280, 7, 7)], make_compressors("power_iteration", {"rank": "3,7"})
    elements = sum(math.prod(shape) for shape in shapes)
    payloads = [codec.encode(torch.randn(shape)) for codec, shape in zip(codecs, shapes, strict=True)]
    assert [p.nbytes for p in payloads] == [
        HEADER_BYTES + 4 * 2 * 3 * (32 + 112 * 112),
        HEADER_BYTES + 4 * 2 * 7 * (1280 + 7 * 7),
    ]
    assert sum(p.nbytes - HEADER_BYTES for p in payloads) / (4 * elements) == pytest.approx(0.101, abs=5e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sends_half_of_the_bytes(dtype):
    x = decaying_spectrum((2, 20, 30)).to(dtype)
    payload = PowerIteration(rank=4).encode(x)
    assert payload.nbytes == HEADER_BYTES + 2 * 2 * 4 * 50
    wide = decode(PowerIteration(rank=4).encode(x.float()))
    assert decode(payload).dtype == dtype
    assert relative_error(wide, decode(payload).float()) < (2 * torch.finfo(dtype).eps) ** 2


# --- Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "rank"),
    [((4, 32, 14, 14), 3), ((4, 128, 7, 7), 7), ((4, 24, 96), 8), ((48, 64), 5), ((2, 3, 4, 5, 6), 2)],
)
def test_on_a_tensor_that_hardly_changes_it_turns_to_the_best_of_its_rank(shape, rank):
    """Which no micro-batch of a training is to the one before: what a warm start is worth there says the next test."""
    x, warm = decaying_spectrum(shape), PowerIteration(rank=rank)
    change = torch.Generator().manual_seed(1)
    for _ in range(25):
        x = x + 1e-3 * x.std() * torch.randn(shape, generator=change)
        y = decode(warm.encode(x))
    found, best = relative_error(x, y), best_error(x, rank)
    assert best - 1e-6 <= found <= 1.03 * best


@pytest.mark.parametrize("shape", [(4, 32, 8, 8), (4, 24, 48)])
@pytest.mark.parametrize("shared", [True, False], ids=["one mixture", "nothing in common"])
def test_one_warm_round_on_new_samples_is_enough_where_samples_share_their_bases(shape, shared):
    """Against two cold rounds. Where they share nothing, the bases before are no better a start than random ones."""
    generator = torch.Generator().manual_seed(0)
    rows = shape[1] if len(shape) > 3 else shape[2]

    def new_samples(seed):
        if not shared:
            return decaying_spectrum(shape, seed)
        x = torch.randn(shape, generator=generator)
        return (mixing @ x.flatten(2)).reshape(shape) if len(shape) > 3 else x @ mixing.mT

    mixing = torch.linalg.qr(torch.randn(rows, rows, generator=generator)).Q / torch.arange(1, rows + 1)
    micro_batches = [new_samples(seed) for seed in range(8)]
    codec = PowerIteration(rank=4)
    warm = [relative_error(x, decode(codec.encode(x))) for x in micro_batches][2:]
    cold = [relative_error(x, decode(PowerIteration(rank=4).encode(x))) for x in micro_batches][2:]
    assert (sum(warm) < sum(cold)) == shared
    more = after(PowerIteration(rank=4, iterations=3), micro_batches[:-1])
    assert relative_error(micro_batches[-1], decode(more.encode(micro_batches[-1]))) < warm[-1]


def test_what_is_measured_after_others_has_learnt_from_them_alone():
    others, x = [decaying_spectrum((2, 12, 16), seed) for seed in (1, 2)], decaying_spectrum((2, 12, 16))
    codec = PowerIteration(rank=3)
    wanted = after(codec, others).encode(x)
    assert codec.state is None, "a copy learns"
    for each in others:
        codec.encode(each)
    assert torch.equal(codec.encode(x).message, wanted.message)
    after(make_compressor("uniform"), left := iter(others))
    assert len(list(left)) == 2, "one that does not learn encodes none of them"


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_compressor_says_whether_it_learns(name):
    codec = make_compressor(name)
    codec.encode(torch.randn(2, 5, 6))
    assert codec.learns == (codec.state is not None)


def test_more_rounds_come_closer():
    x = decaying_spectrum((2, 40, 60))
    errors = [relative_error(x, decode(PowerIteration(rank=5, iterations=n).encode(x))) for n in (1, 2, 8)]
    assert errors[0] > errors[1] > errors[2] >= best_error(x, 5)


@pytest.mark.parametrize("shape", [(3, 10, 4, 5), (3, 12, 16), (12, 16), (2, 5, 2, 3, 4)])
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_matrices_of_no_higher_rank_arrive_whole(shape, rank):
    x = low_rank(shape, min(rank, 3))
    assert relative_error(x, decode(PowerIteration(rank=rank).encode(x))) < 1e-9


@given(
    shape=st.lists(st.integers(0, 9), min_size=0, max_size=5).map(tuple),
    rank=st.integers(1, 12),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    exponent=st.integers(-40, 38),
    kind=st.sampled_from(["normal", "relu", "constant", "one value", "zero"]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=5000, deadline=None, derandomize=True, database=None)
def test_any_tensor_comes_back_no_further_than_it_is_long(shape, rank, dtype, exponent, kind, seed):
    """A projection is never further from what it projects than zero is, and at right angles to what it leaves out."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).clamp(-3, 3)
    if kind == "relu":
        x = x.relu()
    elif kind == "constant":
        x = torch.ones(shape, dtype=torch.float64)
    elif kind in ("one value", "zero"):
        x = torch.zeros(shape, dtype=torch.float64)
        if kind == "one value" and x.numel():
            x.view(-1)[seed % x.numel()] = 1
    limit = torch.finfo(dtype).max
    x = (x * 10.0**exponent).clamp(-limit, limit).to(dtype)
    codec = PowerIteration(rank=rank)
    for _ in range(2):  # cold, then warm
        payload = codec.encode(x)
        y = decode(payload)
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        assert torch.isfinite(y).all()
        if x.numel():
            smallest = torch.finfo(dtype).smallest_normal
            length, error = (t.double().norm().item() for t in (x, y.double() - x.double()))
            slack = 20 * torch.finfo(dtype).eps * length + 20 * smallest * x.numel()
            assert error <= length + slack
            if y.abs().max() < limit:  # at the limit values are held
                assert abs(math.hypot(error, y.double().norm().item()) - length) <= slack  # Pythagoras
            wide = (*(1, 1, 1)[x.ndim :], *shape) if x.ndim < 3 else shape
            small = min(wide[1], math.prod(wide[2:]))
            if rank >= small:  # nothing is left out
                assert error <= slack
            assert (
                payload.nbytes - HEADER_BYTES
                == wide[0] * min(rank, small) * (wide[1] + math.prod(wide[2:])) * dtype.itemsize
            )


@pytest.mark.parametrize("value", [3.4e38, 1e-45, -3.4e38])
def test_the_largest_and_smallest_numbers_survive(value):
    x = torch.full((2, 6, 4, 4), value)
    assert torch.allclose(decode(PowerIteration(rank=2).encode(x)), x, rtol=1e-5, atol=3e-45)


def test_the_largest_half_survives_a_long_row():
    """The projection of 60000 on 1280 channels is 2.1 million, more than a half can hold: the factors are balanced."""
    x = torch.full((1, 1280, 3, 3), 60000.0, dtype=torch.float16)
    assert torch.allclose(decode(PowerIteration(rank=1).encode(x)), x, rtol=2e-3)


def test_layouts_do_not_matter():
    x = decaying_spectrum((2, 8, 4, 6))
    assert torch.equal(
        PowerIteration(rank=2).encode(x.contiguous(memory_format=torch.channels_last)).message,
        PowerIteration(rank=2).encode(x).message,
    )


def test_a_rank_above_the_matrix_means_the_matrix():
    x = torch.randn(2, 4, 9)
    large, full = PowerIteration(rank=60000).encode(x), PowerIteration(rank=4).encode(x)
    assert large.nbytes == full.nbytes
    assert relative_error(x, decode(large)) < 1e-10


def test_inf_and_nan_travel_raw_and_leave_the_state():
    codec = PowerIteration(rank=2)
    codec.encode(torch.randn(2, 5, 6))
    state, x = codec.state.clone(), torch.randn(2, 5, 6)
    x[0, 0, 0], x[1, 2, 3] = math.inf, math.nan
    payload = codec.encode(x)
    assert payload.header.raw and torch.equal(codec.state, state)
    assert decode(payload).numpy().tobytes() == x.numpy().tobytes()


# --- State -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["zeros", "other channels"])
def test_a_basis_at_right_angles_to_the_next_tensor_still_finds_it(before):
    """Without noise in the start, the product of a tensor with such a basis is 0, now and for ever."""
    x, first, codec = torch.zeros(2, 12, 5, 5), torch.zeros(2, 12, 5, 5), PowerIteration(rank=2)
    x[:, 6:] = low_rank((2, 6, 5, 5), 2)
    if before == "other channels":
        first[:, :6] = low_rank((2, 6, 5, 5), 2, seed=1)
    codec.encode(first)
    codec.encode(x)
    assert relative_error(x, decode(codec.encode(x))) < 1e-6


def test_batches_of_another_size_start_warm():
    x, codec = decaying_spectrum((1, 30, 40)).repeat(6, 1, 1), PowerIteration(rank=4)
    for _ in range(20):
        codec.encode(x[:4])
    other = relative_error(x, decode(codec.encode(x)))
    assert other <= 1.01 * best_error(x, 4)
    assert len(codec.state) == 6


def test_another_kind_of_tensor_starts_afresh():
    used, fresh = PowerIteration(rank=3), PowerIteration(rank=3)
    used.encode(torch.randn(2, 9, 11))
    x = torch.randn(2, 9, 12)
    assert torch.equal(used.encode(x).message, fresh.encode(x).message)


def test_encoding_draws_no_random_numbers():
    before = torch.get_rng_state()
    PowerIteration(rank=3).encode(torch.ones(2, 31, 37))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_payload_alone_decodes():
    codec = PowerIteration(rank=3)
    payloads = [codec.encode(decaying_spectrum((2, 10, 12), seed)) for seed in range(3)]
    decoded = [decode(payload) for payload in payloads]
    for payload, y in zip(reversed(payloads), reversed(decoded), strict=True):
        assert torch.equal(decode(Payload(payload.message.clone())), y)


def test_evaluation_starts_from_training_and_leaves_it_alone():
    codec = PowerIteration(rank=3)
    boundary = Boundary(codec, make_compressor("none"), Traffic())
    x = decaying_spectrum((2, 10, 12))
    for _ in range(3):
        boundary((x,))
    state = codec.state
    received = [boundary.eval()((x,))[0] for _ in range(2)]
    assert codec.state is state and torch.equal(*received)
    assert torch.equal(boundary.train()((x,))[0], received[0])
    assert codec.state is not state


def learnt(engine):
    """The state of each compressor."""
    return [codec.state for codec in engine.compressors()]


def test_every_cut_and_direction_has_its_own_state_and_rank():
    trainer = trainer_of(LOW_RANK.replace(compressor_options={"rank": "3,7"}))
    assert learnt(trainer.engine) == [None] * 4
    inputs, labels = next(iter(trainer.rest_of_epoch(0)))
    trainer.step(inputs, labels)
    states = learnt(trainer.engine)
    assert [tuple(state.shape) for state in states] == [(8, rank, 64) for rank in (3, 3, 7, 7)]
    assert not torch.equal(states[0], states[1])


def test_one_compressor_given_for_everything_is_copied_for_each_cut_and_direction():
    """Shared, it would start each cut's tensors from the other cut's."""
    codec = PowerIteration(rank=3)
    stages = split(roberta_tiny(2), "condition_1")
    pipeline = build_pipeline(
        stages.parts, devices=[torch.device("cpu")] * 3, chunks=1, activations=codec, gradients=codec
    )
    ids = torch.randint(4, vocabulary_size(), (2, 8))
    pipeline.train()(ids, torch.ones_like(ids)).sum().backward()
    assert codec.state is None
    assert len({state.data_ptr() for state in learnt(pipeline)}) == 4


def test_as_many_compressors_as_cuts():
    stages, codecs = split(roberta_tiny(2), "condition_1"), [PowerIteration(rank=3)] * 3
    with pytest.raises(ConfigError, match="2 cuts need one compressor, or 2, not 3"):
        build_pipeline(stages.parts, devices=[torch.device("cpu")] * 3, chunks=1, activations=codecs, gradients=codecs)


@pytest.mark.parametrize("stop_after", [1, 5, 7])
def test_a_resumed_run_has_the_same_bits(stop_after, tmp_path):
    whole = trainer_of(LOW_RANK)
    whole.fit(tmp_path / "whole.pt", Progress("test", 1))
    stopped = trainer_of(LOW_RANK)
    batches = iter(stopped.rest_of_epoch(0))
    for _ in range(min(stop_after, 6)):
        stopped._timed_step(*next(batches))
    if stop_after > 6:
        stopped._end_epoch(Progress("test", 1))
        stopped._timed_step(*next(iter(stopped.rest_of_epoch(0))))
    stopped.save(tmp_path / "stopped.pt")
    resumed = trainer_of(LOW_RANK)
    resumed.restore(tmp_path / "stopped.pt")
    assert resumed.steps_done == stop_after
    resumed.fit(tmp_path / "stopped.pt", Progress("test", 1))
    assert resumed.state.history == whole.state.history
    for name, tensor in whole.engine.state_dict().items():
        assert torch.equal(tensor, resumed.engine.state_dict()[name]), name
    for mine, wanted in zip(learnt(resumed.engine), learnt(whole.engine), strict=True):
        assert torch.equal(mine, wanted)


# --- Mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 0}, "rank must be from 1 to 65535, not 0"),
        ({"rank": 65536}, "rank must be from 1 to 65535, not 65536"),
        ({"rank": 2.5}, "rank must be int, not 2.5"),
        ({"iterations": 0}, "iterations must be at least 1, not 0"),
        ({"state": None}, "no parameter 'state'; it takes rank, iterations"),
        ({"rank": "3,7,9"}, "rank '3,7,9' has 3 values; give one, or one for each of the 2 cuts"),
        ({"rank": "3,x"}, "rank must be int, not 'x'"),
        ({"rank": "3,"}, "rank must be int, not ''"),
    ],
)
def test_mistakes_are_one_clear_line(options, words):
    with pytest.raises(ConfigError, match=words) as error:
        make_compressors("power_iteration", options)
    assert "\n" not in str(error.value)


def test_the_callers_precision_does_not_reach_into_the_factors():
    x = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    plain = PowerIteration(rank=2).encode(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(PowerIteration(rank=2).encode(x).message, plain.message)
        back = decode(plain)
    assert torch.equal(back, decode(plain))
    lowrank._noise.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(PowerIteration(rank=2).encode(x).message, plain.message)
    finally:
        torch.set_default_dtype(torch.float32)


def test_options_of_any_codec_can_differ_between_the_cuts():
    first, second = make_compressors("uniform", {"bits": "8, 4"})
    assert (first.bits, second.bits) == (8, 4)


@pytest.mark.parametrize("change", [lambda m: m[:-4], lambda m: torch.cat([m, m[-4:]])])
def test_a_payload_of_the_wrong_length_is_refused(change):
    message = PowerIteration(rank=2).encode(torch.randn(2, 4, 5)).message
    with pytest.raises(PayloadError, match="implies"):
        decode(Payload(change(message)))
