"""What the rows came to: bytes, changes against no compression, and whether anything is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from splitlib.config import RunConfig
from splitlib.errors import RecordError
from splitlib.frontier.rows import NONE
from splitlib.results import RunRecord, to_frame

_LOSSLESS = ("zstd", "codes")  # options that change the bytes alone


def summary(runs: Mapping[str, Sequence[RunRecord]]) -> pd.DataFrame:
    """Return one table row for each label that has records, the most bytes first.

    Columns: ``label``, ``ratio`` (bytes sent over bytes uncompressed), ``percent`` and ``sd`` (of the task's metric at
    the last epoch), ``n``, ``change`` and ``change_se`` (points against the mean of all runs without compression, with
    the standard error of the difference), ``loss`` and ``loss_se`` (the same of the last epoch's training loss, over
    that mean), ``collapsed`` (runs that predict one class), ``diverged`` (runs whose loss stopped being a number),
    ``no_loss``, ``trains_alike``, ``surely_no_loss`` and ``surely_alike``.

    ``no_loss``: no run failed in one of these ways, and the change is above minus one standard deviation of the runs
    without compression. ``trains_alike``: nor is the training loss higher by more than one of its own, which thousands
    of samples show where a validation set of a thousand does not. *Surely* is with a standard error to spare, which a
    single run does not have. All are None where those runs are no measure: a single one, or one that predicts one
    class. The last epoch, not the best, because the best of several noisy ones flatters.

    Means are compared, not runs of one seed: on these tasks seeds explain little of the scatter (the correlation of
    metrics between rows is about 0.3), and a few seeds of the reference may lie well off the mean of all. A row also
    counts the runs of another that sends the same levels in other bytes, at seeds it does not have itself.

    Raises:
        RecordError: there is no run without compression.
    """
    if not runs.get(NONE):
        raise RecordError(f"no record of the row {NONE!r}, with which the others are compared")
    bases = to_frame(runs[NONE])
    measures = len(bases) > 1 and not bases["collapsed"].any()
    rows = []
    for label, records in runs.items():
        if not records:
            continue
        frame = to_frame(_with_equal_levels(records, runs))
        failed = frame["collapsed"] | frame["diverged"]
        against = [_difference(frame[name], bases[name]) for name in ("last_percent", "last_train_loss")]
        change, loss = against if label != NONE else [_Difference(0.0, 0.0)] * 2
        within = _within(-change.mean, change.error, bases["last_percent"].std())
        alike = _within(loss.mean, loss.error, bases["last_train_loss"].std())
        verdicts = {
            "no_loss": within.mean, "trains_alike": within.mean and alike.mean,
            "surely_no_loss": within.surely, "surely_alike": within.surely and alike.surely,
        }  # fmt: skip
        rows.append(
            {
                "label": label,
                "ratio": to_frame(records)["compression_ratio"].mean(),
                "percent": frame["last_percent"].mean(),
                "sd": frame["last_percent"].std(),
                "n": len(frame),
                "change": change.mean,
                "change_se": change.error,
                "loss": loss.mean / bases["last_train_loss"].mean(),
                "loss_se": loss.error / bases["last_train_loss"].mean(),
                "collapsed": int(frame["collapsed"].sum()),
                "diverged": int(frame["diverged"].sum()),
                **{name: (verdict and not failed.any()) if measures else None for name, verdict in verdicts.items()},
            }
        )
    return pd.DataFrame(rows).sort_values("ratio", ascending=False, kind="stable", ignore_index=True)


def _with_equal_levels(records: Sequence[RunRecord], runs: Mapping[str, Sequence[RunRecord]]) -> list[RunRecord]:
    """Return a row's records, and those of rows that differ in the lossless stage alone for the seeds it lacks."""
    found = {record.config.seed: record for record in records}
    levels = _levels(records[0].config)
    for record in (record for others in runs.values() for record in others):
        if record.config.seed not in found and _levels(record.config) == levels:
            found[record.config.seed] = record
    return [found[seed] for seed in sorted(found)]


def _levels(config: RunConfig) -> RunConfig:
    """Return what decides which values arrive: the config without seed and lossless stages."""

    def lossy(options: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in options.items() if name not in _LOSSLESS}

    activations, gradients = lossy(config.compressor_options), lossy(config.gradient_options)
    return config.replace(seed=0, compressor_options=activations, gradient_options=gradients)


class _Difference(NamedTuple):
    """A difference of two means, and its standard error; NaN where one is that of a single run."""

    mean: float
    error: float


def _difference(values: pd.Series, base: pd.Series) -> _Difference:
    error = math.sqrt(values.var() / len(values) + base.var() / len(base))
    return _Difference(values.mean() - base.mean(), error)


class _Within(NamedTuple):
    """Whether what runs lose in the mean is within a limit, and whether it is with a standard error to spare."""

    mean: bool
    surely: bool


def _within(loss: float, error: float, limit: float) -> _Within:
    return _Within(bool(loss <= limit), bool(loss + error <= limit))
