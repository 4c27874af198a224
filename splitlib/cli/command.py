"""What every word behind ``splitlib`` has."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Command:
    """One word behind ``splitlib``: what it does, its options, and what its ``--help`` says."""

    name: str
    summary: str
    """One line, for the list of commands."""
    description: str
    examples: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]
    two_machines: bool = False
    """Its config is one of two machines, whatever else it is given."""
    stopped: str = "stopped; the same command goes on from here"
    """What becomes of it after Ctrl-C."""
