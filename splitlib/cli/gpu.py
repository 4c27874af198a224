"""``gpu`` on the command line: what wants a GPU, in one go or in many, brought back in one folder."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from splitlib.cli.command import Command
from splitlib.cli.gpu_steps import (
    Study,
    TimeIsUp,
    TimeLimit,
    compressors,
    scaled_rows,
    split,
    torchgpipe,
    train,
    waiting,
)
from splitlib.cli.settings import add_hub, add_profile
from splitlib.data import load_task
from splitlib.errors import ConfigError
from splitlib.files import check_writable
from splitlib.gpu_rows import trained_rows
from splitlib.profiles import get_profile
from splitlib.runtime import hardware, pick_device, project_root

STEPS: dict[str, Callable[[Study], None]] = {
    "torchgpipe": torchgpipe,
    "compressors": compressors,
    "split": split,
    "train": train,
}
GIBIBYTE = 2**30


def add_gpu_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``gpu``."""
    add_profile(parser, default="paper", among=("paper", "smoke"))
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try it without a GPU (default cuda)")
    add_hub(parser)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME",
        help=f"some steps ({', '.join(STEPS)}) or rows to train ({'; '.join(trained_rows())})",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each row (default 1)")
    parser.add_argument("--epochs", type=int, metavar="N", help="of each run (default: the profile's, 40 or 1)")
    parser.add_argument("--minutes", type=float, metavar="N", help="stop training after so long, with all saved")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="what to bring back (default: runs/gpu)")


def run_gpu(options: argparse.Namespace) -> None:
    """Do the steps, until all are done or the time is up."""
    study, steps = _study(options)
    check_writable(study.out, "--out")
    print(_findings(study, steps), flush=True)
    try:
        for number, name in enumerate(steps, start=1):
            if study.limit.over:
                raise TimeIsUp
            print(f"\n--- {number}/{len(steps)} {name}", flush=True)
            STEPS[name](study)
    except TimeIsUp:
        print("\ntime is up; the same command goes on from here", flush=True)
    left = waiting(study) if "train" in steps else []
    print(f"runs left: {len(left)}; to bring back: {study.out}")


def _study(options: argparse.Namespace) -> tuple[Study, list[str]]:
    """Return what the options mean, and the names of the steps; raise ConfigError where they mean nothing."""
    if options.seeds < 1:
        raise ConfigError(f"seeds must be at least 1, not {options.seeds}")
    if options.epochs is not None and options.epochs < 1:
        raise ConfigError(f"epochs must be at least 1, not {options.epochs}")
    if options.minutes is not None and not options.minutes > 0:
        raise ConfigError(f"minutes must be more than 0, not {options.minutes:g}")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"--device {options.device} needs an NVIDIA GPU that torch can use, and there is none; "
            "try the steps without one: --device cpu --profile smoke"
        )
    profile = get_profile(options.profile)
    rows = scaled_rows(profile, options.epochs)
    steps, labels = _chosen(options.only, list(rows))
    limit = TimeLimit() if options.minutes is None else TimeLimit(ends=time.monotonic() + 60 * options.minutes)
    study = Study(
        profile=profile,
        device=pick_device(options.device),
        hub=options.hub,
        out=options.out or project_root() / "runs" / "gpu",
        rows={label: rows[label] for label in labels},
        seeds=options.seeds,
        epochs=options.epochs,
        limit=limit,
    )
    return study, steps


def _chosen(only: Sequence[str], labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the steps and the rows that ``--only`` names; naming rows means training, and nothing means all."""
    unknown = [name for name in only if name not in STEPS and name not in labels]
    if unknown:
        raise ConfigError(f"unknown step or row {unknown[0]!r}; choose from {'; '.join([*STEPS, *labels])}")
    rows = [label for label in labels if label in only]
    steps = [step for step in STEPS if not only or step in only or (rows and step == "train")]
    return steps, rows or list(labels)


def _findings(study: Study, steps: Sequence[str]) -> str:
    """Look at machine, data and records, prepare the images, and return what was found and what comes."""
    study.fetch()
    data = load_task(next(iter(study.rows.values())), hub=study.hub, device=study.device)
    assert data.resident is not None
    images = sum(split.images.nbytes for split in (data.resident.train, data.resident.eval))
    left, all_runs = waiting(study), sum(1 for _ in study.runs())
    begun = sum((study.checkpoints / f"{config.key}.pt").exists() for _, config in left)
    todo = f"; {len(left)} of {all_runs} runs, {begun} of them begun" if "train" in steps else ""
    lines = {
        "machine": f"{_device(study.device)}; client: {hardware(torch.device('cpu'))} of {os.cpu_count()} cores",
        "data": f"{data.label}, {images / 1e6:.1f} MB of images on {study.device}",
        "to do": ", ".join(steps) + todo,
        "folder": str(study.out),
    }
    return "\n".join(f"{name:9} {value}" for name, value in lines.items())


def _device(device: torch.device) -> str:
    if device.type == "cpu":
        return f"no GPU: {hardware(device)}"
    return f"{hardware(device)}, {torch.cuda.get_device_properties(device).total_memory / GIBIBYTE:.0f} GiB"


GPU = Command(
    name="gpu",
    summary="measure what wants a GPU, and bring it back",
    description="""\
Measure what wants a GPU, and bring it back in one folder.

  torchgpipe    are its gradients there those of the unsplit model?
  compressors   encoding and decoding beside the textbook version and plain uniform quantization
  split         time per batch, this machine's cores as client and the GPU as server (003 §1.2)
  train         CIFAR-10 in 224 px, all images, 40 epochs: a record for every row and seed

Records go to results/ and, with a table for each step and the checkpoint of an unfinished run, to the folder --out. The
same command goes on where the last one stopped; on another machine, bring the folder along.
""",
    examples="""\
examples:
  python -m splitlib gpu --hub path/to/mirror                      # everything, hours
  python -m splitlib gpu --hub path/to/mirror --minutes 25         # stop in time; again to go on
  python -m splitlib gpu --only torchgpipe "sort 4" "cube_root 4"  # steps, and rows to train
  python -m splitlib gpu --hub path/to/mirror --only train --epochs 4   # an hour or two, comparable among themselves
  python -m splitlib gpu --device cpu --profile smoke              # does it run? no GPU, embedded data
""",
    add_options=add_gpu_options,
    run=run_gpu,
)
