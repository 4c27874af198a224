"""Bytes against accuracy: the rows of one study, what they came to, and every published row on the same scale.

Levels of different models and data do not compare; what a method loses against no compression does. So every point is
a ratio of bytes and a change of the task's metric, in points, against the row without compression of its own source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from splitlib import reported
from splitlib.config import RunConfig, size_text
from splitlib.experiment import sweep
from splitlib.profiles import DOCUMENT_SETTINGS, Profile
from splitlib.results import RunRecord, hardware_of, to_frame

TASKS = ("cola", "cifar10")
GOAL = 1 / 20
"""Of the bytes: the ratio at which nothing should be lost."""
NONE = "none"
Changes = Mapping[str, Any]


_ZSTD: Changes = {"zstd": 3}
_CONTEXT: Changes = {"codes": "context"}
# 384 values are a token of the MiniLM that the profile `real` takes: each gets a range of its own.
_TWO_BITS_BY_TOKEN = {"bits": 2, "block": 384}


def _least_error(bits: int, stage: Changes = _ZSTD) -> dict[str, Any]:
    """Return the options of sort quantization with one level a bin, and a lossless stage behind it."""
    return {"level_bits": 0, "bin_bits": bits, "edges": "least_error", **stage}


def _both(options: Changes, **more: Any) -> dict[str, Any]:
    """Return the changes that give activations and gradients one codec."""
    return {"compressor": "sort", "compressor_options": options, **more}


def _each(activations: Changes, gradients: Changes, codec: str = "sort", **more: Any) -> dict[str, Any]:
    """Return the changes that give activations and gradients a codec each."""
    return {**_both(activations), "gradient_compressor": codec, "gradient_options": gradients, **more}


def _in_context(activations: int, gradients: int, **more: Any) -> dict[str, Any]:
    """Return the changes that give both directions levels of least error, codes in the context of their neighbours."""
    return _each(_least_error(activations, _CONTEXT), _least_error(gradients, _CONTEXT), **more)


_DOCUMENTS: dict[str, Changes] = {
    NONE: {},
    "sort 8 (the documents')": _both({"level_bits": 6, "bin_bits": 2}),
    "sort 4 (the documents')": _both({"level_bits": 3, "bin_bits": 1}),
}
ROWS: Mapping[str, Mapping[str, Changes]] = {
    "cola": {
        **_DOCUMENTS,
        "least error 4": _both(_least_error(4)),
        "least error 5, no padding": _both(_least_error(5), padding="skipped"),
        "least error 4, no padding": _both(_least_error(4), padding="skipped"),
        "least error 3, no padding": _both(_least_error(3), padding="skipped"),
        "least error 2, no padding": _both(_least_error(2), padding="skipped"),
        "3 and 4 bits, no padding": _each(_least_error(3), _least_error(4), padding="skipped"),
        "least error 4 in context, no padding": _in_context(4, 4, padding="skipped"),
        "3 and 4 bits in context, no padding": _in_context(3, 4, padding="skipped"),
        "3 and 2 bits by token in context, no padding": _each(
            _least_error(3, _CONTEXT), {**_TWO_BITS_BY_TOKEN, **_CONTEXT}, codec="uniform", padding="skipped"
        ),
        "4 and 2 bits by token in context, no padding": _each(
            _least_error(4, _CONTEXT), {**_TWO_BITS_BY_TOKEN, **_CONTEXT}, codec="uniform", padding="skipped"
        ),
        "2 and 4 bits, no padding": _each(_least_error(2), _least_error(4), padding="skipped"),
        "3 and 2 bits, no padding": _each(_least_error(3), _least_error(2), padding="skipped"),
        "3 and 1 bits fed back, no padding": _each(
            _least_error(3), _least_error(1), padding="skipped", error_feedback="gradients"
        ),
        "change 2, no padding": _both(_least_error(2), padding="skipped", coding="change"),
        "change, 2 and 4 bits, no padding": _each(_least_error(2), _least_error(4), padding="skipped", coding="change"),
    },
    "cifar10": {
        **_DOCUMENTS,
        "least error 5": _both(_least_error(5)),
        "least error 4": _both(_least_error(4)),
        "least error 3": _both(_least_error(3)),
        "least error 2": _both(_least_error(2)),
        "6 and 2 bits": _each(_least_error(6), _least_error(2)),
        "5 and 4 bits": _each(_least_error(5), _least_error(4)),
        "5 and 3 bits": _each(_least_error(5), _least_error(3)),
        "6 and 2 bits in context": _in_context(6, 2),
        "5 and 3 bits in context": _in_context(5, 3),
        "5 and 2 bits": _each(_least_error(5), _least_error(2)),
        "5 and 1 bits fed back": _each(_least_error(5), _least_error(1), error_feedback="gradients"),
        "2 and 4 bits": _each(_least_error(2), _least_error(4)),
        "3 and 2 bits": _each(_least_error(3), _least_error(2)),
        "3 and 4 bits in blocks": _each(_least_error(3), {"bits": 4, "block": 256, "zstd": 3}, codec="uniform"),
        "3 and 1 bits fed back": _each(_least_error(3), _least_error(1), error_feedback="gradients"),
        "change 2": _both(_least_error(2), coding="change"),
        "change, 2 and 4 bits": _each(_least_error(2), _least_error(4), coding="change"),
        "conv insert 0.07": {"partition": "conv_insert_type_2"},
        "conv insert 0.07, least error 4": _both(_least_error(4), partition="conv_insert_type_2"),
    },
}
"""By task and label, what a row changes of the task's settings. Two numbers are activations' and gradients' bits."""


