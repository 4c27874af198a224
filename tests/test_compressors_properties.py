"""Thousands of generated tensors through every quantizer, against slow references and the documented error bounds.

Hypothesis draws a seed, a size, a shape of distribution and the codec's parameters; numpy makes the values, because
drawing them one by one would take minutes. Each test's count is set so that every compressor sees 5,000 cases.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import textbook
from splitlib.compressors import COMPRESSORS, HEADER_BYTES, Payload, decode, edges, kernels, make_compressor, reference
from splitlib.compressors.quantizer import SMALLEST_STEP, level_scaling, level_table
from splitlib.errors import PayloadError

CASES = 5000
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Half a step, and what rounding a quotient, a step and a sum to 24 bits can add at 2^16 levels.
SLACK = 0.51
PLACED = ("cube_root", "least_error")  # rules that say where the levels of a bin lie


def tensor(kind: str, numel: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    """A finite tensor of a kind that upsets quantizers."""
    random = np.random.default_rng(seed)
    values = random.standard_normal(numel)
    if kind == "relu":
        values = values.clip(0, None)
    elif kind == "ties":
        values = values.round()
    elif kind == "constant":
        values = np.full(numel, values[0] if numel else 0.0)
    elif kind == "offset":
        values = 1000 + values * 1e-3
    elif kind == "heavy":
        values = values * np.exp(4 * random.standard_normal(numel))
    elif kind == "denormal":
        values = values * 1e-41
    elif kind == "huge":
        values = values.clip(-1, 1) * 3.3e38
    limit = torch.finfo(dtype).max
    return torch.from_numpy(values.clip(-limit, limit)).to(dtype).clamp(-limit, limit)


KINDS = ("normal", "relu", "ties", "constant", "offset", "heavy", "denormal", "huge")
tensors = st.builds(
    tensor, st.sampled_from(KINDS), st.integers(0, 130), st.integers(0, 2**32 - 1), st.sampled_from(DTYPES)
)
widths = st.tuples(st.integers(0, 16), st.integers(0, 6)).filter(lambda w: 1 <= sum(w) <= 16)


def generated(cases: int):
    """Settings of a property test: cheap cases, many of them, the same on each run."""
    return settings(max_examples=cases, deadline=None, derandomize=True, database=None)


def within(back: torch.Tensor, x: torch.Tensor, step: torch.Tensor) -> bool:
    """Is every value within half a step, but for the dtypes' own rounding?"""
    step = torch.where(step >= torch.finfo(torch.float32).max, 2 * step, step)  # a wider one was held there
    error = (back.double() - x.double()).abs()
    info = torch.finfo(x.dtype)
    own = info.eps * torch.maximum(back.double().abs(), x.double().abs()).clamp(min=info.smallest_normal)
    return bool((error <= SLACK * step + own + SMALLEST_STEP).all())


def table_and_bins(payload: Payload, x: torch.Tensor, level_bits: int, bin_bits: int) -> tuple[torch.Tensor, ...]:
    """Read a payload with the slow functions: each bin's minimum and step, and each value's bin."""
    split = 8 << bin_bits
    low, step = payload.body[:split].clone().view(torch.float32).reshape(2, -1)
    codes = reference.unpack(payload.body[split:], level_bits + bin_bits, x.numel()).long()
    return low, step, codes >> level_bits


