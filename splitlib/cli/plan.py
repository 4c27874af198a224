"""``plan`` on the command line: the fastest splits for a link, what was assumed, and how to train the best."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from splitlib.cli.command import Command
from splitlib.cli.settings import add_hub, add_link, add_profile, add_settings, config_from_options, usual_settings
from splitlib.config import RunConfig, input_text
from splitlib.config.choices import VISION_MODELS
from splitlib.errors import ConfigError
from splitlib.files import write_text
from splitlib.pipeline.remote.link import Link
from splitlib.planner import DEFAULT_CHUNKS, DEFAULT_COMPRESSORS, Plan, plan
from splitlib.planner.choices import TOLERABLE_ERROR, TOLERABLE_GAIN, Limits

COARSE = "!"
"""Marks a loss above what is recommended."""
# The planner chooses these, or leaves them as they are.
CHOSEN = (
    "partition", "stages", "cuts", "chunks", "insert", "insert_options", "compressor", "compressor_options",
    "gradient_compressor", "gradient_options", "padding", "coding", "error_feedback", "engine", "replicas", "recompute",
    "micro_batch_loss",
)  # fmt: skip


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``plan``."""
    parser.allow_abbrev = False  # --compressor would be read as --compressors, and --compressor's options as mistakes
    add_profile(parser)
    add_link(parser.add_argument_group("link between client and server"))
    choices = parser.add_argument_group("what to choose from")
    choices.add_argument(
        "--cuts", nargs="+", default=["all"], metavar="CUTS",
        help="all, named, or some: a partition's name, or units before each cut such as 3,10 (default: all)",
    )  # fmt: skip
    choices.add_argument(
        "--compressors", nargs="+", metavar="SPEC",
        help="name:option=value,..., with + another one for gradients and a/b for values at the two cuts "
        f"(default: {' '.join(DEFAULT_COMPRESSORS)})",
    )  # fmt: skip
    usual = " ".join(map(str, DEFAULT_CHUNKS))
    choices.add_argument(
        "--chunks",
        nargs="+",
        type=int,
        metavar="N",
        help=f"numbers of micro-batches (default: those of {usual} and the task's that can be)",
    )
    choices.add_argument(
        "--max-error", type=float, metavar="E",
        help="leave out larger errors at any cut: mean squared over variance "
        f"(default: show them, and recommend none above {TOLERABLE_ERROR:g}, nor a text's gradients with an unequal "
        f"gain above {TOLERABLE_GAIN:g}; inf: recommend any)",
    )  # fmt: skip
    choices.add_argument(
        "--max-client-share", type=float, metavar="S", help="leave out cuts that give the client more of the MACs"
    )
    machines = parser.add_argument_group("machines")
    devices = "of both sides, or client,server such as cpu,cuda (default auto)"
    machines.add_argument("--device", default="auto", help=devices)
    for side in ("client", "server"):
        speed = f"times as fast as here the {side} is (default 1)"
        machines.add_argument(f"--{side}-speed", type=float, default=1.0, metavar="X", help=speed)
    machines.add_argument("--measured", type=Path, metavar="FILE", help="take these costs instead of measuring")
    machines.add_argument("--fresh", action="store_true", help="measure again")
    add_hub(machines)
    output = parser.add_argument_group("output")
    output.add_argument("--top", type=int, default=10, metavar="N", help="how many choices to show (default 10)")
    output.add_argument("--each", action="store_true", help="show the best choice of each compressor only")
    output.add_argument("--csv", type=Path, metavar="FILE", help="write the table")
    output.add_argument("--json", type=Path, metavar="FILE", help="write table, assumptions and the best config")
    settings = "model, data and training (a vision model without a task means cifar10)"
    add_settings(parser, settings, without=CHOSEN, usual=usual_settings())


def run_plan(options: argparse.Namespace) -> None:
    """Plan and print."""
    if options.top < 1:
        raise ConfigError(f"top must be at least 1, not {options.top}")
    model = getattr(options, "setting:model")
    if getattr(options, "setting:task") is None and model in VISION_MODELS:
        setattr(options, "setting:task", "cifar10")
    setattr(options, "setting:engine", "two_machines")  # what is planned for, and what a schedule needs
    cuts = options.cuts[0] if options.cuts in (["all"], ["named"]) else options.cuts
    found = plan(
        _config(options),
        link=Link.parse(options.link, options.latency),
        cuts=cuts,
        compressors=options.compressors,
        chunks=options.chunks,
        hub=options.hub,
        device=options.device,
        fresh=options.fresh,
        max_error=options.max_error,
        max_client_share=options.max_client_share,
        client_speed=options.client_speed,
        server_speed=options.server_speed,
        keep=options.top,
        measured=options.measured,
    )
    table = found.table()
    shown = table.drop_duplicates("compressor") if options.each else table.head(options.top)
    rows = sorted({*shown.index, found.choices.index(found.best)})
    print(f"{title(found.best.config)}: predicted time per batch\n")
    print(readable(table.loc[rows], found.limits).to_string(index=False))
    print("\nassumed")
    print("\n".join(f"  {line}" for line in found.assumptions))
    for path, text in ((options.csv, table.to_csv(index=False)), (options.json, as_json(found, table))):
        if path is not None:
            write_text(path, text)
    for line in warnings(found, table.loc[rows]):
        print(f"\nwarning: {line}")
    which = "the best" if found.limits.allow(found.best) else "the least error"
    print(f"\n{which}, after python -m splitlib server\n  {found.command()}")