SIZES: Mapping[str, Mapping[str, Changes]] = {
    "quick": {"cola": {"epochs": 3, "chunks": 2}, "cifar10": {"epochs": 2, "chunks": 2}},
    # Few steps need larger ones, and batch norm needs more than the 8 images of the document's micro-batch for that.
    "real": {"cifar10": {"image_size": 96, "epochs": 3, "chunks": 2, "lr": 0.03}},
}
"""By profile and task, what a study of so many rows changes of the profile's sizes."""
REPEATED: Mapping[str, int] = {
    NONE: 8,
    "6 and 2 bits": 5,
    "6 and 2 bits in context": 3,
    "5 and 3 bits in context": 5,
    "5 and 2 bits": 5,
    "5 and 3 bits": 5,
    "5 and 4 bits": 5,
    "least error 5": 3,
    "least error 4": 3,
    "least error 5, no padding": 3,
    "least error 4, no padding": 3,
    "least error 4 in context, no padding": 3,
    "4 and 2 bits by token in context, no padding": 3,
    "3 and 4 bits, no padding": 5,
    "3 and 4 bits in context, no padding": 3,
    "3 and 2 bits by token in context, no padding": 5,
    "least error 3, no padding": 5,
    "2 and 4 bits, no padding": 3,
    "change, 2 and 4 bits, no padding": 3,
}
"""How often the rows run that decide whether the goal is met, or what changes are worth: the closer, the more."""


