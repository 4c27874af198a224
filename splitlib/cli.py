"""The command line: ``python -m splitlib run ...`` trains one config and keeps one record."""

from __future__ import annotations

import argparse
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from splitlib import experiment
from splitlib.compressors import COMPRESSORS, compressor_options
from splitlib.config import RunConfig, setting_fields, task_kind
from splitlib.errors import ConfigError, SplitlibError
from splitlib.models.inserted import insert_options
from splitlib.profiles import DOCUMENT_SETTINGS, PROFILES, get_profile
from splitlib.results import RunRecord, all_records, record_path, to_frame

RUN_DESCRIPTION = """\
Train one config and keep one record; asking again returns the record.

The settings start from the document's for the task, are shrunk by the profile, and are then replaced by whatever is
given here. Ctrl-C leaves a checkpoint: the same command goes on from it.
"""
RUN_EXAMPLES = """\
examples:
  python -m splitlib run --task cola
  python -m splitlib run --task cifar10 --compressor sort --level-bits 6 --bin-bits 2 --chunks 4
  python -m splitlib run --profile real --hub path/to/mirror --task cifar10 --train-samples 2000 --epochs 2
"""
RECORD_COLUMNS = ["task", "data", "model", "partition", "compressor", "seed", "metric", "best_percent", "last_percent"]


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 2 for a mistake in the input, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except SplitlibError as error:
        print(f"splitlib: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nsplitlib: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="splitlib", description="Pipeline-parallel split training with compressed activations.")
    commands = parser.add_subparsers(required=True, metavar="command", parser_class=_Parser)
    run = commands.add_parser(
        "run",
        help="train one config and keep its record",
        description=RUN_DESCRIPTION,
        epilog=RUN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.set_defaults(command=_run)
    _add_run_options(run)
    records = commands.add_parser("records", help="list the records in results/")
    records.set_defaults(command=_records)
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    profiles = "; ".join(f"{profile.name}: {profile.summary}" for profile in PROFILES.values())
    parser.add_argument("--profile", default="quick", choices=PROFILES, help=f"{profiles}")
    settings = parser.add_argument_group("settings (default: the document's, shrunk by the profile)")
    hints = typing.get_type_hints(RunConfig)
    for f in setting_fields():
        if typing.get_origin(hints[f.name]) is not Mapping:
            choices = tuple(COMPRESSORS) if f.name == "compressor" else f.metadata["choices"]
            _add_setting(settings, f.name, _scalar_type(hints[f.name]), f.metadata["help"], choices)
    inserts = parser.add_argument_group("parameters of the inserted layers")
    _add_options(inserts, "insert_options", insert_options(), "insert_", "")
    codecs = parser.add_argument_group("parameters of the compressors (3,7 means 3 at the first cut, 7 at the second)")
    _add_options(codecs, "compressor_options", compressor_options(), "", "activations (and gradients): ")
    _add_options(codecs, "gradient_options", compressor_options(), "gradient_", "gradients alone: ")
    where = parser.add_argument_group("where it runs (not part of the config)")
    where.add_argument("--hub", type=Path, help="a local mirror of the hub (default: $SPLITLIB_HUB, else the hub)")
    where.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    where.add_argument("--workers", type=int, default=0, help="processes that load images (default 0: none)")
    where.add_argument("--fresh", action="store_true", help="train again although a record or checkpoint exists")


def _add_options(group: Any, field: str, options: Mapping[str, Mapping[str, Any]], prefix: str, help: str) -> None:
    """Add every option that goes into the mapping ``field`` of the config."""
    for name, defaults in options.items():
        known = ", ".join(f"{owner} (default {default})" for owner, default in defaults.items())
        kind = type(next(iter(defaults.values())))
        _add_setting(group, prefix + name, _per_cut(kind), f"{help}of {known}", (), dest=f"{field}:{name}")


def _per_cut(kind: type) -> Callable[[str], Any]:
    """Return a reader of one value of ``kind``; values with commas are checked where the compressors are made."""

    def read(text: str) -> Any:
        return text if "," in text else kind(text)

    read.__name__ = kind.__name__  # what argparse calls it
    return read


def _add_setting(
    group: Any, name: str, kind: Callable[[str], Any], help: str, choices: Sequence[str] = (), dest: str | None = None
) -> None:
    text = help + (f": {', '.join(choices)}" if choices else "")
    flag, metavar = "--" + name.replace("_", "-"), kind.__name__.upper()
    group.add_argument(
        flag, dest=dest or f"setting:{name}", type=kind, choices=choices or None, help=text, metavar=metavar
    )


def _scalar_type(hint: Any) -> type:
    """Return ``int`` for ``int | None``, and so on."""
    return next((t for t in typing.get_args(hint) if t is not type(None)), hint)


def config_from_options(options: argparse.Namespace) -> RunConfig:
    """Return the config a parsed ``run`` command line means."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    settings = {name.removeprefix("setting:"): v for name, v in given.items() if name.startswith("setting:")}
    for field in ("insert_options", "compressor_options", "gradient_options"):
        prefix = f"{field}:"
        values = {name.removeprefix(prefix): v for name, v in given.items() if name.startswith(prefix)}
        if values:
            settings[field] = values
    task = settings.pop("task", "cola")
    task_kind(task)
    return get_profile(options.profile).scale(DOCUMENT_SETTINGS[task], **settings)


def _run(options: argparse.Namespace) -> None:
    if options.workers < 0:
        raise ConfigError(f"workers must be at least 0, not {options.workers}")
    config = config_from_options(options)
    record = experiment.run(
        config, hub=options.hub, device=options.device, fresh=options.fresh, workers=options.workers
    )
    print(_summary(record))


def _summary(record: RunRecord) -> str:
    row = record.row()
    ratio = f"{record.compression_ratio:.4f} of the uncompressed bytes" if record.uncompressed_bytes else "no cut"
    flags = [word for word in ("collapsed to one class", "diverged") if row[word.split()[0]]]
    best = f"{row['best_percent']:.2f} % at best (epoch {row['best_epoch']})"
    config = record.config
    inserted = [] if config.insert == "none" else [config.insert]
    shown = [str(config.model), str(config.partition), *inserted, config.compressor]
    lines = {
        "data": record.data_label,
        "config": f"{record.config.key}: {', '.join(shown)}",
        record.metric: f"{best}, {row['last_percent']:.2f} % last",
        "wire": ratio,
        "speed": f"{row['samples_per_second']:.1f} samples/s on {row['hardware']}",
        "made": record.created,
        "record": str(record_path(record.config)),
    }
    text = "\n".join(f"{name:10} {value}" for name, value in lines.items())
    return text + (f"\nwarning    this run {' and '.join(flags)}" if flags else "")


def _records(options: argparse.Namespace) -> None:
    records = all_records()
    print(to_frame(records)[RECORD_COLUMNS].to_string(index=False) if records else "no records yet")
