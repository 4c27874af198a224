"""Reported against measured: one table, with a status for every row by one stated rule."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from splitlib.config import RunConfig
from splitlib.errors import ConfigError
from splitlib.runtime import either

NOISE_CAP = 3
"""Noise widens the tolerance this many times at most: scattered runs must not pass for agreement."""

_DATA = ("real", "embedded", "none")
# Runs that differ in one of these are never averaged: they give a reported row several result rows.
_ORIGIN = ("data", "data_label", "model", "document_settings")
_TOLD = (*_ORIGIN, "size_text", "hardware")
"""What the table says of how a row was measured."""
_SETTINGS = tuple(f.name for f in dataclasses.fields(RunConfig) if f.name != "seed")
_NUMBERS = ("reported", "reported_sd", "source", "measured", "measured_sd", "n", "difference")
_CHANGES = ("reported_change", "measured_change")

Key = tuple[Any, ...]
Row = dict[Any, Any]


def status(
    reported: float,
    measured: float,
    *,
    tolerance: float,
    data: str,
    document_settings: bool,
    noise: float = 0.0,
    reported_change: float = math.nan,
    measured_change: float = math.nan,
) -> str:
    """Judge one row; all numbers are in one unit, and NaN stands for a number that is not there.

    The first line that holds:

    1. *not run*: nothing was measured.
    2. *not reported*: the document leaves the cell blank.
    3. *reproduced*: the data is not embedded, the settings are the document's own, and the difference is at most
       ``tolerance``, or at most ``2 * noise`` where that is wider, but never more than ``NOISE_CAP * tolerance``.
    4. *trend only*: against the baseline, both changes rise, both fall, or both stay within ``tolerance``, or they lie
       no further apart than ``tolerance``.
    5. *differs*: all else, so also wherever a change is unknown.

    Args:
        reported: the document's value.
        measured: the mean of the runs.
        tolerance: the largest difference that counts as none, above 0.
        data: ``"real"``, ``"embedded"``, or ``"none"`` for what depends on no data, such as MACs.
        document_settings: whether the runs have the document's own settings.
        noise: standard deviation of the difference: :func:`compare` takes the standard error of the measured mean and
            the spread that the document reports, which seldom says of how many runs.
        reported_change: the document's value less its baseline's.
        measured_change: the same of the measured values.

    >>> status(95.7, 95.4, tolerance=0.5, data="real", document_settings=True)
    'reproduced'
    >>> status(95.7, 95.4, tolerance=0.5, data="embedded", document_settings=True)
    'differs'
    >>> changes = {"reported_change": -8.9, "measured_change": -36.2}
    >>> status(87.1, 61.0, tolerance=0.5, data="embedded", document_settings=False, **changes)
    'trend only'
    """
    if math.isnan(measured):
        return "not run"
    if math.isnan(reported):
        return "not reported"
    allowed = min(max(tolerance, 2 * noise), NOISE_CAP * tolerance)
    if data != "embedded" and document_settings and _within(measured - reported, allowed):
        return "reproduced"
    if math.isnan(reported_change) or math.isnan(measured_change):
        return "differs"
    alike = _direction(reported_change, tolerance) == _direction(measured_change, tolerance)
    # Else +9 % and +10 % would differ, for lying on either side of a tolerance of a tenth.
    near = _within(measured_change - reported_change, tolerance)
    return "trend only" if alike or near else "differs"


def _within(value: float, limit: float) -> bool:
    """Whether ``|value| <= limit``, also when rounding puts 95.7 - 95.2 a hair above 0.5."""
    return abs(value) <= limit or math.isclose(abs(value), limit)


def _direction(change: float, tolerance: float) -> int:
    return 0 if _within(change, tolerance) else int(math.copysign(1, change))


def compare(
    reported: pd.DataFrame,
    measured: pd.DataFrame,
    *,
    on: Sequence[str] | Mapping[str, str],
    metric: str,
    tolerance: float,
    measured_metric: str | None = None,
    spread: str | None = None,
    baseline: Mapping[str, Any] | None = None,
    relative: bool = False,
) -> pd.DataFrame:
    """Join a reported table with measured rows and give every reported row a :func:`status`.

    Seeds become mean, sample standard deviation and n. Every reported row is there, in its order; it comes once for
    each kind of run that matches it (other data, model or settings), and once, *not run*, if none does. Other hardware
    is another kind of run for times (``relative``) alone: what training reaches differs by how a processor rounds, and
    that is part of the spread. The changes that *trend only* speaks of are those against ``baseline``, of the same kind
    and with the same seeds. The baseline row itself has none, nor has any row whose measured baseline collapsed.

    The measured side need not be training runs: any table will do that has the ``on`` columns, the metric, ``data`` and
    ``document_settings``. Of times and bandwidths, the hardware is one of the document's settings.

    Args:
        reported: a table of :func:`splitlib.reported.load`, or some of its rows.
        measured: one row a run. Must say ``data`` ("real", "embedded", or "none" for what depends on no data) and
            ``document_settings`` (whether task, model, weights, data size and epochs are the document's); may say
            ``data_label``, ``data_fingerprint``, ``model``, ``size_text``, ``hardware`` and ``collapsed``. Rows without
            the metric do not count. An empty frame means that nothing was run.
        on: columns that identify a row; a mapping gives the measured column's name for each reported one. A blank
            matches a blank.
        metric: the reported column to compare.
        tolerance: the largest difference that counts as none: in the metric's unit, or a share if ``relative``.
        measured_metric: the metric's name in ``measured``, if another.
        spread: the reported column with the standard deviation of ``metric``.
        baseline: reported columns and values that pick the one row all others are changes against.
        relative: judge differences as shares of the reported value, and changes as shares of the baseline's: for
            times, bandwidths and MACs.

    Returns:
        The ``on`` columns, ``metric``, ``reported``, ``reported_sd``, ``source`` (document and section), ``measured``,
        ``measured_sd`` (blank for a single run), ``n``, ``difference`` (measured less reported, in the metric's unit),
        ``reported_change`` and ``measured_change`` (shares if ``relative``), then what ``measured`` says of ``data``,
        ``data_label``, ``model``, ``document_settings``, ``size_text`` and ``hardware`` (all kinds), ``collapsed`` (how
        many of the n runs predict one class) and ``status``.

    Raises:
        ConfigError: a column is missing, the tolerance is not positive, ``baseline`` picks no row or several, or rows
            that would be averaged differ in a setting other than the seed, or have one ``key``.
    """
    pairs = dict(on) if isinstance(on, Mapping) else {name: name for name in on}
    measured_metric = measured_metric or metric
    _check_reported(reported, [*pairs, metric, *([spread] if spread else [])], metric, tolerance, relative)
    _check_measured(measured, [*pairs.values(), measured_metric])

    kind = (*_ORIGIN, "hardware") if relative else _ORIGIN
    groups = _group(measured, list(pairs.values()), measured_metric, kind)
    rows = reported.to_dict("records")
    base = _baseline_row(rows, baseline)
    joined = []
    for position, row in enumerate(rows):
        base_groups = {} if base is None or base is row else groups.get(_key(base, pairs), {})
        for origin, runs in groups.get(_key(row, pairs), {(): _NOT_RUN}).items():
            base_runs = base_groups.get(origin, _NOT_RUN)
            base_reported = math.nan if base is None or base is row else _number(base[metric])
            joined.append(
                {
                    "position": position,
                    "reported": _number(row[metric]),
                    "reported_sd": _number(row[spread]) if spread else math.nan,
                    "source": _source(row),
                    **runs,
                    "reported_change": _change(_number(row[metric]), base_reported, relative),
                    "measured_change": math.nan if base_runs["collapsed"] else _paired(runs, base_runs, relative),
                }
            )
    table = pd.DataFrame(joined).assign(metric=metric).astype({"collapsed": "Int64"})
    _add_judgement(table, tolerance, relative)
    identity = reported[list(pairs)].iloc[table["position"]].reset_index(drop=True)
    columns = ["metric", *_NUMBERS, *_CHANGES, *(name for name in _TOLD if name not in pairs), "collapsed", "status"]
    return pd.concat([identity, table[columns]], axis=1)


def sending_as_reported(
    measured: pd.DataFrame, ratios: Mapping[str, float], *, on: str = "row_label", tolerance: float = 0.25
) -> pd.DataFrame:
    """Return the measured rows but those that send another share of the bytes than the reported row of their name.

    What power iteration sends depends on the size of its tensors, so that a run of smaller images is no run of the
    reported row: left out, it makes the row *not run* in :func:`compare`.

    Args:
        measured: one row a run, with its ``compression_ratio``; may be empty.
        ratios: reported compression ratio by name; rows of other names stay.
        on: the column that has the name.
        tolerance: how far the ratio may lie from the reported one, as a share of it.

    >>> runs = pd.DataFrame({"row_label": ["rank 3", "rank 2"], "compression_ratio": [0.22, 0.074]})
    >>> list(sending_as_reported(runs, {"rank 3": 0.101, "rank 2": 0.075})["row_label"])
    ['rank 2']
    """
    if measured.empty:
        return measured
    away = measured["compression_ratio"] / measured[on].map(dict(ratios)).astype(float) - 1
    return measured[~(away.abs() > tolerance)]


def paired_changes(measured: pd.DataFrame, metric: str, against: str, *, on: str = "row_label") -> pd.Series:
    """Return by row how far the metric lies from another row's: the mean over the seeds that both ran.

    Rows run for different seeds, which move a metric more than most compressors do.

    Args:
        measured: one row a run, with its ``seed``.
        metric: the column to subtract.
        against: the row that the others are compared with; where it did not run, all changes are NaN.
        on: the column that has the names.

    >>> runs = pd.DataFrame({"row_label": ["none", "none", "sort 4"], "seed": [0, 1, 0], "percent": [20, 16, 15]})
    >>> paired_changes(runs, "percent", "none").to_dict()
    {'none': 0.0, 'sort 4': -5.0}
    """
    by_seed = measured.pivot_table(index="seed", columns=on, values=metric)
    return by_seed.sub(by_seed.get(against, math.nan), axis="index").mean()


def _add_judgement(table: pd.DataFrame, tolerance: float, relative: bool) -> None:
    """Add ``difference`` and ``status`` to the joined rows."""
    table["difference"] = table["measured"] - table["reported"]
    unit = table["reported"].abs() if relative else pd.Series(1.0, index=table.index)
    measured_error = table["measured_sd"].fillna(0) / table["n"].clip(lower=1) ** 0.5  # of the mean of n runs
    noise = (table["reported_sd"].fillna(0) ** 2 + measured_error**2) ** 0.5
    table["status"] = [
        status(
            row["reported"] / scale,
            row["measured"] / scale,
            tolerance=tolerance,
            data=row["data"],
            document_settings=bool(row["document_settings"]),
            noise=sd / scale,
            reported_change=row["reported_change"],
            measured_change=row["measured_change"],
        )
        for row, scale, sd in zip(table.to_dict("records"), unit, noise, strict=True)
    ]


# --- The measured side -----------------------------------------------------------------------------------------------

_NOT_RUN: Row = {"measured": math.nan, "measured_sd": math.nan, "n": 0, "collapsed": None}
_NOT_RUN["by_seed"] = pd.Series(dtype=float)
_NOT_RUN |= dict.fromkeys(_TOLD)


def _group(
    measured: pd.DataFrame, columns: Sequence[str], metric: str, kind: Sequence[str]
) -> dict[Key, dict[Key, Row]]:
    """Summarise the seeds: by row first, then by where the runs come from."""
    groups: dict[Key, dict[Key, list[Row]]] = {}
    for run in measured.to_dict("records"):
        if not math.isnan(_number(run[metric])):
            # The same samples are the same data, whether they came from the hub or from a mirror.
            origin = {**run, "data_label": run.get("data_fingerprint", run.get("data_label"))}
            groups.setdefault(_key(run, columns), {}).setdefault(_key(origin, kind), []).append(run)
    return {
        key: {origin: _summary(runs, metric) for origin, runs in by_origin.items()} for key, by_origin in groups.items()
    }


def _summary(runs: Sequence[Row], metric: str) -> Row:
    for name in _SETTINGS:
        found = sorted({str(run.get(name)) for run in runs})
        if len(found) > 1:
            raise ConfigError(f"runs of one row differ in {name} ({', '.join(found)}); compare on it, or select runs")
    keys = [run["key"] for run in runs if "key" in run]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"run {max(keys, key=keys.count)} is there more than once; give one row a run")
    values = pd.Series([_number(run[metric]) for run in runs], index=[run.get("seed") for run in runs])
    return {
        "measured": values.mean(),
        "measured_sd": values.std(),
        "n": len(runs),
        "by_seed": values,
        "collapsed": sum(map(bool, (run["collapsed"] for run in runs))) if "collapsed" in runs[0] else None,
        **{name: runs[0].get(name) for name in (*_ORIGIN, "size_text")},
        "hardware": either(run["hardware"] for run in runs if not pd.isna(run.get("hardware"))) or None,
    }


def _change(value: float, base: float, relative: bool) -> float:
    return (value - base) / (abs(base) if relative else 1.0)


def _paired(runs: Row, base: Row, relative: bool) -> float:
    """Return the change of the mean over the seeds that both rows ran."""
    mine, its = (row["by_seed"].groupby(level=0, dropna=False).mean() for row in (runs, base))
    shared = mine.index.intersection(its.index)
    return _change(mine[shared].mean(), its[shared].mean(), relative)


# --- Cells and checks ------------------------------------------------------------------------------------------------


def _number(cell: Any) -> float:
    return math.nan if pd.isna(cell) else float(cell)


def _plain(cell: Any) -> Any:
    """A cell as part of a key: 8 and 8.0 are equal, and so are all kinds of blank."""
    if pd.isna(cell):
        return None
    return float(cell) if isinstance(cell, numbers.Real) else str(cell)


def _key(row: Row, columns: Sequence[str] | Mapping[str, str]) -> Key:
    return tuple(_plain(row.get(name)) for name in columns)


def _source(row: Row) -> str:
    """Document and section, and how the value was come by where that is not the text."""
    how = row.get("source", "text")
    return f"{row['document']} §{row['section']}" + ("" if how == "text" else f" ({how})")


def _baseline_row(rows: Sequence[Row], baseline: Mapping[str, Any] | None) -> Row | None:
    if baseline is None:
        return None
    found = [row for row in rows if all(_plain(row.get(name)) == _plain(value) for name, value in baseline.items())]
    if len(found) != 1:
        raise ConfigError(f"baseline {dict(baseline)} picks {len(found)} reported rows; it must pick one")
    return found[0]


def _check_reported(
    reported: pd.DataFrame, columns: Sequence[str], metric: str, tolerance: float, relative: bool
) -> None:
    _check_columns("reported", reported, [*columns, "document", "section"])
    if reported.empty:
        raise ConfigError("the reported table has no rows; load it with splitlib.reported.load")
    if not 0 < tolerance < math.inf:
        raise ConfigError(f"tolerance must be a positive number, not {tolerance}")
    if relative and (reported[metric] == 0).any():
        raise ConfigError(f"a reported {metric} is 0, so differences are no share of it; use relative=False")


def _check_measured(measured: pd.DataFrame, columns: Sequence[str]) -> None:
    if measured.empty:
        return
    _check_columns("measured", measured, [*columns, "data", "document_settings"])
    unknown = sorted(set(map(str, measured["data"])) - set(_DATA))
    if unknown:
        raise ConfigError(f"unknown data {unknown[0]!r} in the measured rows; choose from {', '.join(_DATA)}")


def _check_columns(side: str, table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ConfigError(f"the {side} table has no column {missing[0]!r}; it has {', '.join(map(str, table.columns))}")
