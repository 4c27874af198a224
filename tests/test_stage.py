"""A stage draws the same random numbers whatever ran before it."""

import pytest
import torch

from splitlib.pipeline.stage import Clock, Stage, stage_seed

CPU = torch.device("cpu")
ONES = (torch.ones(64),)


def dropout_stage(clock: Clock, index: int = 0) -> Stage:
    return Stage(_Dropped(), index, clock, "fp32", CPU).train()


class _Dropped(torch.nn.Module):
    def forward(self, values):
        return (torch.nn.functional.dropout(values[0], 0.5, self.training),)


def test_dropout_depends_on_step_stage_and_micro_batch_and_on_nothing_drawn_before():
    clock = Clock(seed=3)
    stage = dropout_stage(clock)
    (first,) = stage(ONES, 0)
    (second,) = stage(ONES, 1)
    torch.rand(1000)
    assert torch.equal(stage(ONES, 0)[0], first) and not torch.equal(first, second)
    clock.step = 1
    assert not torch.equal(stage(ONES, 0)[0], first)
    assert not torch.equal(dropout_stage(Clock(seed=3), index=1)(ONES, 0)[0], first)
    assert not torch.equal(dropout_stage(Clock(seed=4))(ONES, 0)[0], first)


def test_evaluation_leaves_the_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    dropout_stage(Clock()).eval()(ONES, 0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("index", range(4))
def test_every_number_of_a_stage_seed_counts(index):
    numbers = [1, 1, 1, 1]
    changed = [n + (i == index) for i, n in enumerate(numbers)]
    assert stage_seed(*numbers) != stage_seed(*changed)
