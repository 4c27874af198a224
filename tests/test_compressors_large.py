"""What only shows on large tensors, in headers that lie, and in a fresh process."""

import os
import subprocess
import sys

import pytest
import torch

from benchmarks import textbook
from splitlib.compressors import HEADER_BYTES, Payload, decode, make_compressor
from splitlib.compressors.base import Header, _sealed
from splitlib.errors import PayloadError

LARGE = 300_000


def large(kind: str) -> torch.Tensor:
    x = torch.randn(LARGE, generator=torch.Generator().manual_seed(0))
    return {"normal": x, "relu": x.relu(), "offset": 1000 + x * 1e-3, "bfloat16": x.bfloat16().float()}[kind]


@pytest.mark.parametrize("kind", ["normal", "relu", "offset", "bfloat16"])
@pytest.mark.parametrize(("level_bits", "bin_bits", "limit"), [(6, 2, 1.02), (9, 3, 1.02), (12, 4, 1.02)])
def test_counting_instead_of_sorting_costs_a_few_percent(kind, level_bits, bin_bits, limit):
    x = large(kind)
    back = decode(make_compressor("sort", level_bits=level_bits, bin_bits=bin_bits).encode(x))
    slow = textbook.sort_decode(textbook.sort_encode(x, level_bits, bin_bits), level_bits)
    assert (back - x).double().square().sum() <= limit * (slow - x).double().square().sum()


def test_cube_root_edges_have_the_smallest_error():
    x = large("normal") * large("normal").flip(0).exp()
    codecs = {rule: make_compressor("sort", edges=rule) for rule in ("equal_count", "equal_range", "cube_root")}
    error = {rule: (decode(codec.encode(x)) - x).square().mean() for rule, codec in codecs.items()}
    assert error["cube_root"] < 0.5 * error["equal_range"] and error["cube_root"] < 0.5 * error["equal_count"]


@pytest.mark.parametrize("kind", ["normal", "relu", "offset", "bfloat16", "clipped"])
def test_least_error_edges_are_no_worse_than_the_other_rules(kind):
    x = large("relu").clamp(max=1) if kind == "clipped" else large(kind)
    error = {
        rule: (decode(make_compressor("sort", edges=rule).encode(x)) - x).double().square().mean()
        for rule in ("least_error", "cube_root", "equal_range", "equal_count")
    }
    assert error.pop("least_error") <= 1.03 * min(error.values())


# Lloyd's and Max's own tables: squared error over variance of a normal density, one level a bin (Max 1960, table I).
MAX_1960 = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497}


@pytest.mark.parametrize("bits", MAX_1960)
def test_bins_of_one_level_reach_the_known_least_error_of_a_normal_density(bits):
    x = large("normal")
    back = decode(make_compressor("sort", edges="least_error", level_bits=0, bin_bits=bits).encode(x))
    assert float((back - x).square().mean() / x.var()) == pytest.approx(MAX_1960[bits], rel=0.03)


@pytest.mark.parametrize("name", ["uniform", "sort", "fast"])
def test_zstd_loses_nothing_and_its_payload_decodes_by_itself(name):
    x = large("relu")
    plain, shrunk = make_compressor(name).encode(x), make_compressor(name, zstd=1).encode(x)
    assert shrunk.header.zstd and HEADER_BYTES < shrunk.nbytes < 0.8 * plain.nbytes
    assert torch.equal(decode(Payload(shrunk.message.clone())), decode(plain))


@pytest.mark.parametrize("stage", [{}, {"zstd": True}, {"context": True}])
def test_a_header_that_claims_too_much_is_refused_before_anything_is_allocated(stage):
    body = torch.zeros(HEADER_BYTES + 100, dtype=torch.uint8)
    header = Header(2, torch.float32, (2**30, 2**30), (8, 0, 0, 0), **stage)
    with pytest.raises(PayloadError, match=r"implies|damaged|cannot hold"):
        decode(_sealed(header, body))


def test_the_header_fits_into_64_bytes():
    assert make_compressor("uniform").encode(torch.empty(0)).nbytes == HEADER_BYTES <= 64


FRESH = """
import sys, torch
from splitlib.compressors import decode, make_compressor
assert "numba" not in sys.modules, "importing splitlib imports numba"
x = torch.arange(100.0)
assert (decode(make_compressor("uniform").encode(x)) - x).abs().max() < 0.2
"""


def test_kernels_work_where_nothing_can_be_cached_and_numba_waits_for_them(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(blocked / "none")}
    subprocess.run([sys.executable, "-c", FRESH], check=True, env=environment)
