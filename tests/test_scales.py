"""Sort and fast quantization with a scale for each row: what rows of unlike sizes keep, and what that costs."""

import pytest
import torch

from splitlib.compressors import HEADER_BYTES, Payload, decode, make_compressor, unequal_gain
from splitlib.compressors.base import Header, _sealed
from splitlib.compressors.scales import as_scales, factors, octaves_below
from splitlib.errors import PayloadError

KINDS = ("sort", "fast")


def rows(sizes):
    """Rows of the same shape, scaled."""
    shape = torch.randn(384, generator=torch.Generator().manual_seed(1))
    return torch.as_tensor(sizes).reshape(-1, 1) * shape


def codec(kind="sort", **options):
    return make_compressor(kind, **{"level_bits": 3, "bin_bits": 1, "scale": "row"} | options)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_apart_by_whole_scales_arrive_alike(kind):
    """The two bins of eight levels that lose every small row with one range for all, as the documents have them."""
    x = rows([2.0**-power for power in range(20)])
    back = decode(codec(kind).encode(x))
    for power, row in enumerate(back):
        assert torch.equal(row * 2.0**power, back[0])
    of_one_range = decode(codec(kind, scale="tensor").encode(x))
    assert unequal_gain(x, back) < 1e-6 and unequal_gain(x, of_one_range) > 0.5


def test_the_error_is_half_a_step_of_the_rows_own_scale():
    x = rows(torch.logspace(-4, 0, 64))
    payload = codec().encode(x)
    step = payload.body[8:16].clone().view(torch.float32)  # behind the minima, of the rows as they were raised
    raised = x.abs().amax(1, keepdim=True).double() / x.abs().max()
    error = (decode(payload) - x).abs().double()
    assert (error <= 0.51 * float(step.max()) * raised * 2**0.25).all()


@pytest.mark.parametrize("edges", ["equal_range", "cube_root", "least_error"])
def test_every_rule_bins_what_was_raised(edges):
    x = rows(torch.logspace(-3, 0, 64))
    lost = [unequal_gain(x, decode(codec(edges=edges, scale=scale).encode(x))) for scale in ("row", "tensor")]
    assert lost[0] < 0.05 < lost[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_scale_takes_a_byte_a_row(kind):
    x = rows(torch.logspace(-3, 0, 64)).reshape(4, 16, 384)
    plain, scaled = (codec(kind, scale=scale).encode(x) for scale in ("tensor", "row"))
    assert scaled.nbytes == plain.nbytes + 64 == HEADER_BYTES + 16 + 64 + x.numel() // 2


@pytest.mark.parametrize("shape", [(), (5,), (3, 1), (2, 3, 4, 5)])
def test_any_shape_has_rows(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    back = decode(codec(level_bits=8, bin_bits=2).encode(x))
    assert back.shape == x.shape and torch.allclose(back, x, rtol=0, atol=0.01)


def test_rows_of_zeros_stay_zeros_and_the_largest_does_not_overflow():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        limit = torch.finfo(dtype).max
        x = torch.stack([torch.full((8,), limit), torch.zeros(8), torch.full((8,), -limit / 3)]).to(dtype)
        back = decode(codec(level_bits=8, bin_bits=2).encode(x))
        assert torch.isfinite(back).all() and (back[1] == 0).all()
        assert torch.allclose(back.double(), x.double(), rtol=0.02)


def test_scales_reach_over_64_octaves_and_what_lies_below_is_sent_at_the_last():
    sizes = torch.tensor([1.0, 0.5, 2.0**-63, 2.0**-90, 0.0])
    scales = as_scales(octaves_below(sizes).floor())
    assert scales.tolist() == [0, 4, 252, 255, 255]
    assert factors(scales)[:3, 0].tolist() == sizes[:3].tolist()


def test_a_scale_that_no_encoder_writes_is_damage():
    payload = codec().encode(rows([1.0, 2.0]))
    header = payload.header
    strange = Header(header.codec, header.dtype, header.shape, (3, 1, 2, 0), False)
    with pytest.raises(PayloadError, match="scale 2"):
        decode(_sealed(strange, payload.message.clone()))
    assert decode(Payload(payload.message)).shape == (2, 384)