def configs(task: str) -> dict[str, RunConfig]:
    """Return the rows of a task at the documents' own settings; a profile and :data:`SIZES` scale them.

    >>> configs("cola")["least error 3, no padding"].padding
    'skipped'
    """
    base = DOCUMENT_SETTINGS[task]
    return {label: base.replace(**changes) for label, changes in ROWS[task].items()}


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
    """
    rows = []
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


# Tables that give a ratio or bits and an accuracy, and the metric's column; a task's unit is points either way.
_PUBLISHED = {
    "cola": {
        "001_2.2_cola_sort": "matthews_percent",
        "002_1.2_decaying_linear": "accuracy_percent",
        "002_1.2_decaying_linear_rate": "accuracy_percent",
        "002_1.2_decaying_linear_l1": "accuracy_percent",
        "002_1.2_decaying_linear_two_sets": "accuracy_percent",
        "002_2.2_power_iteration": "accuracy_percent",
        "003_2.2_cola": "accuracy_percent",
    },
    "cifar10": {
        "000_2.2_two_machines": "accuracy_percent",
        "001_2.1_cifar10_ablation": "accuracy_percent",
        "001_2.2_cifar10_sort": "accuracy_percent",
        "002_4.2_two_machines": "accuracy_percent",
        "003_1.2_cifar10": "accuracy_percent",
        "003_1.2_cifar10_scatter": "accuracy_percent",
    },
}


_NEARLY_WHOLE = 0.5  # codes of 16 bits, which the documents themselves compare with where they have nothing wider


def published(task: str) -> pd.DataFrame:
    """Return every row of the documents that gives a ratio and an accuracy for the task.

    Columns: ``method``, ``ratio``, ``percent``, ``metric``, ``change`` and ``source`` (document and section). The
    change is against what its section compresses least; one that has nothing of half the bytes or more is compared
    with the rows of all sections that send everything.

    >>> published("cola").query("method == 'sort'")["change"].round(2).tolist()
    [0.0, -0.57, -1.3, -64.5]
    """
    tables = [_points(reported.load(name), metric) for name, metric in _PUBLISHED[task].items()]
    points = pd.concat(tables, ignore_index=True)
    whole = points[points["ratio"] >= 1].groupby("metric")["percent"].mean()
    bases = {}
    for source, section in points.groupby("source"):
        widest = section["ratio"].max()
        least = section[section["ratio"] == widest]
        bases[source] = least["percent"].mean() if widest >= _NEARLY_WHOLE else whole[section["metric"].iloc[0]]
    points["change"] = points["percent"] - points["source"].map(bases)
    return points.assign(metric=points["metric"].str.removesuffix("_percent"))


def _points(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    ratio = table["compression_ratio"] if "compression_ratio" in table else pd.Series(float("nan"), index=table.index)
    if "partition" in table:  # what an inserted layer leaves stands in a table of its own
        inserted = reported.load("002_3.1_partition").query("compression_ratio < 1")
        ratio = ratio.fillna(table["partition"].map(inserted.set_index("partition")["compression_ratio"]))
    if "bits" in table:
        bits = table["bits"].to_numpy(float, na_value=float("nan"))
        ratio = ratio.fillna(pd.Series(bits / 32, index=table.index))
    points = pd.DataFrame(
        {
            "method": table["compressor"],
            "ratio": ratio.mask(table["compressor"] == NONE, 1.0).astype(float),
            "percent": table[metric],
            "metric": metric,
            "source": table["document"] + " §" + table["section"],
        }
    )
    return points.dropna(subset=["ratio", "percent"])


# --- The headline ----------------------------------------------------------------------------------------------------

# Rows that a document has too: which of its points answers.
_ALSO_REPORTED = {
    "sort 8 (the documents')": ("001 §2.2", "sort", 0.25),
    "sort 4 (the documents')": ("001 §2.2", "sort", 0.125),
    "conv insert 0.07": ("000 §2.2", "conv_insert", 0.07),
}


def headline(task: str, runs: Mapping[str, Sequence[RunRecord]]) -> pd.DataFrame:
    """Return :func:`summary` with what the documents report of the same rows, as changes in points.

    Columns added: ``reported_change`` and ``source``, blank where no document has the row.
    """
    told = published(task)
    table = summary(runs)
    found = {
        label: told[(told["source"] == source) & (told["method"] == method) & (told["ratio"] == ratio)]
        for label, (source, method, ratio) in _ALSO_REPORTED.items()
    }
    changes = {label: points["change"].mean() for label, points in found.items() if len(points)}
    sources = {label: points["source"].iloc[0] for label, points in found.items() if len(points)}
    return table.assign(reported_change=table["label"].map(changes), source=table["label"].map(sources).fillna(""))


def sizes(profile: str, task: str) -> Changes:
    """Return what the study changes of a profile's sizes for a task."""
    return SIZES.get(profile, {}).get(task, {})


def recorded(task: str, profile: Profile) -> dict[str, list[RunRecord]]:
    """Return the records that exist of a task's rows at a profile, by label, in the order of the seeds."""
    changes = sizes(profile.name, task)
    scaled = {label: profile.scale(config, **changes) for label, config in configs(task).items()}
    return sweep(scaled, seeds=max(REPEATED.values()), recorded=True)