def _config(options: argparse.Namespace) -> RunConfig:
    """Return what to plan for: with a single micro-batch where the batch cannot be cut as the task's is."""
    try:
        return config_from_options(options)
    except ConfigError:  # any other mistake is one again
        setattr(options, "setting:chunks", 1)
        return config_from_options(options)


def warnings(found: Plan, shown: pd.DataFrame) -> Iterator[str]:
    """Yield what to know of errors before training a choice."""
    beyond = f"errors above {found.limits.error:g} of the variance"
    if found.limits.unequal < math.inf and shown["unequal_gain"].notna().any():
        beyond += f" or unequal gains above {found.limits.unequal:g}"
    if not found.limits.allow(found.best):
        yield (
            f"no choice is without {beyond}, so training may collapse; "
            "ask for other --compressors, or recommend any with --max-error inf"
        )
    elif COARSE in readable(shown, found.limits).to_string():
        yield f"{COARSE} {beyond} are not recommended, training may collapse; --max-error inf recommends them too"


def title(config: RunConfig) -> str:
    """Return what was planned, in words."""
    return f"{config.model}, {config.task} ({config.data}), {input_text(config)}, batches of {config.batch_size}"


def readable(table: pd.DataFrame, limits: Limits) -> pd.DataFrame:
    """Return a plan's table with units for people: milliseconds, kilobytes (10^3 bytes), and large losses marked.

    Unequal gains are there for text, whose tokens have them.
    """

    def losses(name: str, most: float) -> list[str]:
        texts = zip(_rounded(table[name], 2), table[name], strict=True)
        return [f"{text} {COARSE if value > most else ' '}" for text, value in texts]

    gains = {"unequal gain": losses("unequal_gain", limits.unequal)} if table["unequal_gain"].notna().any() else {}
    return pd.DataFrame(
        {
            "partition": table["partition"],
            "cuts": table["cuts"],
            "compressor": table["compressor"],
            "chunks": table["chunks"],
            "ms/batch": _rounded(1e3 * table["predicted_s"]),
            "client ms": _rounded(1e3 * table["client_compute_s"]),
            "server ms": _rounded(1e3 * table["server_compute_s"]),
            "client MACs": [f"{share:.0%}" for share in table["client_share"]],
            "kB/batch": _rounded(table["wire_bytes"] / 1e3),
            "ratio": _rounded(table["compression_ratio"]),
            "act. error": losses("activation_error", limits.error),
            "grad. error": losses("gradient_error", limits.error),
            **gains,
        }
    )


def _rounded(values: pd.Series, digits: int = 3) -> list[str]:
    """Return numbers to a few significant digits, whole ones above a thousand."""
    return [f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}" for value in values]


def as_json(found: Plan, table: pd.DataFrame) -> str:
    """Return a plan for other programs."""
    link: dict[str, Any] = {
        "rate_mbit": found.link.rate_mbit or None,
        "latency_ms": found.link.latency_ms,
    }
    values = {
        "link": link,
        "assumptions": found.assumptions,
        "limits": {name: limit if limit < math.inf else None for name, limit in asdict(found.limits).items()},
        "best": {"config": found.best.config.to_dict(), "command": found.command()},
        "choices": table.astype(object).where(table.notna(), None).to_dict(orient="records"),
    }
    return json.dumps(values, indent=1, allow_nan=False) + "\n"


PLAN = Command(
    name="plan",
    summary="find the fastest split for a link",
    description="""\
Rank partition x compressor x micro-batches by predicted time per batch over a link.

Layers and compressors are measured on this machine, on the task's data, once: asking again, also for another link,
takes a second. Nothing is trained. The last line is the command that trains the best choice: the fastest whose error is
tolerable, as with a larger one training may collapse.
""",
    examples="""\
examples:
  python -m splitlib plan --task cifar10 --link 50Mbit --latency 10ms
  python -m splitlib plan --model mobilenet_v2 --image-size 96 --link 50Mbit --latency 10ms --max-error 0.01
  python -m splitlib plan --task cola --link 1Gbit --cuts named --compressors none uniform:bits=8 --chunks 1 4
  python -m splitlib plan --task cola --link 5Mbit --compressors none \\
      uniform:bits=8 sort:level_bits=0,bin_bits=4,edges=least_error,codes=context
  python -m splitlib plan --task cifar10 --link 20Mbit --client-speed 0.1 --max-client-share 0.2 --csv plan.csv
""",
    add_options=add_plan_options,
    run=run_plan,
)
