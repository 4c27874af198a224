"""Payloads decode with nothing but themselves, have exactly the size they should, and keep their error bound."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splitlib.compressors import (
    COMPRESSORS,
    HEADER_BYTES,
    Payload,
    base,
    decode,
    lossless,
    make_compressor,
    make_compressors,
)
from splitlib.compressors.packing import pack, packed_nbytes, unpack
from splitlib.compressors.sort import BinnedQuantization
from splitlib.compressors.uniform import UniformQuantization
from splitlib.config import choices
from splitlib.errors import ConfigError, PayloadError

# Options that leave more out than the default ones; a compressor that is not named here is tested with those.
OPTIONS = {
    "power_iteration": {"rank": 2},
    "cast": {"dtype": "bfloat16"},
    "uniform": {"bits": 5},
    "sort": {"level_bits": 3, "bin_bits": 2},
    "fast": {"level_bits": 3, "bin_bits": 2, "scale": "row"},
    "deadzone": {"step": 0.5, "scale": "row", "codes": "packed"},
    "topk": {"share": 0.3, "scale": "row", "codes": "packed"},
}
CODECS = {name: OPTIONS.get(name, {}) for name in COMPRESSORS}
AWKWARD = {
    "empty": torch.empty(0, 3),
    "scalar": torch.tensor(3.0),
    "one": torch.tensor([2.5]),
    "constant": torch.full((40,), -1.25),
    "two values": torch.tensor([0.0, 1.0]).repeat(20),
    "denormal": torch.tensor([1e-45, 0.0, 3e-45]),
    "huge": torch.tensor([3e38, -3e38, 0.0]),
    "largest": torch.tensor([torch.finfo(torch.float32).max] * 2),
    "largest of both signs": torch.tensor([-1.0, 0.0, 1.0]) * torch.finfo(torch.float32).max,
    "not contiguous": torch.arange(24.0).reshape(4, 6).t(),
    "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "relu": torch.randn(1000).relu(),
}


@given(st.integers(1, 16), st.integers(0, 70), st.integers(0, 2**32 - 1))
@settings(max_examples=300, deadline=None)
def test_packing_keeps_every_code_in_the_fewest_bytes(bits, numel, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 1 << bits, (numel,), generator=generator, dtype=torch.int32)
    packed = pack(codes, bits)
    assert packed.numel() == packed_nbytes(numel, bits) == -(-numel * bits // 8)
    assert torch.equal(unpack(packed, bits, numel), codes)


def test_packed_bits_are_little_endian():
    codes = [5, 0, 7, 2, 1, 6, 3, 4]
    packed = pack(torch.tensor(codes, dtype=torch.int32), 3)
    as_integer = sum(code << (3 * i) for i, code in enumerate(codes))
    assert bytes(packed.tolist()) == as_integer.to_bytes(3, "little")


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("case", AWKWARD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_awkward_tensors_come_back_in_shape_and_dtype(name, case, dtype):
    x = AWKWARD[case].to(dtype)
    back = decode(make_compressor(name, **CODECS[name]).encode(x))
    assert back.shape == x.shape and back.dtype == dtype
    if name == "none" or not torch.isfinite(x).all():
        assert torch.equal(back, x)
    else:
        assert torch.isfinite(back).all()


@pytest.mark.parametrize("name", CODECS)
def test_inf_and_nan_arrive_exactly(name):
    x = torch.randn(100)
    x[3], x[5] = float("inf"), float("nan")
    payload = make_compressor(name, **CODECS[name]).encode(x)
    assert payload.header.raw
    assert decode(payload).numpy().tobytes() == x.numpy().tobytes()


@pytest.mark.parametrize("bits", [0x7F800000, -0x800000, 0x7F800001, -0x7FFFFF, 0x7FFFFFFF, -1])
@pytest.mark.parametrize("place", [0, 777, 99_999])
def test_one_value_that_is_not_finite_is_seen_wherever_it_lies(bits, place):
    """Infinities and NaN of both signs, with the first and the last bits a NaN can have."""
    x = torch.randn(100_000)
    x.view(torch.int32)[place] = bits
    payload = make_compressor("uniform").encode(x)
    assert payload.header.raw and torch.equal(decode(payload).view(torch.int32), x.view(torch.int32))


@pytest.mark.parametrize("bits", range(1, 17))
def test_uniform_keeps_its_size_and_error_bound(bits):
    x = torch.randn(1001, generator=torch.Generator().manual_seed(bits))
    payload = make_compressor("uniform", bits=bits).encode(x)
    step = (x.max() - x.min()) / (2**bits - 1)
    assert payload.nbytes == HEADER_BYTES + 8 + -(-1001 * bits // 8)
    assert (decode(payload) - x).abs().max() <= 0.5 * step + 4e-6


@pytest.mark.parametrize(("level_bits", "bin_bits"), [(12, 4), (9, 3), (6, 2), (3, 1), (1, 3), (0, 4), (4, 0)])
def test_sort_keeps_its_size_and_error_bound_in_each_bin(level_bits, bin_bits):
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0)).relu()
    payload = make_compressor("sort", level_bits=level_bits, bin_bits=bin_bits).encode(x)
    assert payload.nbytes == HEADER_BYTES + (8 << bin_bits) + 4096 * (level_bits + bin_bits) // 8
    ordered, index = x.sort(stable=True)
    error = (decode(payload)[index] - ordered).abs().reshape(1 << bin_bits, -1)
    bins = ordered.reshape(1 << bin_bits, -1)
    step = (bins[:, -1] - bins[:, 0]) / max(2**level_bits - 1, 1)
    limit = 0.5 * step if level_bits else bins[:, -1] - bins[:, 0]
    assert (error.max(dim=1).values <= limit + 1e-6).all()


def test_equal_count_bins_spend_levels_where_the_values_are():
    """On a dense cluster with one outlier, uniform wastes its levels and sort does not (001 §2's reason to sort)."""
    x = torch.cat([torch.randn(4000) * 0.01, torch.tensor([100.0])])
    errors = {
        name: (decode(make_compressor(name, **options).encode(x)) - x).square().mean()
        for name, options in (("uniform", {"bits": 8}), ("sort", {"level_bits": 6, "bin_bits": 2}))
    }
    assert errors["sort"] < errors["uniform"]


@pytest.mark.parametrize("name", CODECS)
def test_damaged_payloads_are_errors(name):
    message = make_compressor(name, **CODECS[name]).encode(torch.randn(50)).message
    bad_codec, bad_magic = message.clone(), message.clone()
    bad_codec[3], bad_magic[0] = 200, 0
    for damaged, words in (
        (message[:10], "shorter than its"),
        (message[:-1], "its header implies"),
        (torch.cat([message, message[:1]]), "its header implies"),
        (bad_magic, "not a splitlib payload"),
        (bad_codec, "corrupted"),
    ):
        with pytest.raises(PayloadError, match=words):
            decode(Payload(damaged))


def test_a_short_frame_that_claims_much_is_refused_before_anything_is_allocated():
    size = 1 << 50
    frame = b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little") + b"\x01\0\0"  # one empty block
    with pytest.raises(PayloadError, match=f"zstd frame holds {size} bytes"):
        lossless.grow(torch.frombuffer(bytearray(frame), dtype=torch.uint8), size)


def test_an_empty_tensor_has_an_empty_body_whatever_its_flags_say():
    header = dataclasses.replace(make_compressor("sort").encode(torch.empty(0)).header, zstd=True)
    message = torch.zeros(HEADER_BYTES + 8, dtype=torch.uint8)
    assert decode(base._sealed(header, message[:-8].clone())).shape == (0,)
    with pytest.raises(PayloadError, match="body has 8 bytes; its header implies 0"):
        decode(base._sealed(header, message))


def test_integers_are_refused():
    with pytest.raises(PayloadError, match="int64"):
        make_compressor("none").encode(torch.arange(3))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("zip", {}, "unknown compressor 'zip'; choose from none"),
        ("sort", {"bits": 8}, "no parameter 'bits'; it takes zstd, codes, level_bits, bin_bits"),
        ("none", {"bits": 8}, "it takes no parameters"),
        ("uniform", {"bits": 8.0}, "bits must be int, not 8.0"),
        ("uniform", {"bits": True}, "bits must be int, not True"),
        ("deadzone", {"step": True}, "step must be float, not True"),
        ("deadzone", {"step": "1"}, "step must be float, not '1'"),
        ("deadzone", {"step": 10**400}, "step must be float, not 1000"),
        ("deadzone", {"step": -1}, "step must be from 0.001 to 1000 root mean squares, not -1.0"),
        ("uniform", {"bits": 17}, "from 1 to 16, not 17"),
        ("sort", {"level_bits": 12, "bin_bits": 5}, "^level_bits 12 .* 1 to 16 bits"),
        ("fast", {"level_bits": 20}, "^level_bits 20 .* 1 to 16 bits"),
        ("cast", {"dtype": "int8"}, "dtype must be one of float16, bfloat16, not 'int8'"),
    ],
)
def test_mistakes_are_one_clear_line(name, options, words):
    with pytest.raises(ConfigError, match=words):
        make_compressor(name, **options)


