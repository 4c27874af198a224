"""From a config to its record: the one place that puts data, model, partition, compressors and training together."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

import torch

from splitlib import results
from splitlib.compressors import make_compressors
from splitlib.config import DEFAULT_MAX_LENGTH, RunConfig, Scalar
from splitlib.data import TaskData, load_task
from splitlib.models import build_model
from splitlib.models.inserted import make_insert
from splitlib.partition import split
from splitlib.pipeline.inprocess import build_pipeline, check_precision
from splitlib.progress import Progress
from splitlib.results import RunRecord
from splitlib.runtime import checkpoints_dir, environment, pick_device, seed_everything
from splitlib.tally import note_record
from splitlib.training import Trainer
from splitlib.version import __version__


def run(
    config: RunConfig, *, hub: Path | None = None, device: str = "auto", fresh: bool = False, workers: int = 0
) -> RunRecord:
    """Return the record of ``config``: the one on disk, or a new one after training.

    An interrupted run goes on from its checkpoint. Nothing is written before every setting has been checked and the
    data and model are loaded.

    Args:
        config: what to run.
        hub: a local mirror of the hub (default: ``$SPLITLIB_HUB``, else the hub itself).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; all stages run there.
        fresh: train although a record exists, and start over although a checkpoint does.
        workers: processes that load and augment images; results do not depend on it.

    Raises:
        SplitlibError: a setting is impossible, data or weights are missing, or a record is damaged.
        KeyboardInterrupt: Ctrl-C, after the state was saved.
    """
    if not fresh:
        record = results.load_record(config)
        if record is not None:
            note_record(config.key, trained=False)
            return record
    target = pick_device(device)
    check_precision(config.precision, [target])
    trainer = prepare(config, hub, target)
    checkpoint = checkpoints_dir() / f"{config.key}.pt"
    if fresh:
        checkpoint.unlink(missing_ok=True)
    if checkpoint.exists():
        trainer.restore(checkpoint)
    total = config.epochs * trainer.steps_per_epoch
    with Progress(run_title(config), total, done=trainer.steps_done) as progress:
        trainer.fit(checkpoint, progress, workers)
    record = _make_record(trainer, target)
    results.save_record(record)
    checkpoint.unlink(missing_ok=True)
    note_record(config.key, trained=True)
    return record


def run_title(config: RunConfig) -> str:
    """Return a short name for progress lines: task, data, model, partition, what is at the cuts, seed."""
    at_cut = [_with_options(config.compressor, config.compressor_options)]
    if config.insert != "none":
        at_cut.insert(0, _with_options(config.insert, config.insert_options))
    cut = "unsplit" if config.partition == "none" else ", ".join([str(config.partition), *at_cut])
    return f"{config.task} ({config.data}), {str(config.model).rsplit('/', 1)[-1]}, {cut}, seed {config.seed}"


def _with_options(name: str, options: Mapping[str, Scalar]) -> str:
    words = ", ".join(f"{option} {value}" for option, value in options.items())
    return f"{name} ({words})" if words else name


def sweep(
    rows: Mapping[str, RunConfig], *, seeds: int = 1, hub: Path | None = None, device: str = "auto", fresh: bool = False
) -> dict[str, list[RunRecord]]:
    """Run every row with ``seeds`` seeds, counted from the row's own, and return the records by the row's label.

    Rows whose records exist are not trained again, so a killed sweep goes on where it stopped.
    """
    return {
        label: [
            run(config.replace(seed=config.seed + offset), hub=hub, device=device, fresh=fresh)
            for offset in range(seeds)
        ]
        for label, config in rows.items()
    }


def prepare(config: RunConfig, hub: Path | None, device: torch.device) -> Trainer:
    """Build everything that trains, in the order config -> data -> model -> partition -> compressor -> pipeline.

    Raises:
        SplitlibError: a setting is impossible, or data or weights are missing.
    """
    activations = make_compressors(config.compressor, config.compressor_options)
    gradient_name, gradient_options = config.effective_gradient_compressor
    gradients = make_compressors(gradient_name, gradient_options)
    insert = make_insert(config.insert, **config.insert_options) if config.insert != "none" else None
    data: TaskData = load_task(config, hub=hub)
    seed_everything(config.seed)
    model = build_model(config, num_labels=data.num_labels, hub=hub)
    length = config.max_length or DEFAULT_MAX_LENGTH
    stages = split(model, str(config.partition), insert=insert, max_length=length)
    cuts = len(stages.parts) - 1  # none where the model is not split
    pipeline = build_pipeline(
        stages.parts,
        devices=[device] * len(stages.parts),
        chunks=config.chunks,
        activations=activations[:cuts],
        gradients=gradients[:cuts],
        precision=config.precision,
    )
    return Trainer(pipeline, data, config)


def _make_record(trainer: Trainer, device: torch.device) -> RunRecord:
    state, traffic, config = trainer.state, trainer.pipeline.traffic, trainer.config
    steps = trainer.steps_per_epoch * state.epoch
    return RunRecord(
        config=config,
        data_label=trainer.data.label,
        data_fingerprint=trainer.data.fingerprint,
        metric=trainer.data.metric,
        history=tuple(state.history),
        diverged=state.diverged,
        activation_bytes=traffic.activation_bytes,
        gradient_bytes=traffic.gradient_bytes,
        uncompressed_bytes=traffic.uncompressed_bytes,
        train_seconds=state.train_seconds,
        samples_seen=steps * config.batch_size,
        parameters=sum(p.numel() for p in trainer.pipeline.parameters()),
        environment=environment(device),
        splitlib_version=__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
