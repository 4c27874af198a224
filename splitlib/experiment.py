"""From a config to its record: the one place that puts data, model, partition, compressors and training together."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from splitlib import results
from splitlib.config import TWO_SIDED, RunConfig, run_title
from splitlib.data import TaskData, load_task, resolve_hub
from splitlib.errors import ConfigError
from splitlib.files import check_writable
from splitlib.pipeline.channel import Coding
from splitlib.pipeline.data_parallel import DataParallel, Group, in_group, joined, replica_devices
from splitlib.pipeline.engine import Engine
from splitlib.pipeline.inprocess import build_pipeline, check_precision
from splitlib.pipeline.parts import configured_insert, make_codecs, make_parts
from splitlib.pipeline.processes import run_together
from splitlib.pipeline.remote.client import Line, RemotePipeline
from splitlib.pipeline.remote.handshake import read_secret
from splitlib.pipeline.remote.link import Link
from splitlib.pipeline.remote.network import dial, parse_address
from splitlib.pipeline.remote.simulated import SimulatedServer
from splitlib.progress import Progress
from splitlib.results import RunRecord
from splitlib.runtime import checkpoints_dir, pick_device, pick_devices, provenance, results_dir
from splitlib.tally import check_may_measure, note_record, only_records
from splitlib.training import Trainer

Server = str | Callable[[], Line] | None


def run(
    config: RunConfig,
    *,
    hub: Path | None = None,
    device: str = "auto",
    fresh: bool = False,
    workers: int = 0,
    server: Server = None,
    link: Link | None = None,
    progress: Callable[[str, int, int], Progress] = Progress,
    checkpoints: Path | None = None,
) -> RunRecord:
    """Return the record of ``config``: the one on disk, or a new one after training.

    An interrupted run goes on from its checkpoint, one with ``fresh`` also where an older record lies: until it ends,
    that record stays. Nothing is written before every setting has been checked and the data and model are loaded.

    Args:
        config: what to run.
        hub: a local mirror of the hub (default: ``$SPLITLIB_HUB``, else the hub itself).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, where all stages run; or one for each, such as
            ``cpu,cuda:0,cpu``. A side of two has one.
        fresh: train although a record exists, and start over although a checkpoint does. Stopped, it goes on without.
        workers: processes that load and augment images; results do not depend on it.
        server: for engine two_machines: ``host:port`` of the server, with ``$SPLITLIB_SECRET`` as the shared secret,
            or whatever :func:`splitlib.pipeline.remote.launch.local_server` yields.
        link: between client and server, shaped in process; by default it is as fast as it is.
        progress: makes what shows the progress, and may stop the run, from title, steps, and steps done before.
            Engine data_parallel does not call it: its first replica shows the progress itself.
        checkpoints: folder of this process's checkpoint (default: that of all runs); replicas keep to the default.

    Raises:
        SplitlibError: a setting is impossible, data or weights are missing, or a record is damaged.
        KeyboardInterrupt: Ctrl-C, after the state was saved. Replicas are ended at once, and the next call goes on from
            the checkpoint they last made: after each epoch, and once a minute.
    """
    if workers < 0:
        raise ConfigError(f"workers must be at least 0, not {workers}")
    _check_link(config, link)
    for name in device.split(","):
        pick_device(name.strip())
    if hub is not None or config.data == "real":
        resolve_hub(hub)  # a mistyped folder is an error also where there is a record
    if is_found(config, fresh=fresh, checkpoints=checkpoints):
        record = results.read_record(results.record_path(config))
        note_record(config.key, trained=False)
        return record
    check_may_measure(run_title(config))
    if config.engine == "data_parallel":
        return _run_data_parallel(config, hub, device, fresh, workers)
    devices = pick_devices(device, config.cut_count + 1)
    check_precision(config.precision, devices)
    trainer = prepare(config, hub, devices, server=server, link=link)
    return _train(trainer, devices, fresh, workers, progress, checkpoints)


def is_found(config: RunConfig, *, fresh: bool = False, checkpoints: Path | None = None) -> bool:
    """Whether :func:`run` returns the record on disk: there is one, and no stopped ``fresh`` run goes on instead."""
    if fresh or not results.record_path(config).exists():
        return False
    return only_records() or not _checkpoint_paths(config, checkpoints)[1].exists()


def _checkpoint_paths(config: RunConfig, folder: Path | None) -> tuple[Path, Path]:
    """Return where an unfinished run is kept, and where one with ``fresh`` is.

    The name tells that a record is to be replaced: another checkpoint beside a record is an old one that no run needs.
    """
    folder = folder or checkpoints_dir()
    return folder / f"{config.key}.pt", folder / f"{config.key}-fresh.pt"


def _train(
    trainer: Trainer,
    devices: Sequence[torch.device],
    fresh: bool,
    workers: int,
    show: Callable[[str, int, int], Progress] = Progress,
    checkpoints: Path | None = None,
) -> RunRecord:
    config, leads = trainer.config, trainer.engine.leads
    weights_norm = trainer.engine.weights_norm()  # of those training starts from, also where it goes on from later ones
    usual, afresh = _checkpoint_paths(config, checkpoints)
    checkpoint = afresh if fresh or afresh.exists() else usual
    _check_folders(checkpoint.parent)
    if checkpoint.exists() and not fresh:
        trainer.restore(checkpoint)
    with trainer.opened():
        if fresh:
            trainer.save(checkpoint)  # from its first step on it can be killed, and goes on without fresh
        with show(run_title(config), trainer.total_steps, trainer.steps_done) as progress:
            trainer.fit(checkpoint, progress, workers)
        record = _make_record(trainer, devices, weights_norm)
        if leads:
            results.save_record(record)
            for path in (usual, afresh):  # before another machine is told that it may forget the run, too
                path.unlink(missing_ok=True)
    if leads:
        note_record(config.key, trained=True)
    return record


def _check_folders(checkpoints: Path) -> None:
    """Raise WriteError now rather than after training, if neither record nor checkpoint could be kept."""
    check_writable(results_dir(), "$SPLITLIB_RESULTS")
    check_writable(checkpoints, "$SPLITLIB_CHECKPOINTS")


def _run_data_parallel(config: RunConfig, hub: Path | None, device: str, fresh: bool, workers: int) -> RunRecord:
    """Be one of the replicas, or start them and wait for their record."""
    devices = replica_devices(device, config.replicas)
    check_precision(config.precision, devices)
    if in_group():
        with joined(config.replicas, device) as group:
            return _train(_prepare_replica(config, hub, group), devices, fresh, workers)
    _check_folders(checkpoints_dir())
    where = {"hub": str(hub) if hub else "", "device": ",".join(map(str, devices)), "workers": workers}
    job = json.dumps({"config": config.to_dict(), "fresh": fresh, **where})
    run_together(
        ["-m", "splitlib.replica", job], config.replicas, threads=max(1, torch.get_num_threads() // len(devices))
    )
    record = results.load_record(config)
    assert record is not None, "the first replica saves the record before it ends"
    return record


def _prepare_replica(config: RunConfig, hub: Path | None, group: Group) -> Trainer:
    data = load_task(config, hub=hub, device=group.device)
    (model,) = make_parts(config, data.num_labels, hub)
    return Trainer(DataParallel(model, group, precision=config.precision, seed=config.seed), data, config)


def sweep(
    rows: Mapping[str, RunConfig],
    *,
    seeds: int = 1,
    hub: Path | None = None,
    device: str = "auto",
    fresh: bool = False,
    recorded: bool = False,
    server: Server = None,
) -> dict[str, list[RunRecord]]:
    """Run every row with ``seeds`` seeds, counted from the row's own, and return the records by the row's label.

    Rows whose records exist are not trained again, so a killed sweep goes on where it stopped. All arguments but the
    first two are those of :func:`run`; one server serves one row after the other. With ``recorded`` nothing is trained:
    a row has the records that exist, perhaps none.
    """
    if seeds < 1:
        raise ConfigError(f"seeds must be at least 1, not {seeds}")
    where: dict[str, Any] = {"hub": hub, "device": device, "fresh": fresh, "server": server}
    each = {label: [c.replace(seed=c.seed + offset) for offset in range(seeds)] for label, c in rows.items()}
    if recorded:
        return {label: list(filter(None, map(_recorded, configs))) for label, configs in each.items()}
    return {label: [run(config, **where) for config in configs] for label, configs in each.items()}


def _recorded(config: RunConfig) -> RunRecord | None:
    record = results.load_record(config)
    if record is not None:
        note_record(config.key, trained=False)
    return record


def prepare(
    config: RunConfig,
    hub: Path | None,
    device: torch.device | Sequence[torch.device],
    *,
    server: Server = None,
    link: Link | None = None,
) -> Trainer:
    """Build everything that trains, in the order config -> data -> model -> partition -> compressor -> pipeline.

    ``device`` is where all stages run, or one for each, which engines with two sides do not take. An unsplit model
    takes the first.

    Raises:
        SplitlibError: a setting is impossible, or data or weights are missing.
    """
    _check_link(config, link)
    _check_devices(config, device)
    if config.engine == "two_machines":
        _dial(server)  # a missing address, ...
    make_codecs(config), configured_insert(config)  # ... or a wrong option is found before the data is loaded
    first = device if isinstance(device, torch.device) else device[0]
    data: TaskData = load_task(config, hub=hub, device=first)
    parts = make_parts(config, data.num_labels, hub)
    devices = [first] * len(parts) if isinstance(device, torch.device) or len(parts) == 1 else device
    coding = Coding.of(config, samples=len(data.train))  # type: ignore[arg-type]  # torch's Dataset promises no length
    return Trainer(_engine(config, parts, hub, devices, server, link or Link(), coding), data, config)


def _check_link(config: RunConfig, link: Link | None) -> None:
    """Refuse a link that would shape nothing."""
    if link is not None and link.shaped and config.engine not in TWO_SIDED:
        raise ConfigError(f"engine {config.engine!r} sends nothing over a link; use {' or '.join(TWO_SIDED)}")


def _check_devices(config: RunConfig, device: torch.device | Sequence[torch.device]) -> None:
    """Refuse devices that would compute nothing: a record would name their hardware."""
    names = [device] if isinstance(device, torch.device) else list(dict.fromkeys(device))
    if config.engine in TWO_SIDED and len(names) > 1:
        words = ",".join(map(str, names))
        raise ConfigError(f"engine {config.engine!r} computes a side on one device, not on {words}; name one")


def _engine(
    config: RunConfig,
    parts: Sequence[nn.Module],
    hub: Path | None,
    devices: Sequence[torch.device],
    server: Server,
    link: Link,
    coding: Coding,
) -> Engine:
    codecs, first = make_codecs(config), devices[0]
    if config.engine in TWO_SIDED:
        connect = _dial(server) if config.engine == "two_machines" else SimulatedServer(hub=hub, device=first)
        return RemotePipeline(parts, codecs, config, device=first, dial=connect, link=link, coding=coding)
    return build_pipeline(
        parts,
        devices=devices,
        chunks=config.chunks,
        activations=codecs.activations,
        gradients=codecs.gradients,
        precision=config.precision,
        seed=config.seed,
        recompute=config.recompute,
        batch_norm=config.batch_norm,
        micro_batch_loss=config.micro_batch_loss,
        coding=coding,
    )


def _dial(server: Server) -> Callable[[], Line]:
    """Return how to connect to the server."""
    if callable(server):
        return server
    if server is None:
        raise ConfigError(
            "engine two_machines needs a server: start one with python -m splitlib server, and train with "
            "python -m splitlib client --server ADDR:PORT"
        )
    address, secret = parse_address(server), read_secret()
    return lambda: dial(address, secret)


def _make_record(trainer: Trainer, devices: Sequence[torch.device], weights_norm: float) -> RunRecord:
    state, traffic, config = trainer.state, trainer.engine.traffic, trainer.config
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
        samples_seen=state.steps_taken * config.batch_size,
        parameters=trainer.engine.parameter_count,
        weights_norm=weights_norm,
        **provenance(*devices),
    )
