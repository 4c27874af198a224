"""What notebook 06 says in prose about document 002 §1, checked by other routes than its own cells."""

from dataclasses import asdict
from itertools import islice

import pandas as pd
import pytest
import torch

from splitlib import reported
from splitlib.models.inserted import Decay, DecayingLinearInsert
from splitlib.profiles import DOCUMENT_SETTINGS
from tests.support import TINY, trainer_of

WIDTH, TOKENS = 768, 128
TABLES = [reported.load(f"002_1.2_decaying_linear{table}") for table in ("", "_l1", "_rate", "_two_sets")]
ROWS = pd.concat(TABLES, ignore_index=True)


def final_ratio(row: pd.Series) -> float:
    """What the row's own rates come to."""
    second = 1.0 if pd.isna(row.rate_2) else row.rate_2
    return float((row.rate * second) ** row.iteration)


def test_every_ratio_fits_its_rates_but_three() -> None:
    off = [row for row in ROWS.itertuples() if abs(final_ratio(row) - row.compression_ratio) > 1e-3]
    assert [(row.rate, row.rate_2, row.iteration) for row in off[1:]] == [(0.9, 0.96, 9), (0.9, 0.96, 8)]
    assert off[0].rate == 0.83 and off[0].compression_ratio == 0.401
    for row in off[1:]:
        assert (0.9 * 0.95) ** row.iteration == pytest.approx(row.compression_ratio, abs=1e-3)


def test_truncation_moves_no_ratio_by_more_than_a_token() -> None:
    for row in ROWS.itertuples():
        insert = schedule_of(row)
        assert insert.share(WIDTH, TOKENS, 10**6) == pytest.approx(final_ratio(row), abs=0.4 / TOKENS)


def schedule_of(row: pd.Series) -> DecayingLinearInsert:
    """The row's own schedule."""
    second = 0.0 if pd.isna(row.rate_2) else row.rate_2
    return DecayingLinearInsert(steps=row.steps, rate=row.rate, iterations=row.iteration, l1=row.l1, token_rate=second)


def test_at_rate_1_the_strength_of_the_pull_changes_no_bit() -> None:
    weights = []
    for l1 in (0.0, 1e-2):
        schedule = DecayingLinearInsert(steps=1, rate=1.0, l1=l1)
        trainer = trainer_of(TINY.replace(insert="decaying_linear", insert_options=asdict(schedule)))
        for inputs, labels in islice(trainer.rest_of_epoch(), 2):
            trainer.step(inputs, labels)
        weights.append(torch.cat([p.detach().flatten() for p in trainer.engine.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize("row", list(ROWS.itertuples()), ids=lambda row: f"{row.steps}x{row.iteration}")
def test_the_paper_profile_runs_the_documents_own_schedules(row: pd.Series) -> None:
    assert schedule_of(row).shortened(1.0) == schedule_of(row)


@pytest.mark.parametrize("steps_here", [2, 30, 248, 375, 5340])
@pytest.mark.parametrize("row", list(ROWS.itertuples()), ids=lambda row: f"{row.steps}x{row.iteration}")
def test_a_shortened_schedule_ends_at_the_same_share_of_run_and_width(row: pd.Series, steps_here: int) -> None:
    base = DOCUMENT_SETTINGS["cola"]
    share = steps_here / (8551 // base.batch_size * base.epochs)
    whole = schedule_of(row)
    short = whole.shortened(share)
    assert short.rate**short.iterations == pytest.approx(whole.rate**whole.iterations)
    assert short.token_rate**short.iterations == pytest.approx(whole.token_rate**whole.iterations)
    end, wanted = short.steps * short.iterations, whole.steps * whole.iterations * share
    assert end <= steps_here, "the run must reach the last cut"
    assert end == pytest.approx(wanted, abs=max(1.0, short.iterations / 2)), "no cut is moved by more than half a step"
    assert short.share(WIDTH, TOKENS, end) == pytest.approx(whole.share(WIDTH, TOKENS, 10**6), abs=1 / TOKENS)


def test_the_share_is_that_of_both_sets() -> None:
    insert = DecayingLinearInsert(steps=10, rate=0.5, iterations=2, token_rate=0.9)
    kept = [Decay(64, 10, 0.5, 2).kept(step) * Decay(20, 10, 0.9, 2).kept(step) for step in (0, 9, 10, 20, 99)]
    assert [round(64 * 20 * insert.share(64, 20, step)) for step in (0, 9, 10, 20, 99)] == kept
    assert kept == [64 * 20, 64 * 20, 32 * 18, 16 * 16, 16 * 16]


def test_an_adam_step_is_the_learning_rate_however_strong_the_pull() -> None:
    """Why L1 takes no doomed diagonal from 1 to 0: with no other gradient its strength does not matter."""
    moved = []
    for l1 in (1e-4, 1e-2):
        weight = torch.nn.Parameter(torch.ones(1))
        optimizer = torch.optim.AdamW([weight], lr=2e-5, weight_decay=0.0)
        for _ in range(300):
            optimizer.zero_grad()
            (l1 * weight.abs().sum()).backward()
            optimizer.step()
        moved.append(1 - weight.item())
    assert moved == pytest.approx([300 * 2e-5] * 2, rel=0.01)
