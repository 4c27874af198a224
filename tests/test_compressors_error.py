"""One error for every table, plan and picture: squared, over the variance."""

import math

import pytest
import torch

from splitlib.compressors import after, decode, make_compressor, relative_error, spread, unequal_gain
from splitlib.planner.codecs import in_turn
from splitlib.playground.bench import Codec, _encode
from splitlib.widgets.tensors import _once

CODEC = make_compressor("cast")


def test_errors_are_relative_to_the_variance():
    x = torch.tensor([1.0, 3.0])
    assert relative_error(x, x) == 0
    assert relative_error(x, x + 0.5) == 0.25
    assert relative_error(torch.ones(3), torch.zeros(3)) == 1, "a constant has no variance"
    whole = torch.tensor([float("inf"), float("nan"), 1.0])
    assert relative_error(whole, whole) == 0


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_a_finite_value_that_comes_out_as_none_is_no_small_error(broken):
    """It counted as exact, also before a plan's ``--max-error``."""
    x = torch.tensor([1.0, 3.0, float("inf")])
    assert relative_error(x, torch.tensor([1.0, broken, float("inf")])) == float("inf")


def test_tensors_of_two_shapes_do_not_compare():
    with pytest.raises(ValueError, match=r"a tensor of \[3, 4\] and one of \[4\] do not compare"):
        relative_error(torch.ones(3, 4), torch.ones(4))


def test_zeros_have_a_finite_error():
    assert spread(torch.zeros(3)) == 1 and relative_error(torch.zeros(3), torch.ones(3)) == 1


@pytest.mark.parametrize("x", [torch.full((2, 8), 0.1), torch.linspace(0, 1, 16).reshape(2, 8)], ids=["flat", "ramp"])
def test_planner_playground_and_widgets_state_the_same_error(x):
    """A constant had an error of 6e-8, of 0 and of 1e7."""
    wanted = relative_error(x, decode(CODEC.encode(x)))
    (planned,) = in_turn(["cast"], x, repeats=1)
    assert 0 < wanted < 1e-6
    assert planned.error == _encode(Codec.of("cast", {}), 1, x.chunk(2)).error == wanted
    assert _once(x, "half", CODEC)["error"] == wanted


def test_gain_is_unequal_where_rows_differ_and_not_where_values_do():
    """Noise within a row, or one factor for all, is none of it; what goes with a row's size is, in either direction."""
    x = torch.randn(101, 384, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 1, 101)[:, None]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) * x.square().mean(-1, keepdim=True).sqrt()
    noise -= x * (x * noise).sum(-1, keepdim=True) / x.square().sum(-1, keepdim=True)  # across the row, not along it
    assert unequal_gain(x, 0.3 * x + 2 * noise) == pytest.approx(0, abs=1e-6) and relative_error(x, x + 2 * noise) > 3
    large = x.square().mean(-1, keepdim=True) > 1
    assert unequal_gain(x, large * x) == 1
    cut = x.clamp(-1, 1)
    assert unequal_gain(x, cut) > 0.5 and relative_error(x, cut) < 1
    assert math.isnan(unequal_gain(x, 0 * x))
    with pytest.raises(ValueError, match="do not compare"):
        unequal_gain(x, x[:1])


def test_planner_and_playground_measure_what_a_compressor_has_not_seen():
    """Both encoded one tensor again and again, to which power iteration turned: errors came out a third too small."""
    chunks = torch.randn(3, 4, 12, 16, generator=torch.Generator().manual_seed(0)).unbind()
    codec = make_compressor("power_iteration", rank=3)
    first, second, third = (decode(after(codec, [chunks[i - 2], chunks[i - 1]]).encode(chunks[i])) for i in range(3))
    for repeats in (1, 9):
        (planned,) = in_turn(["power_iteration:rank=3"], chunks[2], repeats, chunks[:2])
        assert planned.error == relative_error(chunks[2], third)
    shown = _encode(Codec.of("power_iteration", {"rank": 3}), 1, chunks)
    assert torch.equal(shown.decoded(), torch.cat([first, second, third]))
    alone = _encode(Codec.of("power_iteration", {"rank": 3}), 1, chunks[:1])
    assert torch.equal(alone.decoded(), decode(codec.encode(chunks[0]))), "there is nothing else to start from"
