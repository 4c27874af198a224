"""A stage draws the same random numbers whatever ran before it."""

import threading

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from splitlib.data.batches import _Reseeded
from splitlib.pipeline.parts import make_parts
from splitlib.pipeline.stage import CurrentStep, Stage, stage_seed
from splitlib.runtime import turn_to_draw
from tests.support import TINY

CPU = torch.device("cpu")
ONES = (torch.ones(64),)


def dropout_stage(current: CurrentStep, index: int = 0) -> Stage:
    return Stage(_Dropped(), index, current, "fp32", CPU).train()


class _Dropped(torch.nn.Module):
    def forward(self, values):
        return (torch.nn.functional.dropout(values[0], 0.5, self.training),)


class _Noise(Dataset):
    def __getitem__(self, index):
        return (torch.rand(50_000),), 0


def test_dropout_depends_on_step_stage_and_micro_batch_and_on_nothing_drawn_before():
    current = CurrentStep(seed=3)
    stage = dropout_stage(current)
    (first,) = stage(ONES, 0)
    (second,) = stage(ONES, 1)
    torch.rand(1000)
    assert torch.equal(stage(ONES, 0)[0], first) and not torch.equal(first, second)
    current.step = 1
    assert not torch.equal(stage(ONES, 0)[0], first)
    assert not torch.equal(dropout_stage(CurrentStep(seed=3), index=1)(ONES, 0)[0], first)
    assert not torch.equal(dropout_stage(CurrentStep(seed=4))(ONES, 0)[0], first)


def draw(count: int, seed: int) -> list[torch.Tensor]:
    """What a stage draws for each of so many micro-batches."""
    stage = dropout_stage(CurrentStep(seed=seed))
    return [stage((torch.ones(50_000),), i)[0] for i in range(count)]


def load(count: int, seed: int) -> list[torch.Tensor]:
    """So many samples, each augmented with numbers drawn from its seed."""
    samples = _Reseeded(_Noise())
    return [samples[i, stage_seed(seed, i)][0][0] for i in range(count)]


def build(count: int, seed: int) -> list[torch.Tensor]:
    """So many models' weights."""
    parts = [make_parts(TINY.replace(seed=seed + i), 2, None) for i in range(count)]
    return [torch.cat([p.detach().flatten() for part in each for p in part.parameters()]) for each in parts]


@pytest.mark.parametrize("beside", [draw, load, build])
@pytest.mark.parametrize("work", [draw, load, build])
def test_threads_draw_what_they_draw_alone(work, beside):
    """A playground measures while it trains, and both drew from one generator: each seeded it under the other."""
    counts = {draw: 100, load: 100, build: 4}
    alone = work(counts[work], 1)
    stop, started = threading.Event(), threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            beside(1, 2)
            started.set()

    other = threading.Thread(target=disturb)
    other.start()
    try:
        assert started.wait(30)
        drawn = work(counts[work], 1)
    finally:
        stop.set()
        other.join()
    assert all(map(torch.equal, drawn, alone))


def test_a_worker_forked_while_another_thread_draws_can_draw():
    """The fork has no such thread, so nobody in it would ever let go of the generator."""
    drawing, enough = threading.Event(), threading.Event()

    def draw_slowly() -> None:
        with turn_to_draw(CPU):
            drawing.set()
            enough.wait(30)

    other = threading.Thread(target=draw_slowly)
    other.start()
    assert drawing.wait(30)
    loader = DataLoader(_Reseeded(_Noise()), sampler=[(0, 0)], num_workers=1, timeout=30, generator=torch.Generator())
    assert len(list(loader)) == 1
    assert not enough.is_set() and other.is_alive()
    enough.set()
    other.join()


def test_evaluation_leaves_the_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    dropout_stage(CurrentStep()).eval()(ONES, 0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("index", range(4))
def test_every_number_of_a_stage_seed_counts(index):
    numbers = [1, 1, 1, 1]
    changed = [n + (i == index) for i, n in enumerate(numbers)]
    assert stage_seed(*numbers) != stage_seed(*changed)
