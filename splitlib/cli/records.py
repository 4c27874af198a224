"""``records`` on the command line: what runs there are, and one in full; ``run`` ends with the same first lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from splitlib.cli.command import Command
from splitlib.command import command_line
from splitlib.config import cut_text, run_title
from splitlib.errors import ConfigError, RecordError
from splitlib.results import RunRecord, find_record, read_record, record_path, record_paths
from splitlib.runtime import results_dir

NOTHING = "-"


def add_records_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``records`` takes."""
    parser.add_argument("key", nargs="?", metavar="KEY", help="of the record to show (default: list all)")


def run_records(options: argparse.Namespace) -> None:
    """List the records, or show the one whose key is given."""
    if options.key is None:
        _list()
    else:
        print("\n".join(_in_full(find_record(options.key))))


def summary(record: RunRecord, *, found: bool = False) -> str:
    """Return what came of a run, a line for each thing; ``found`` if it was asked for anew and was there."""
    row = record.row()
    ratio = f"{record.compression_ratio:.4f} of the uncompressed bytes" if record.uncompressed_bytes else "no cut"
    flags = [word for word in ("collapsed to one class", "diverged") if row[word.split()[0]]]
    best = f"{row['best_percent']:.2f} % at best (epoch {row['best_epoch']})"
    lines = {
        "data": record.data_label,
        "config": f"{record.config.key}: {run_title(record.config)}",
        "size": row["size_text"],
        record.metric: f"{best}, {row['last_percent']:.2f} % last",
        "wire": ratio,
        "speed": f"{row['samples_per_second']:.1f} samples/s on {row['hardware']}",
        "made": record.created + (", found: --fresh trains again" if found else ""),
        "record": str(record_path(record.config)),
    }
    text = "\n".join(_aligned(lines))
    return text + (f"\nwarning    this run {' and '.join(flags)}" if flags else "")


# --- One -------------------------------------------------------------------------------------------------------------


def _in_full(record: RunRecord) -> Iterator[str]:
    """Yield everything a record holds, but the hashes, for people."""
    yield summary(record)
    yield from _aligned({"command": _command(record)})
    epochs = {
        "epoch": [epoch.epoch for epoch in record.history],
        "training loss": [f"{epoch.train_loss:.4f}" for epoch in record.history],
        "validation loss": [f"{epoch.eval_loss:.4f}" for epoch in record.history],
        "accuracy [%]": [f"{100 * epoch.accuracy:.2f}" for epoch in record.history],
        "Matthews correlation [%]": [f"{100 * epoch.matthews:.2f}" for epoch in record.history],
        "classes predicted": [epoch.predicted_classes for epoch in record.history],
    }
    yield "\n" + pd.DataFrame(epochs).to_string(index=False)
    made_on = {**record.environment, "splitlib": record.splitlib_version}
    for title, values in (("run", _sizes(record)), ("settings", record.config.to_dict()), ("made on", made_on)):
        yield f"\n{title}"
        yield from (f"  {line}" for line in _aligned({name: _text(value) for name, value in values.items()}))


def _command(record: RunRecord) -> str:
    try:
        return command_line(record.config)
    except ConfigError as error:  # made from Python, with options that no command line can give
        return f"{NOTHING} ({error})"


def _sizes(record: RunRecord) -> dict[str, str]:
    """Return what was sent in all of training, MB being 10^6 bytes, and what was trained for how long."""
    return {
        "activations": f"{record.activation_bytes / 1e6:,.1f} MB sent",
        "gradients": f"{record.gradient_bytes / 1e6:,.1f} MB sent",
        "in full": f"{record.uncompressed_bytes / 1e6:,.1f} MB without compression",
        "samples": f"{record.samples_seen:,} in {record.train_seconds:,.1f} s of training steps",
        "parameters": f"{record.parameters:,}",
        "weights": NOTHING if record.weights_norm is None else f"of norm {record.weights_norm:.7g} at the start",
    }


def _text(value: Any) -> str:
    """Return a value in words; of what is empty a dash, since ``none`` is a choice."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{name} {own}" for name, own in value.items())
    return NOTHING if value in (None, "") else str(value)


def _aligned(lines: Mapping[str, str]) -> list[str]:
    width = max(10, *map(len, lines))
    return [f"{name:{width}} {value}" for name, value in lines.items()]


# --- All -------------------------------------------------------------------------------------------------------------


def _list() -> None:
    rows, at_cuts = [], ["at the cuts"]
    for path in record_paths():
        try:
            record = read_record(path)
        except RecordError as error:  # the others are listed all the same
            print(f"splitlib: warning: {error}", file=sys.stderr)
            continue
        rows.append(_row(record))
        at_cuts.append(cut_text(record.config))
    if not rows:
        print(f"no records in {results_dir()}")
        return
    table = pd.DataFrame(rows).to_string(index=False).splitlines()
    print("\n".join(f"{line}  {text}" for line, text in zip(table, at_cuts, strict=True)))  # the longest, so last


def _row(record: RunRecord) -> dict[str, str | int]:
    """Return what tells a run from others but what is at its cuts, and what came of it, for people."""
    config, row = record.config, record.row()
    return {
        "key": config.key,
        "task": config.task,
        "data": config.data,
        "model": config.model_name,
        "partition": str(config.partition),
        "size": row["size_text"],
        "seed": config.seed,
        "MB sent": f"{(record.activation_bytes + record.gradient_bytes) / 1e6:.1f}",
        "ratio": f"{record.compression_ratio:.4f}",
        "metric": record.metric,
        "best %": f"{row['best_percent']:.2f}",
        "last %": f"{row['last_percent']:.2f}",
    }


RECORDS = Command(
    name="records",
    summary="list the records in results/, or show one",
    description="""\
List the records in results/, or show one in full: what came of the run, epoch by epoch, its settings, its bytes and the
machine.
""",
    examples="""\
examples:
  python -m splitlib records                # a line each, which begins with the key
  python -m splitlib records a00b7a85ca00   # one; as many digits as no other key begins with will do
""",
    add_options=add_records_options,
    run=run_records,
)
