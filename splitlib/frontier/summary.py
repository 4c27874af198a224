"""What the rows came to: bytes, changes against no compression, and whether anything is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from splitlib.errors import RecordError
from splitlib.frontier.rows import NONE
from splitlib.results import RunRecord, to_frame


def summary(runs: Mapping[str, Sequence[RunRecord]]) -> pd.DataFrame:
    """Return one table row for each label that has records, the most bytes first.

    Columns: ``label``, ``ratio`` (bytes sent over bytes uncompressed), ``percent`` and ``sd`` (of the task's metric at
    the last epoch), ``n``, ``change`` and ``change_sd`` (points against the runs without compression that have the same
    seeds, and so the same start and the same batches), ``loss`` and ``loss_sd`` (change of the last epoch's training
    loss against the same runs, relative), ``collapsed`` (runs that predict one class), ``diverged`` (runs whose loss
    stopped being a number), ``no_loss``, ``trains_alike``, ``surely_no_loss`` and ``surely_alike``.

    ``no_loss``: no run failed in one of these ways, and the change is above minus one standard deviation of the runs
    without compression. ``trains_alike``: nor is the training loss higher by more than one of its own, which thousands
    of samples show where a validation set of a thousand does not. *Surely* is with a standard error of the mean to
    spare, which a single run does not have. All are None where those runs are no measure: a single one, one that
    predicts one class, or no seed in common. The last epoch, not the best, because the best of several noisy ones
    flatters.

    Raises:
        RecordError: there is no run without compression.
    """
    rows = []
    if not runs.get(NONE):
        raise RecordError(f"no record of the row {NONE!r}, with which the others are compared")
    bases = to_frame(runs[NONE]).set_index("seed")
    measures = len(bases) > 1 and not bases["collapsed"].any()
    base, base_loss = bases["last_percent"], bases["last_train_loss"]
    for label, records in runs.items():
        if not records:
            continue
        frame = to_frame(records).set_index("seed")
        failed = frame["collapsed"] | frame["diverged"]
        changes = (frame["last_percent"] - base).dropna()  # matched by seed
        losses = (frame["last_train_loss"] - base_loss).dropna()
        within = _within(-changes, base.std())
        alike = _within(losses, base_loss.std())
        verdicts = {
            "no_loss": within.mean, "trains_alike": within.mean and alike.mean,
            "surely_no_loss": within.surely, "surely_alike": within.surely and alike.surely,
        }  # fmt: skip
        known = measures and len(changes) > 0
        rows.append(
            {
                "label": label,
                "ratio": frame["compression_ratio"].mean(),
                "percent": frame["last_percent"].mean(),
                "sd": frame["last_percent"].std(),
                "n": len(frame),
                "change": changes.mean(),
                "change_sd": changes.std(),
                "loss": (losses / base_loss).mean(),
                "loss_sd": (losses / base_loss).std(),
                "collapsed": int(frame["collapsed"].sum()),
                "diverged": int(frame["diverged"].sum()),
                **{name: (verdict and not failed.any()) if known else None for name, verdict in verdicts.items()},
            }
        )
    return pd.DataFrame(rows).sort_values("ratio", ascending=False, kind="stable", ignore_index=True)


class _Within(NamedTuple):
    """Whether what runs lose in the mean is within a limit, and whether it is with a standard error to spare."""

    mean: bool
    surely: bool


def _within(losses: pd.Series, limit: float) -> _Within:
    standard_error = losses.std() / len(losses) ** 0.5 if len(losses) > 1 else math.inf
    return _Within(bool(losses.mean() <= limit), bool(losses.mean() + standard_error <= limit))