def decided(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of :func:`headline` with several runs or a report beside them; all, if none but none has several.

    >>> rows = pd.DataFrame({"label": ["none", "a", "b", "c"], "n": [5, 3, 1, 1], "source": ["", "", "", "001 §2.2"]})
    >>> decided(rows)["label"].tolist()
    ['none', 'a', 'c']
    """
    several, plain = table["n"] > 1, table["label"] == NONE
    return table[several | plain | (table["source"] != "")] if (several & ~plain).any() else table


def markdown(task: str, runs: Mapping[str, Sequence[RunRecord]], *, brief: bool = False) -> str:
    """Return the headline of a task as a Markdown table under a line that says what was measured on what.

    ``brief`` leaves single runs out (see :func:`decided`) and says how many.
    """
    table, first = headline(task, runs), runs[NONE][0]
    shown = decided(table) if brief else table
    metric = f"{'Matthews correlation' if first.metric == 'matthews' else first.metric} [%]"
    config = first.config
    lines = [
        f"**{first.data_label}**, {config.model_name}, {size_text(config)}, partition {config.partition}; "
        f"on {hardware_of(runs)}. Measured after the last epoch. {answer(table)}",
        "",
        f"| row | bytes sent / uncompressed | {metric}, mean ± sd (n) | change, same seeds | training loss, same seeds "
        "| reported change | |",
        "|---|---|---|---|---|---|---|",
    ]
    rows: Any = shown.itertuples()  # whose columns no type knows
    for row in rows:
        told = "–" if pd.isna(row.reported_change) else f"{row.reported_change:+.1f} ({row.source})"
        ratio = f"{row.ratio:.4f}" + (f" (1/{1 / row.ratio:.0f})" if row.label != NONE else "")
        change = "–" if row.label == NONE else _spread(row.change, row.change_sd, "+.1f")
        loss = "–" if row.label == NONE else f"{_spread(100 * row.loss, 100 * row.loss_sd, '+.0f')} %"
        percent = f"{_spread(row.percent, row.sd, '.1f')} ({row.n})"
        lines.append(f"| {row.label} | {ratio} | {percent} | {change} | {loss} | {told} | {_verdict(row)} |")
    if left := len(table) - len(shown):
        lines += ["", f"{left} more rows, a single run each, stand in notebook 11."]
    return "\n".join(lines)


def answer(table: pd.DataFrame) -> str:
    """Return the sentence that :func:`summary` comes to: the fewest bytes that lose nothing, by rows with several runs.

    A row with one run counts only where no other has more; it has no standard error to spare.
    """
    parts = [f"by the {by} {shares}" for by, columns in _ANSWERS.items() if (shares := _shares(table, *columns))]
    if not parts:
        return "No row is known to lose nothing."
    return f"Fewest bytes within one standard deviation of none: {'; '.join(parts)}."


_SPARE = " with a standard error to spare"
# By what is asked: the columns of a summary, in the mean and surely.
_ANSWERS = {
    "metric": ("no_loss", "surely_no_loss"),
    "training loss too": ("trains_alike", "surely_alike"),
}


def _shares(table: pd.DataFrame, in_the_mean: str, surely: str) -> str:
    found = [(row, words) for column, words in ((in_the_mean, ""), (surely, _SPARE)) if (row := _fewest(table, column))]
    if len({row.label for row, _ in found}) == 1:
        found = found[-1:]
    return " and ".join(f"**1/{1 / row.ratio:.0f}**{words} ({row.label}, n={row.n})" for row, words in found)


def _fewest(table: pd.DataFrame, column: str) -> Any:
    kept = table[table[column].eq(True) & (table["ratio"] < 1)]
    kept = kept[kept["n"] > 1] if (kept["n"] > 1).any() else kept
    return next(kept.nsmallest(1, "ratio").itertuples(), None)


def _spread(mean: float, deviation: float, form: str) -> str:
    """Return a mean with its standard deviation, which a single run does not have."""
    return f"{mean:{form}}" + ("" if pd.isna(deviation) else f" ± {deviation:{form.removeprefix('+')}}")


def _verdict(row: Any) -> str:
    if row.label == NONE:
        return "what the others are compared with"
    counts = {"predicts one class": row.collapsed, "diverged": row.diverged}
    words = [word if count == row.n else f"{count} of {row.n} {word}" for word, count in counts.items() if count]
    if row.no_loss is not None and not words:
        within = "within one sd of none" if row.trains_alike else "within one sd, its training loss is not"
        words.append(within if row.no_loss else "more than one sd below none")
    return ", ".join(words)
