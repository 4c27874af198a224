"""Records of time per batch: unlike a run's, their numbers belong to a machine, and each says which.

They lie in ``results/`` beside the records of runs, under names that start with ``timing-``.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from splitlib.config import RunConfig, size_text
from splitlib.errors import RecordError
from splitlib.files import file_stem, write_text
from splitlib.measuring.spans import MEBIBYTE
from splitlib.pipeline.remote import wire
from splitlib.results import TIMING_PREFIX
from splitlib.runtime import environment, results_dir
from splitlib.tally import only_records
from splitlib.timeline import Span

FROM_CLIENT = tuple(wire.KINDS[kind] for kind in wire.FROM_CLIENT)


@dataclass(frozen=True, kw_only=True)
class BatchTiming:
    """What a batch of one config takes on one machine, or between two."""

    config: RunConfig
    devices: tuple[str, ...]
    """Of the stages, in order; one for all where there is one."""
    link: str
    """Between client and server, in words; empty where all is one process."""
    data_label: str
    together: str
    """Names what was measured in turn with this, in one go: only such times make ratios."""
    warmup: int
    """Batches run before the first that counts."""
    seconds: tuple[float, ...]
    """Each batch: gradients and optimizer step, without loading data, as the side with the labels sees it: what a
    server still does after it has sent its last gradient is not in it."""
    computation: tuple[float, ...]
    """Each batch: seconds in which at least one side computes. Empty without a timeline."""
    payload_bytes: int
    """Of one batch, all cuts, both directions, as :class:`~splitlib.pipeline.Traffic` counts them."""
    uncompressed_bytes: int
    tensor_bytes: Mapping[str, int]
    """On the wire in one batch, by tensor (``activation 1`` ...). Empty without a timeline."""
    peak_send: float = float("nan")
    """Client: the highest rate of any send, in MiB/s; NaN without a timeline."""
    peak_receive: float = float("nan")
    """Server: the highest rate of any receive, from the start of sending to that of decoding; MiB/s."""
    spans: tuple[Span, ...] = ()
    """What both sides did in the batch whose time is nearest to the median; empty without a timeline."""
    environment: Mapping[str, Any]
    splitlib_version: str
    created: str
    """UTC date and time, ISO 8601."""

    @property
    def median(self) -> float:
        """Seconds per batch."""
        return statistics.median(self.seconds)

    @property
    def middle_half(self) -> tuple[float, float]:
        """First and third quartile of the seconds per batch."""
        if len(self.seconds) < 2:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    @property
    def throughput(self) -> float:
        """Samples per second."""
        return self.config.batch_size / self.median

    @property
    def compression_ratio(self) -> float:
        """Bytes of the payloads over bytes uncompressed; 1 without a cut."""
        return self.payload_bytes / self.uncompressed_bytes if self.uncompressed_bytes else 1.0

    @property
    def computation_seconds(self) -> float:
        """Median of :attr:`computation`; NaN without a timeline."""
        return statistics.median(self.computation) if self.computation else float("nan")

    @property
    def average_bandwidth(self) -> float:
        """000 §2.2: what the client sends in a batch over the computation time, in MiB/s; NaN without a timeline."""
        sent = sum(self.tensor_bytes.get(name, 0) for name in FROM_CLIENT)
        return sent / MEBIBYTE / self.computation_seconds

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**values, "config": self.config.to_dict(), "spans": [asdict(span) for span in self.spans]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BatchTiming:
        """Rebuild a timing from :meth:`to_dict`'s output."""
        lists = {name: tuple(values[name]) for name in ("devices", "seconds", "computation")}
        spans = tuple(Span(**span) for span in values.get("spans", ()))
        return cls(**{**values, **lists, "spans": spans, "config": RunConfig.from_dict(values["config"])})

    def row(self) -> dict[str, Any]:
        """Return the timing as one flat table row: config, data, hardware, times in seconds, rates in MiB/s."""
        low, high = self.middle_half
        return {
            **self.config.to_dict(),
            "data_label": self.data_label,
            "size_text": f"{size_text(self.config, trained=False)}, median of {len(self.seconds)}",
            "hardware": self.environment["hardware"],
            "devices": " | ".join(self.devices),
            "link": self.link,
            "time_per_batch_s": self.median,
            "first_quartile_s": low,
            "third_quartile_s": high,
            "batches": len(self.seconds),
            "throughput_per_s": self.throughput,
            "compression_ratio": self.compression_ratio,
            "computation_time_s": self.computation_seconds,
            "bandwidth_avg_mb_s": self.average_bandwidth,
            "bandwidth_peak_client_mb_s": self.peak_send,
            "bandwidth_peak_server_mb_s": self.peak_receive,
        }


def timing_path(config: RunConfig, devices: Sequence[str], of: Any = "", *, kind: str = "") -> Path:
    """Return where the timing of ``config`` on these devices lies, whether it exists or not.

    ``of`` is what else tells it from others, as plain JSON values: a batch's link, in words. ``kind`` begins the name
    of what is no :class:`BatchTiming`.
    """
    words = [config.task, config.data, config.model_name, str(config.partition), config.compressor]
    key = hashlib.sha256(json.dumps([config.key, list(devices), of], sort_keys=True).encode()).hexdigest()[:12]
    return results_dir() / f"{TIMING_PREFIX}{file_stem(filter(None, [kind, *words]))}-{key}.json"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise RecordError with the remedy for whatever in the block shows that the file is damaged."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecordError(
            f"{path} is not a readable timing ({error}); delete it, or measure again with fresh"
        ) from error


def read_timing(path: Path) -> BatchTiming:
    """Read one timing; raise RecordError with the remedy if it is damaged."""
    with readable(path):
        return BatchTiming.from_dict(json.loads(path.read_text(encoding="utf-8")))


def save_timing(timing: BatchTiming) -> Path:
    """Write a timing, whole or not at all, and return its path."""
    path = timing_path(timing.config, timing.devices, timing.link)
    write_text(path, json.dumps(timing.to_dict(), indent=1, allow_nan=True) + "\n")
    return path


def counts_here(made_on: Mapping[str, Any], devices: Sequence[str]) -> bool:
    """Whether a kept time counts: it was ``made_on`` this hardware, or only records are shown."""
    return only_records() or made_on["hardware"] == environment(*map(torch.device, devices))["hardware"]


def load_recorded(configs: Mapping[str, RunConfig], devices: Sequence[str]) -> dict[str, BatchTiming]:
    """Return the timings of those of ``configs`` that have one, by label; each says what it was measured with."""
    paths = {label: timing_path(config, devices) for label, config in configs.items()}
    return {label: read_timing(path) for label, path in paths.items() if path.exists()}


def load_together(
    configs: Sequence[RunConfig], devices: Sequence[str], link: str = "", batches: int = 1
) -> list[BatchTiming] | None:
    """Return the timings of ``configs``, if all are on disk, were measured in one go, and count enough ``batches``."""
    paths = [timing_path(config, devices, link) for config in configs]
    if not all(path.exists() for path in paths):
        return None
    found = [read_timing(path) for path in paths]
    in_one_go = len({timing.together for timing in found}) == 1
    return found if in_one_go and all(len(timing.seconds) >= batches for timing in found) else None