@given(tensors, st.sampled_from(tuple(COMPRESSORS)))
@generated(CASES // 5)
def test_every_compressor_gives_back_a_finite_tensor_of_its_kind(x, name):
    payload = make_compressor(name).encode(x)
    back = decode(Payload(payload.message.clone()))  # with nothing but the message
    assert back.shape == x.shape and back.dtype == x.dtype
    assert torch.isfinite(back).all()


@given(tensors, st.sampled_from(("none", "cast")))
@generated(2 * CASES)
def test_identity_is_exact_and_a_cast_is_that_of_torch(x, name):
    options = {"dtype": "bfloat16"} if name == "cast" else {}
    back = decode(make_compressor(name, **options).encode(x))
    limit = torch.finfo(torch.bfloat16).max
    expected = x if name == "none" else x.float().clamp(-limit, limit).bfloat16().to(x.dtype)
    finite = torch.finfo(x.dtype).max
    assert torch.equal(back, expected.clamp(-finite, finite))


@given(tensors, st.integers(1, 16))
@generated(CASES // 2)
def test_uniform_keeps_half_a_step(x, bits):
    payload = make_compressor("uniform", bits=bits).encode(x)
    back = decode(payload)
    assert payload.nbytes == HEADER_BYTES + (8 + -(-x.numel() * bits // 8) if x.numel() else 0)
    if x.numel():
        step = (x.double().max() - x.double().min()) / (2**bits - 1)
        assert within(back, x, step)


@given(tensors, st.integers(1, 16), st.integers(1, 12))
@generated(CASES // 2)
def test_each_block_keeps_half_its_own_step(x, bits, rows):
    block = 8 * rows
    payload = make_compressor("uniform", bits=bits, block=block).encode(x)
    back = decode(payload)
    blocks = -(-x.numel() // block)
    assert payload.nbytes == HEADER_BYTES + 8 * blocks + -(-x.numel() * bits // 8)
    for part, decoded in zip(x.split(block), back.split(block), strict=True):
        if part.numel():
            step = (part.double().max() - part.double().min()) / (2**bits - 1)
            assert within(decoded, part, step)


@given(tensors, widths)
@generated(CASES // 2)
def test_equal_count_is_the_textbook_and_its_error_no_larger(x, width):
    level_bits, bin_bits = width
    payload = make_compressor("sort", level_bits=level_bits, bin_bits=bin_bits).encode(x)
    back = decode(payload)
    if not x.numel():
        assert payload.nbytes == HEADER_BYTES
        return
    assert payload.nbytes == HEADER_BYTES + (8 << bin_bits) + -(-x.numel() * sum(width) // 8)
    slow = textbook.sort_encode(x, level_bits, bin_bits)
    low, step, bins = table_and_bins(payload, x, level_bits, bin_bits)
    chunks = len(slow.minima)
    usual = (slow.steps > SMALLEST_STEP) & torch.isfinite(slow.steps)
    assert torch.equal(low[:chunks], slow.minima) and torch.equal(step[:chunks][usual], slow.steps[usual])
    bound = step.double()[bins]
    if level_bits == 0:
        bound = 2 * bound  # one level, the bin's minimum: the error is up to a whole step
    assert within(back, x, bound)
    own = slow.steps[slow.codes.long() >> level_bits].double().clamp(SMALLEST_STEP, torch.finfo(torch.float32).max)
    assert within(back, x, own if level_bits else 2 * own)  # nor is any error above that of the textbook's chunk


@given(tensors, widths)
@generated(CASES)
def test_fast_keeps_half_a_bins_step_and_covers_the_range(x, width):
    check_bins(make_compressor("fast", level_bits=width[0], bin_bits=width[1]), x, width)


@given(tensors, widths, st.sampled_from(["equal_range", "cube_root", "least_error"]))
@generated(CASES // 2)
def test_other_edges_keep_half_a_bins_step_and_cover_the_range(x, width, rule):
    check_bins(make_compressor("sort", edges=rule, level_bits=width[0], bin_bits=width[1]), x, width)


def check_bins(codec, x, width):
    """The size is exact, bins rise, and every error is within half the value's own step, or its bin's values' range."""
    level_bits, bin_bits = width
    payload = codec.encode(x)
    back = decode(payload)
    if not x.numel():
        return
    assert payload.nbytes == HEADER_BYTES + (8 << bin_bits) + -(-x.numel() * sum(width) // 8)
    low, step, bins = table_and_bins(payload, x, level_bits, bin_bits)
    assert (low.diff() >= 0).all() and low[0] >= x.min().float()
    if level_bits or getattr(codec, "edges", "") not in PLACED:
        assert within(back, x, step.double()[bins] * (1 if level_bits else 2))  # one level, the bin's minimum
        return
    flat = x.double().reshape(-1)
    highest, lowest = (
        torch.full((1 << bin_bits,), end).double().scatter_reduce_(0, bins, flat, how, include_self=False)
        for end, how in ((0.0, "amax"), (0.0, "amin"))
    )
    assert within(back, x, 2 * (highest - lowest)[bins])


@given(tensors, st.tuples(st.integers(0, 4), st.integers(0, 6)).filter(any), st.sampled_from(PLACED))
@generated(CASES // 2)
def test_placed_levels_err_no_more_than_levels_from_end_to_end(x, width, rule):
    """On tensors whose sample is all of them, choosing where levels lie can only help."""
    if not x.numel():
        return
    level_bits, bin_bits = width
    flat = x.float()
    bins = edges.RULES[rule](flat, float(flat.min()), float(flat.max()), 1 << bin_bits, 1 << level_bits)
    ends = torch.cat([bins.begins, flat.max().reshape(1)])
    plain = edges.Bins(bins.begins, ends[:-1], ends[1:])
    errors = [squared_error(flat, found, level_bits) for found in (bins, plain)]
    rounding = torch.finfo(torch.float32).eps * float(flat.abs().max())  # a level is a float32
    assert errors[0] <= errors[1] * (1 + 1e-5) + len(flat) * rounding**2


def squared_error(x: torch.Tensor, bins: edges.Bins, level_bits: int) -> float:
    """Quantize in double precision, one value at a time."""
    total = 0.0
    begins, lowest, highest = (column.double().tolist() for column in bins)
    for value in x.double().tolist():
        own = max(k for k, begin in enumerate(begins) if begin <= value)
        step = (highest[own] - lowest[own]) / max(2**level_bits - 1, 1)
        level = round((value - lowest[own]) / step) if step else 0
        total += (lowest[own] + min(max(level, 0), 2**level_bits - 1) * step - value) ** 2
    return total


@given(st.sampled_from(KINDS), st.integers(1, 1500), st.integers(0, 2**32 - 1), widths, st.integers(1, 20))
@generated(400)
def test_kernels_equal_the_reference_bit_for_bit(kind, numel, seed, width, rows):
    x = tensor(kind, numel, seed, torch.float32)
    (level_bits, bin_bits), bits = width, sum(width)
    assert kernels.span(x) == reference.span(x)
    message = x.view(torch.uint8)[: 4 * numel - rows % 8]
    assert torch.equal(kernels.word_sum(message), reference.word_sum(message))
    for every in (1, 4):
        assert torch.equal(kernels.histogram(x, every), reference.histogram(x, every))
    rule = edges.cube_root if rows % 2 else edges.sampled_count  # levels inside the bins, and at their ends
    bins = rule(x, float(x.min()), float(x.max()), 1 << bin_bits, 1 << level_bits)
    table = level_table(torch.stack(bins[1:]), level_bits)
    bodies = [torch.empty(-(-numel * bits // 8), dtype=torch.uint8) for _ in range(4)]
    starts, scaling = bins.begins[1:].contiguous(), level_scaling(table)
    kernels.write_codes(x, starts, scaling, level_bits, bits, bodies[0])
    reference.write_codes(x, starts, scaling, level_bits, bits, bodies[1])
    assert torch.equal(bodies[0], bodies[1])
    values = torch.arange(1 << bits).float()
    decoded = [module.read_codes(bodies[0], values, bits, numel) for module in (kernels, reference)]
    assert torch.equal(*decoded)
    for block in (8 * rows, numel):
        ends = kernels.extremes(x, block)
        assert torch.equal(ends, reference.extremes(x, block))
        table = level_table(ends, bits)
        kernels.write_blocks(x, level_scaling(table), block, bits, bodies[2])
        reference.write_blocks(x, level_scaling(table), block, bits, bodies[3])
        assert torch.equal(bodies[2], bodies[3])
        decoded = [module.read_blocks(bodies[2], table, block, bits, numel, 3e38) for module in (kernels, reference)]
        assert torch.equal(*decoded)


SMALL = [
    *map(make_compressor, COMPRESSORS),
    make_compressor("uniform", bits=3, block=16),
    make_compressor("sort", level_bits=3, bin_bits=1, zstd=1),
    make_compressor("fast", level_bits=2, bin_bits=2),
    make_compressor("sort", level_bits=0, bin_bits=3, edges="least_error", codes="context"),
    make_compressor("uniform", bits=3, block=16, codes="context"),
    make_compressor("topk", share=0.2),
]


@given(st.sampled_from(SMALL), st.binary(max_size=300), st.data())
@generated(2000)
def test_damage_anywhere_is_a_payload_error(codec, noise, data):
    message = codec.encode(torch.arange(400.0) % 7).message.clone()
    damaged = data.draw(st.sampled_from(["flip", "cut", "longer", "foreign"]))
    if damaged == "flip":
        message[data.draw(st.integers(0, len(message) - 1))] ^= data.draw(st.integers(1, 255))
    elif damaged == "cut":
        message = message[: data.draw(st.integers(0, len(message) - 1))]
    elif damaged == "longer":
        message = torch.cat([message, torch.ones(data.draw(st.integers(1, 40)), dtype=torch.uint8)])
    else:
        message = torch.tensor(list(noise), dtype=torch.uint8)
    with pytest.raises(PayloadError):
        decode(Payload(message))
