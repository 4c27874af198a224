"""``run`` on the command line, one config and its record; ``server``, ``client`` and ``pair`` do it on two machines."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from splitlib import experiment
from splitlib.cli.command import Command
from splitlib.cli.records import summary
from splitlib.cli.settings import (
    add_hub,
    add_link,
    add_profile,
    add_settings,
    config_from_options,
    given_settings,
    usual_settings,
)
from splitlib.data.hub import describe
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
from splitlib.results import RunRecord
from splitlib.runtime import pick_device

DEVICES = "auto, which is a GPU where there is one, cpu, cuda or cuda:N"


def add_run_options(parser: argparse.ArgumentParser, engine: str = "in_process") -> None:
    """Add the options of ``run``; ``engine`` is the usual one."""
    add_profile(parser)
    add_settings(parser, "settings", usual=usual_settings(engine=engine))
    where = parser.add_argument_group("where it runs (not part of the config)")
    add_hub(where)
    devices = f"{DEVICES}; in one process also one a stage: cpu,cuda:0,cpu (default auto)"
    where.add_argument("--device", default="auto", help=devices)
    where.add_argument("--workers", type=int, default=0, metavar="N", help="processes that load images (default 0)")
    where.add_argument("--fresh", action="store_true", help="train again although a record or checkpoint exists")


def add_client_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``client``."""
    parser.add_argument("--server", required=True, metavar="ADDR:PORT", help="where the server listens")
    _add_secret(parser)
    add_pair_options(parser)


def add_pair_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pair``."""
    add_link(parser.add_argument_group("network (not part of the config), shaped here"))
    add_run_options(parser, engine="two_machines")


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``server``."""
    parser.add_argument("--bind", default="127.0.0.1", metavar="ADDR", help="address to listen on (default 127.0.0.1)")
    ports = f"port to listen on; 0 takes a free one (default {DEFAULT_PORT})"
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, metavar="N", help=ports)
    parser.add_argument("--once", action="store_true", help="end after one client instead of waiting for the next")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    _add_secret(parser)
    add_hub(parser)
    parser.add_argument("--device", default="auto", help=f"{DEVICES} (default auto)")
    add_settings(parser, "settings a client must bring (default: it may bring any)")


def _add_secret(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--secret-file", type=Path, metavar="FILE", help=f"file with the shared secret (default: ${SECRET})"
    )


def run_here(options: argparse.Namespace) -> None:
    """Train in this process, or in replicas of it."""
    _train(options)


def run_client(options: argparse.Namespace) -> None:
    """Train with the body on a server."""
    address, secret = parse_address(options.server), read_secret(options.secret_file)
    _train(options, lambda: dial(address, secret))


def run_server(options: argparse.Namespace) -> None:
    """Serve clients."""
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


def run_pair(options: argparse.Namespace) -> None:
    """Do what this process's rank under torchrun is for."""
    rank, meet = join_torchrun()
    if rank == 0:
        serve_under_torchrun(meet, hub=options.hub, device=pick_device(options.device))
    else:
        _train(options, lambda: dial_under_torchrun(meet))


def _train(options: argparse.Namespace, dial: Callable[[], Line] | None = None) -> None:
    """Train what the options mean, with ``dial`` the body at its other end, and print what came of it."""
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
        print(summary(record, found=found))
        if found and (note := _other_source(record, options.hub)):
            print(f"note       {note}")


def _other_source(record: RunRecord, hub: Path | None) -> str:
    """Return a note if the data of a found record is not from where this command would take it."""
    if record.config.data != "real" or f"from {describe(hub)}," in record.data_label:
        return ""
    return f"this command names {describe(hub)}, but the record's data is from elsewhere; nothing was read"


RUN = Command(
    name="run",
    summary="train one config and keep its record",
    description="""\
Train one config and keep one record; asking again returns the record.

The settings start from the document's for the task, are shrunk by the profile, and are then replaced by whatever is
given here; without a task it is cola. Ctrl-C leaves a checkpoint: the same command goes on from it.
""",
    examples="""\
examples:
  python -m splitlib run                                            # cola, a small model, embedded data
  python -m splitlib run --task cifar10 --compressor sort --level-bits 6 --bin-bits 2 --chunks 4
  python -m splitlib run --profile real --hub path/to/mirror --task cifar10 --train-samples 2000 --epochs 2
""",
    add_options=add_run_options,
    run=run_here,
)
SERVER = Command(
    name="server",
    summary="run the body for clients",
    description="""\
Be the server of two machines: run the body for one client after the other.

The client brings the config, and with it model, compressors and optimizer; labels stay with it. Settings given here are
those that a client must bring, or it is turned away. By default only this machine can connect; any other address needs
a shared secret. The channel is not encrypted: see the README for a VPN.
""",
    examples="""\
examples:
  python -m splitlib server
  SPLITLIB_SECRET=... python -m splitlib server --bind 10.0.0.2 --port 29511
  python -m splitlib server --once --task cifar10 --compressor sort
""",
    add_options=add_server_options,
    run=run_server,
    stopped="stopped",
)
CLIENT = Command(
    name="client",
    summary="train with the body on a server",
    description="""\
Train one config with the body on another machine, and keep one record; asking again returns the record.

Settings are those of `run`. The link can be shaped here, in both directions, to see what a slower network would do.
Ctrl-C leaves a checkpoint on both sides: the same command goes on from it.
""",
    examples="""\
examples:
  python -m splitlib client --server 127.0.0.1:29511 --task cifar10
  python -m splitlib client --server 10.0.0.2:29511 --task cifar10 --compressor sort --schedule 1f1b
  python -m splitlib client --server 127.0.0.1:29511 --task cifar10 --link 50Mbit --latency 10ms
""",
    add_options=add_client_options,
    run=run_client,
    two_machines=True,
)
PAIR = Command(
    name="pair",
    summary="server and client under torchrun",
    description="""\
Be server or client under torchrun, which starts both: rank 0 serves, rank 1 trains. Settings are those of `client`.
""",
    examples="""\
examples:
  torchrun --nproc-per-node 2 -m splitlib pair --task cola --compressor sort
""",
    add_options=add_pair_options,
    run=run_pair,
    two_machines=True,
)
