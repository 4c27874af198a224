"""The command line: ``run`` trains one config and keeps one record, ``server`` and ``client`` do it on two machines.

``plan`` says which split to train, ``headline`` what was measured; ``gpu`` measures what wants a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import torch

from splitlib import experiment
from splitlib.cli.gpu import GPU_DESCRIPTION, GPU_EXAMPLES, add_gpu_options, run_gpu
from splitlib.cli.headline import HEADLINE_DESCRIPTION, HEADLINE_EXAMPLES, add_headline_options, run_headline
from splitlib.cli.plan import PLAN_DESCRIPTION, PLAN_EXAMPLES, add_plan_options, run_plan
from splitlib.cli.settings import add_hub, add_link, add_profile, add_settings, config_from_options, given_settings
from splitlib.config import cut_text, run_title
from splitlib.data.hub import describe
from splitlib.errors import RecordError, SplitlibError
from splitlib.pipeline.data_parallel import follows
from splitlib.pipeline.remote.client import Line
from splitlib.pipeline.remote.handshake import SECRET, read_secret
from splitlib.pipeline.remote.launch import (
    dial_under_torchrun,
    end_with_parent,
    join_torchrun,
    serve_under_torchrun,
)
from splitlib.pipeline.remote.link import Link
from splitlib.pipeline.remote.network import DEFAULT_PORT, Server, dial, parse_address
from splitlib.results import RunRecord, read_record, record_path, record_paths
from splitlib.runtime import pick_device, results_dir

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
SERVER_DESCRIPTION = """\
Be the server of two machines: run the body for one client after the other.

The client brings the config, and with it model, compressors and optimizer; labels stay with it. Settings given here are
those that a client must bring, or it is turned away. By default only this machine can connect; any other address needs
a shared secret. The channel is not encrypted: see the README for a VPN.
"""
SERVER_EXAMPLES = """\
examples:
  python -m splitlib server
  SPLITLIB_SECRET=... python -m splitlib server --bind 10.0.0.2 --port 29511
  python -m splitlib server --once --task cifar10 --compressor sort
"""
CLIENT_DESCRIPTION = """\
Train one config with the body on another machine, and keep one record; asking again returns the record.

Settings are those of `run`. The link can be shaped here, in both directions, to see what a slower network would do.
Ctrl-C leaves a checkpoint on both sides: the same command goes on from it.
"""
CLIENT_EXAMPLES = """\
examples:
  python -m splitlib client --server 127.0.0.1:29511 --task cifar10
  python -m splitlib client --server 10.0.0.2:29511 --task cifar10 --compressor sort --schedule 1f1b
  python -m splitlib client --server 127.0.0.1:29511 --task cifar10 --link 50Mbit --latency 10ms
"""
PAIR_DESCRIPTION = """\
Be server or client under torchrun, which starts both: rank 0 serves, rank 1 trains. Settings are those of `client`.
"""
PAIR_EXAMPLES = """\
examples:
  torchrun --nproc-per-node 2 -m splitlib pair --task cola --compressor sort
