"""The command line: ``run`` trains one config and keeps one record, ``server`` and ``client`` do it on two machines.

``plan`` says which split to train, ``headline`` what was measured; ``gpu`` measures what wants a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

import torch

from splitlib import experiment
from splitlib.cli.gpu import GPU
from splitlib.cli.headline import HEADLINE
from splitlib.cli.plan import PLAN
from splitlib.cli.records import RECORDS
from splitlib.cli.settings import config_from_options, given_settings
from splitlib.cli.train import CLIENT, PAIR, RUN, SERVER
from splitlib.errors import SplitlibError

__all__ = ["config_from_options", "given_settings", "main"]

COMMANDS = (RUN, SERVER, CLIENT, PAIR, PLAN, GPU, HEADLINE, RECORDS)


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
        options.command.run(options)
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


def _stopped(options: argparse.Namespace) -> str:
    """Return what becomes of a command that Ctrl-C stopped."""
    if not getattr(options, "fresh", False):
        return options.command.stopped
    if options.command in (RUN, CLIENT, PAIR) and experiment.is_found(config_from_options(options)):
        return "stopped before training began; the record is as it was"
    return "stopped; the same command goes on from here without --fresh, and starts over with it"


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether torch had no memory left: on a GPU its error has a class for that, on a CPU only words."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="splitlib",
        description="Pipeline-parallel split training with compressed activations.",
        epilog="One command's options and examples: python -m splitlib COMMAND --help",
    )
    commands = parser.add_subparsers(required=True, metavar="command", parser_class=_Parser)
    for command in COMMANDS:
        made = commands.add_parser(
            command.name,
            help=command.summary,
            description=command.description,
            epilog=command.examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(command=command)
        command.add_options(made)
    return parser