def test_a_whole_number_will_do_where_a_fraction_may_stand():
    assert repr(make_compressor("deadzone", step=2)) == repr(make_compressor("deadzone", step=2.0))
    assert [codec.step for codec in make_compressors("deadzone", {"step": "0.5,1"})] == [0.5, 1.0]


def test_bins_without_a_rule_are_no_compressor():
    with pytest.raises(TypeError, match="abstract"):
        BinnedQuantization()


def test_a_codec_that_inherits_its_code_is_refused():
    """Its payloads would be decoded by its parent, whatever it says itself."""
    with pytest.raises(TypeError, match="codec Mine needs a code of its own: with"):

        class Mine(UniformQuantization):
            @classmethod
            def decode_body(cls, body, header):
                return torch.zeros(header.shape)


@pytest.mark.parametrize("x", [torch.ones(2, dtype=torch.float64), torch.ones(2).to_sparse()], ids=["double", "sparse"])
def test_what_cannot_be_encoded_is_told_what_can(x):
    with pytest.raises(PayloadError, match=r"only dense ones of float32, .*: convert it, such as with \.float\(\)"):
        make_compressor("uniform").encode(x)


def test_options_are_of_compressors_that_there_are():
    assert set(OPTIONS) <= set(COMPRESSORS)


def test_a_config_names_what_the_registry_has():
    where = "COMPRESSORS in splitlib/config/choices.py and in splitlib/compressors/registry.py name others"
    assert tuple(COMPRESSORS) == choices.COMPRESSORS, where
