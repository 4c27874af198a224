"""The answer: measured rows beside reported ones, as a table, and the fewest bytes that lose nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from splitlib.config import size_text
from splitlib.frontier.published import published
from splitlib.frontier.rows import NO_PADDING, NONE
from splitlib.frontier.summary import summary
from splitlib.results import RunRecord, hardware_of

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


def decided(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of :func:`headline` with several runs or a report beside them; all, if none but none has several.

    >>> rows = pd.DataFrame({"label": ["none", "a", "b", "c"], "n": [5, 3, 1, 1], "source": ["", "", "", "001 §2.2"]})
    >>> decided(rows)["label"].tolist()
    ['none', 'a', 'c']
    """
    several, plain = table["n"] > 1, table["label"] == NONE
    return table[several | plain | (table["source"] != "")] if (several & ~plain).any() else table


def answering(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of :func:`headline` that a document reports, or that :func:`answer` names; all, if it names none.

    The row without compression is among them.
    """
    named = [row.label for columns in _ANSWERS.values() for row, _ in _answers(table, *columns)]
    return table[table["label"].isin([NONE, *named]) | (table["source"] != "")] if named else table


def markdown(task: str, runs: Mapping[str, Sequence[RunRecord]], *, brief: bool = False) -> str:
    """Return the headline of a task as a Markdown table under a line that says what was measured on what.

    Where a row says what leaving padding out is worth by itself, bytes are also given over those of the real tokens.
    ``brief`` gives the rows that are :func:`answering` and says how many there are besides.
    """
    table, first = headline(task, runs), runs[NONE][0]
    shown = answering(table) if brief else table
    tokens = dict(zip(table["label"], table["ratio"], strict=True)).get(NO_PADDING)
    metric = f"{'Matthews correlation' if first.metric == 'matthews' else first.metric} [%]"
    config = first.config
    lines = [
        f"**{first.data_label}**, {config.model_name}, {size_text(config)}, partition {config.partition}; "
        f"on {hardware_of(runs)}. Measured after the last epoch. {answer(table)}",
        "",
        f"| row | bytes sent / uncompressed | {'/ real tokens alone | ' if tokens else ''}{metric}, mean ± sd (n) "
        "| change ± se | training loss, change ± se | reported change | |",
        "|---" * (8 if tokens else 7) + "|",
    ]
    rows: Any = shown.itertuples()  # whose columns no type knows
    for row in rows:
        told = "–" if pd.isna(row.reported_change) else f"{row.reported_change:+.1f} ({row.source})"
        ratio = f"{row.ratio:.4f}" + (f" (1/{1 / row.ratio:.0f})" if row.label != NONE else "")
        ratio += f" | {_share(row.ratio / tokens)}" if tokens else ""
        change = "–" if row.label == NONE or pd.isna(row.change) else _spread(row.change, row.change_se, "+z.1f")
        loss = "–" if row.label == NONE else f"{_spread(100 * row.loss, 100 * row.loss_se, '+z.0f')} %"
        percent = f"{_spread(row.percent, row.sd, '.1f')} ({row.n})"
        lines.append(f"| {row.label} | {ratio} | {percent} | {change} | {loss} | {told} | {_verdict(row)} |")
    if left := len(table) - len(shown):
        lines += ["", f"{left} more rows stand in notebook 11."]
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
# By what is asked: the columns of a summary, in the mean and with an error to spare.
_ANSWERS = {
    "metric": ("no_loss", "no_loss_to_spare"),
    "training loss too": ("trains_alike", "alike_to_spare"),
}


def _shares(table: pd.DataFrame, in_the_mean: str, to_spare: str) -> str:
    found = _answers(table, in_the_mean, to_spare)
    return " and ".join(f"**1/{1 / row.ratio:.0f}**{words} ({row.label}, n={row.n})" for row, words in found)


def _answers(table: pd.DataFrame, in_the_mean: str, to_spare: str) -> list[tuple[Any, str]]:
    asked = ((in_the_mean, ""), (to_spare, _SPARE))
    found = [(row, words) for column, words in asked if (row := _fewest(table, column))]
    return found[-1:] if len({row.label for row, _ in found}) == 1 else found


def _fewest(table: pd.DataFrame, column: str) -> Any:
    kept = table[table[column].eq(True) & (table["ratio"] < 1)]
    kept = kept[kept["n"] > 1] if (kept["n"] > 1).any() else kept
    return next(kept.nsmallest(1, "ratio").itertuples(), None)


def _share(ratio: float) -> str:
    """Return a share as one of so many parts, where there are enough for that to be read.

    >>> _share(0.05), _share(0.7042)
    ('1/20', '0.70')
    """
    return f"1/{1 / ratio:.0f}" if ratio < 0.3 else f"{ratio:.2f}"


def _spread(mean: float, deviation: float, form: str) -> str:
    """Return a mean with its standard deviation or error, which a single run does not have.

    >>> _spread(-0.2, 2.6, "+z.0f")
    '+0 ± 3'
    """
    return f"{mean:{form}}" + ("" if pd.isna(deviation) else f" ± {deviation:{form.removeprefix('+')}}")


def _verdict(row: Any) -> str:
    if row.label == NONE:
        return "what the others are compared with"
    counts = {"predicts one class": row.collapsed, "diverged": row.diverged}
    words = [word if count == row.n else f"{count} of {row.n} {word}" for word, count in counts.items() if count]
    if pd.isna(row.change) and not words:
        words.append("evaluated with other bits: its metric does not compare")
    elif row.no_loss is not None and not words:
        within = "within one sd of none" if row.trains_alike else "within one sd, its training loss is not"
        words.append(within if row.no_loss else "more than one sd below none")
    return ", ".join(words)