"""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and name the command whose help says more."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse what is unknown here: left to the parser above, it would be of no command."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            option = rest[0].partition("=")[0]
            near = get_close_matches(option, self._option_string_actions, n=1) if option.startswith("-") else []
            meant = f"; did you mean {near[0]}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(rest)}{meant}")
        return found, rest

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
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
        what = str(error).strip().splitlines()[0]
        print(f"splitlib: error: not enough memory for these sizes: make them smaller ({what})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nsplitlib: {_stopped(options)}", file=sys.stderr)
        return 130
    return 0


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether torch had no memory left: on a GPU its error has a class for that, on a CPU only words."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _stopped(options: argparse.Namespace) -> str:
    """Return what becomes of a command that Ctrl-C stopped."""
    if options.command is _server:
        return "stopped"
    if getattr(options, "fresh", False):
        if options.command is not run_plan and experiment.is_found(config_from_options(options)):
            return "stopped before training began; the record is as it was"
        return "stopped; the same command goes on from here without --fresh, and starts over with it"
    return "stopped; the same command goes on from here"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="splitlib", description="Pipeline-parallel split training with compressed activations.")
    commands = parser.add_subparsers(required=True, metavar="command", parser_class=_Parser)

    def add(
        name: str, command: Callable[[argparse.Namespace], None], help: str, *texts: str
    ) -> argparse.ArgumentParser:
        """Add a command with its description and examples."""
        description, epilog = texts
        made = commands.add_parser(
            name,
            help=help,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(command=command, two_machines=command in (_client, _pair))
        return made

    _add_run_options(add("run", _run, "train one config and keep its record", RUN_DESCRIPTION, RUN_EXAMPLES))
    _add_server_options(add("server", _server, "run the body for clients", SERVER_DESCRIPTION, SERVER_EXAMPLES))
    client = add("client", _client, "train with the body on a server", CLIENT_DESCRIPTION, CLIENT_EXAMPLES)
    client.add_argument("--server", required=True, metavar="ADDR:PORT", help="where the server listens")
    _add_secret(client)
    pair = add("pair", _pair, "server and client under torchrun", PAIR_DESCRIPTION, PAIR_EXAMPLES)
    for parser_of_client in (client, pair):
        add_link(parser_of_client.add_argument_group("network (not part of the config), shaped here"))
        _add_run_options(parser_of_client)
    add_plan_options(add("plan", run_plan, "find the fastest split for a link", PLAN_DESCRIPTION, PLAN_EXAMPLES))
    add_gpu_options(add("gpu", run_gpu, "measure what wants a GPU, and bring it back", GPU_DESCRIPTION, GPU_EXAMPLES))
    add_headline_options(
        add("headline", run_headline, "bytes against accuracy, from records", HEADLINE_DESCRIPTION, HEADLINE_EXAMPLES)
    )
    records = commands.add_parser("records", help="list the records in results/")
    records.set_defaults(command=_records)
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    add_settings(parser, "settings (default: the document's, shrunk by the profile)")
    where = parser.add_argument_group("where it runs (not part of the config)")
    add_hub(where)
    devices = "auto, cpu, cuda or cuda:N; in one process also one a stage: cpu,cuda:0,cpu"
    where.add_argument("--device", default="auto", help=devices)
    where.add_argument("--workers", type=int, default=0, help="processes that load images (default 0: none)")
    where.add_argument("--fresh", action="store_true", help="train again although a record or checkpoint exists")


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bind", default="127.0.0.1", metavar="ADDR", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"default {DEFAULT_PORT}; 0 takes a free one")
    parser.add_argument("--once", action="store_true", help="end after one client instead of waiting for the next")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    _add_secret(parser)
    add_hub(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    add_settings(parser, "settings a client must bring (default: it may bring any)")


def _add_secret(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--secret-file", type=Path, help=f"file with the shared secret (default: ${SECRET})")


def _run(options: argparse.Namespace, dial: Callable[[], Line] | None = None) -> None:
    config = config_from_options(options)
    found = experiment.is_found(config, fresh=options.fresh)
    record = experiment.run(
        config,
        hub=options.hub,
        device=options.device,
        fresh=options.fresh,
        workers=options.workers,
        server=dial,
        link=None if dial is None else Link.parse(options.link, options.latency),
    )
    if record.config.engine != "data_parallel" or not follows():
        print(_summary(record, found))
        if found and (note := _other_source(record, options.hub)):
            print(f"note       {note}")


def _client(options: argparse.Namespace) -> None:
    address, secret = parse_address(options.server), read_secret(options.secret_file)
    _run(options, lambda: dial(address, secret))


def _server(options: argparse.Namespace) -> None:
    if options.with_parent:
        end_with_parent()
    server = Server(
        bind=options.bind,
        port=options.port,
        secret=read_secret(options.secret_file),
        hub=options.hub,
        device=pick_device(options.device),
        required=given_settings(options),
        log=lambda line: print(line, flush=True),
    )
    server.run(once=options.once)


def _pair(options: argparse.Namespace) -> None:
    rank, meet = join_torchrun()
    if rank == 0:
        serve_under_torchrun(meet, hub=options.hub, device=pick_device(options.device))
    else:
        _run(options, lambda: dial_under_torchrun(meet))


def _summary(record: RunRecord, found: bool) -> str:
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
    text = "\n".join(f"{name:10} {value}" for name, value in lines.items())
    return text + (f"\nwarning    this run {' and '.join(flags)}" if flags else "")


def _other_source(record: RunRecord, hub: Path | None) -> str:
    """Return a note if the data of a found record is not from where this command would take it."""
    if record.config.data != "real" or f"from {describe(hub)}," in record.data_label:
        return ""
    return f"this command names {describe(hub)}, but the record's data is from elsewhere; nothing was read"


def _records(options: argparse.Namespace) -> None:
    rows, at_cuts = [], ["at the cuts"]
    for path in record_paths():
        try:
            record = read_record(path)
        except RecordError as error:  # the others are listed all the same
            print(f"splitlib: warning: {error}", file=sys.stderr)
            continue
        rows.append(_record_row(record))
        at_cuts.append(cut_text(record.config))
    if not rows:
        print(f"no records in {results_dir()}")
        return
    table = pd.DataFrame(rows).to_string(index=False).splitlines()
    print("\n".join(f"{line}  {text}" for line, text in zip(table, at_cuts, strict=True)))  # the longest, so last


def _record_row(record: RunRecord) -> dict[str, str | int]:
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
