"""What the rows came to: bytes, changes against no compression, and whether anything is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from splitlib.config import RunConfig
from splitlib.errors import RecordError
from splitlib.frontier.differences import Difference, differences
from splitlib.frontier.rows import NONE
from splitlib.results import RunRecord, to_frame

_CONFIDENCE = 0.9
_VERDICTS = ("no_loss", "no_loss_to_spare", "trains_alike", "alike_to_spare")
_LOSSLESS = ("zstd", "codes")  # options that change the bytes alone


def summary(runs: Mapping[str, Sequence[RunRecord]]) -> pd.DataFrame:
    """Return one table row for each label that has records, the most bytes first.

    Columns: ``label``, ``ratio`` (bytes sent over bytes uncompressed), ``percent`` and ``sd`` (of the task's metric at
    the last epoch), ``n``, ``change`` and ``change_se`` (points against the runs without compression, each run
    corrected for its seed, with the standard error: :mod:`splitlib.frontier.differences`), ``change_bound`` (what the
    change is above with 90 % confidence, by Student's t), ``loss`` and ``loss_se`` (as ``change`` and its error, of the
    last epoch's training loss over the mean of those runs), ``collapsed`` (runs that predict one class), ``diverged``
    (runs whose loss stopped being a number), ``no_loss``, ``trains_alike``, ``no_loss_to_spare`` and
    ``alike_to_spare``.

    ``no_loss``: no run failed in one of these ways, and the change is above minus one standard deviation of the runs
    without compression. ``trains_alike``: nor is the training loss higher by more than one of its own, which thousands
    of samples show where a validation set of a thousand does not. *To spare* is with a standard error to spare, which
    a single run does not have. All are None where those runs are no measure: a single one, or one that predicts one
    class. The last epoch, not the best, because the best of several noisy ones flatters.

    Rows that send the same levels in other bytes are one way to train: each counts the runs of all, a seed's as their
    mean. Where two processors ran a seed, that is both. Rows that code changes are evaluated with the bits of a
    sample's first visit, so that their metric does not compare: ``change`` is NaN, and there is no verdict.

    Raises:
        RecordError: there is no run without compression.
    """
    if not runs.get(NONE):
        raise RecordError(f"no record of the row {NONE!r}, with which the others are compared")
    levels = {label: _levels(records[0].config) for label, records in runs.items() if records}
    frames = {label: _by_seed([runs[each] for each in levels if levels[each] == levels[label]]) for label in levels}
    bases = frames[NONE]
    measures = len(bases) > 1 and not bases["collapsed"].any()
    failed = {label: bool((frame["collapsed"] | frame["diverged"]).any()) for label, frame in frames.items()}
    changes, losses = (_against_none(frames, failed, levels, name) for name in ("last_percent", "last_train_loss"))
    rows = []
    for label, frame in frames.items():
        change, loss = changes[label], losses[label]
        compares = runs[label][0].config.coding == "tensor"
        change = change if compares else Difference(math.nan, math.nan)
        known = measures and compares
        rows.append(
            {
                "label": label,
                "ratio": to_frame(runs[label])["compression_ratio"].mean(),
                "percent": frame["last_percent"].mean(),
                "sd": frame["last_percent"].std(),
                "n": len(frame),
                "change": change.mean,
                "change_se": change.error,
                "change_bound": change.mean - _beyond(len(frame)) * change.error,
                "loss": loss.mean / bases["last_train_loss"].mean(),
                "loss_se": loss.error / bases["last_train_loss"].mean(),
                "collapsed": int(frame["collapsed"].sum()),
                "diverged": int(frame["diverged"].sum()),
                **(_verdicts(change, loss, bases, failed[label]) if known else dict.fromkeys(_VERDICTS)),
            }
        )
    return pd.DataFrame(rows).sort_values("ratio", ascending=False, kind="stable", ignore_index=True)


def _against_none(
    frames: Mapping[str, pd.DataFrame], failed: Mapping[str, bool], levels: Mapping[str, RunConfig], quantity: str
) -> dict[str, Difference]:
    """Return by label how a quantity differs from that of the runs without compression, whatever bytes those send."""
    by_seed = {label: frame[quantity] for label, frame in frames.items()}
    others = {label: values for label, values in by_seed.items() if levels[label] != levels[NONE]}
    apart = {levels[label]: label for label in others if not failed[label]}  # rows of the same levels share their runs
    found = differences(others, by_seed[NONE], list(apart.values()))
    return {label: found.get(label, Difference(0.0, 0.0)) for label in by_seed}


def _by_seed(rows: Sequence[Sequence[RunRecord]]) -> pd.DataFrame:
    """Return one line a seed: the mean of what its runs ended with, and whether one of them failed."""
    frame = to_frame([record for records in rows for record in records])
    ends = {"last_percent": "mean", "last_train_loss": "mean", "collapsed": "max", "diverged": "max"}
    return frame.groupby("seed").agg(ends)


def _levels(config: RunConfig) -> RunConfig:
    """Return what decides which values arrive: the config without seed and lossless stages.

    Padding that is left out changes no values of real tokens, but is none of those that a codec takes its levels from.
    """

    def lossy(options: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in options.items() if name not in _LOSSLESS}

    back, options = config.effective_gradient_compressor  # in full: *same* and a name are the same codec
    codecs = {
        "compressor_options": lossy(config.compressor_options),
        "gradient_compressor": back, "gradient_options": lossy(options),
    }  # fmt: skip
    plain = (config.compressor, back) == (NONE, NONE)
    return config.replace(seed=0, **codecs, **({"padding": "sent"} if plain else {}))


def _verdicts(change: Difference, loss: Difference, bases: pd.DataFrame, failed: bool) -> dict[str, bool]:
    within = _within(-change.mean, change.error, bases["last_percent"].std())
    alike = _within(loss.mean, loss.error, bases["last_train_loss"].std())
    both = within.mean and alike.mean, within.to_spare and alike.to_spare
    return dict(zip(_VERDICTS, (not failed and each for each in (*within, *both)), strict=True))


def _beyond(n: int) -> float:
    """Return how many standard errors of n runs lie between a mean and its one-sided bound of 90 % confidence."""
    from scipy.special import stdtrit  # when it is asked for: every command imports this module

    return float(stdtrit(n - 1, _CONFIDENCE)) if n > 1 else math.nan


class _Within(NamedTuple):
    """Whether what runs lose in the mean is within a limit, and whether it is with a standard error to spare."""

    mean: bool
    to_spare: bool


def _within(loss: float, error: float, limit: float) -> _Within:
    return _Within(bool(loss <= limit), bool(loss + error <= limit))
