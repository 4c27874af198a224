"""What the rows came to: bytes, changes against no compression, and whether anything is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from splitlib.config import RunConfig
from splitlib.errors import RecordError
from splitlib.frontier.differences import Difference, differences
from splitlib.frontier.rows import NONE
from splitlib.results import RunRecord, to_frame

_LOSSLESS = ("zstd", "codes")  # options that change the bytes alone


def summary(runs: Mapping[str, Sequence[RunRecord]]) -> pd.DataFrame:
    """Return one table row for each label that has records, the most bytes first.

    Columns: ``label``, ``ratio`` (bytes sent over bytes uncompressed), ``percent`` and ``sd`` (of the task's metric at
    the last epoch), ``n``, ``change`` and ``change_se`` (points against the runs without compression, each run
    corrected for its seed, with the standard error: :mod:`splitlib.frontier.differences`), ``loss`` and ``loss_se``
    (the same of the last epoch's training loss, over the mean of those runs), ``collapsed`` (runs that predict one
    class), ``diverged`` (runs whose loss stopped being a number), ``no_loss``, ``trains_alike``, ``no_loss_to_spare``
    and ``alike_to_spare``.

    ``no_loss``: no run failed in one of these ways, and the change is above minus one standard deviation of the runs
    without compression. ``trains_alike``: nor is the training loss higher by more than one of its own, which thousands
    of samples show where a validation set of a thousand does not. *To spare* is with a standard error to spare, which
    a single run does not have. All are None where those runs are no measure: a single one, or one that predicts one
    class. The last epoch, not the best, because the best of several noisy ones flatters.

    A row also counts the runs of another that sends the same levels in other bytes, at seeds it does not have itself.

    Raises:
        RecordError: there is no run without compression.
    """
    if not runs.get(NONE):
        raise RecordError(f"no record of the row {NONE!r}, with which the others are compared")
    bases = to_frame(runs[NONE])
    measures = len(bases) > 1 and not bases["collapsed"].any()
    frames = {label: to_frame(_with_equal_levels(records, runs)) for label, records in runs.items() if records}
    failed = {label: bool((frame["collapsed"] | frame["diverged"]).any()) for label, frame in frames.items()}
    levels = {label: _levels(runs[label][0].config) for label in frames}
    changes, losses = (_against_none(frames, failed, levels, name) for name in ("last_percent", "last_train_loss"))
    rows = []
    for label, frame in frames.items():
        change, loss = changes[label], losses[label]
        within = _within(-change.mean, change.error, bases["last_percent"].std())
        alike = _within(loss.mean, loss.error, bases["last_train_loss"].std())
        verdicts = {
            "no_loss": within.mean, "trains_alike": within.mean and alike.mean,
            "no_loss_to_spare": within.to_spare, "alike_to_spare": within.to_spare and alike.to_spare,
        }  # fmt: skip
        rows.append(
            {
                "label": label,
                "ratio": to_frame(runs[label])["compression_ratio"].mean(),
                "percent": frame["last_percent"].mean(),
                "sd": frame["last_percent"].std(),
                "n": len(frame),
                "change": change.mean,
                "change_se": change.error,
                "loss": loss.mean / bases["last_train_loss"].mean(),
                "loss_se": loss.error / bases["last_train_loss"].mean(),
                "collapsed": int(frame["collapsed"].sum()),
                "diverged": int(frame["diverged"].sum()),
                **{name: (verdict and not failed[label]) if measures else None for name, verdict in verdicts.items()},
            }
        )
    return pd.DataFrame(rows).sort_values("ratio", ascending=False, kind="stable", ignore_index=True)


def _against_none(
    frames: Mapping[str, pd.DataFrame], failed: Mapping[str, bool], levels: Mapping[str, RunConfig], quantity: str
) -> dict[str, Difference]:
    """Return by label how a quantity differs from that of the runs without compression, whatever bytes those send."""
    by_seed = {label: frame.set_index("seed")[quantity] for label, frame in frames.items()}
    others = {label: values for label, values in by_seed.items() if levels[label] != levels[NONE]}
    apart = {levels[label]: label for label in others if not failed[label]}  # rows of the same levels share their runs
    found = differences(others, by_seed[NONE], list(apart.values()))
    return {label: found.get(label, Difference(0.0, 0.0)) for label in by_seed}


def _with_equal_levels(records: Sequence[RunRecord], runs: Mapping[str, Sequence[RunRecord]]) -> list[RunRecord]:
    """Return a row's records, and those of rows that differ in the lossless stage alone for the seeds it lacks."""
    found = {record.config.seed: record for record in records}
    levels = _levels(records[0].config)
    for record in (record for others in runs.values() for record in others):
        if record.config.seed not in found and _levels(record.config) == levels:
            found[record.config.seed] = record
    return [found[seed] for seed in sorted(found)]


def _levels(config: RunConfig) -> RunConfig:
    """Return what decides which values arrive: the config without seed and lossless stages.

    Padding that is left out changes no values of real tokens, but is none of those that a codec takes its levels from.
    """

    def lossy(options: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in options.items() if name not in _LOSSLESS}

    activations, gradients = lossy(config.compressor_options), lossy(config.gradient_options)
    plain = (config.compressor, config.effective_gradient_compressor[0]) == (NONE, NONE)
    padding = {"padding": "sent"} if plain else {}
    return config.replace(seed=0, compressor_options=activations, gradient_options=gradients, **padding)


class _Within(NamedTuple):
    """Whether what runs lose in the mean is within a limit, and whether it is with a standard error to spare."""

    mean: bool
    to_spare: bool


def _within(loss: float, error: float, limit: float) -> _Within:
    return _Within(bool(loss <= limit), bool(loss + error <= limit))
