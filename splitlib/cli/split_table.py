"""The committed times of a CPU as client and a GPU as server, beside the document's, as a table for the README."""

from __future__ import annotations

from splitlib import reported
from splitlib.config import RunConfig
from splitlib.gpu_rows import timed_rows
from splitlib.measuring.records import BatchTiming, load_together
from splitlib.profiles import get_profile

DEVICES = ("cpu", "cuda", "cpu")
_HEADS = ["row", "bytes sent / uncompressed", "batch [s], median (middle half)", "over none", "reported over none"]


def split_text() -> str:
    """Return the table of 003 §1.2's rows in the paper's size; nothing where they were not measured in one go."""
    rows = timed_rows()
    paper = get_profile("paper")
    found = load_together([paper.scale(config) for config in rows.values()], DEVICES)
    if found is None:
        return ""
    told = {label: reported_seconds(config) for label, config in rows.items()}
    plain, plain_told = found[0].median, told["none"]
    lines = [
        f"| {label} | {timing.compression_ratio:.3f} | {_seconds(timing)} | {timing.median / plain:.2f} "
        f"| {told[label] / plain_told:.2f} |"
        for label, timing in zip(rows, found, strict=True)
    ]
    return "\n".join([_title(found[0]), "", f"| {' | '.join(_HEADS)} |", "|---" * len(_HEADS) + "|", *lines])


def reported_seconds(config: RunConfig) -> float:
    """Return the seconds a batch takes in the first row of 003 §1.2 with this cut and codec, CPU and GPU.

    >>> [reported_seconds(config) for config in timed_rows().values()]
    [0.33, 1.53, 1.21, 0.37, 0.36, 0.41, 0.36]
    """
    table = reported.load("003_1.2_cifar10").query("client_hardware == 'CPU' and server_hardware == 'GPU'")
    table = table[table["partition"] == config.partition]
    if not str(config.partition).startswith("conv_insert"):  # the document calls those a compressor
        table = table[table["compressor"] == config.compressor]
    return float(table["time_per_batch_s"].iloc[0])


def _title(timing: BatchTiming) -> str:
    told = reported.load("003_intro_hardware").iloc[0]
    config, reporters = timing.config, f"{told['client_hardware']} and {told['server_hardware']}"
    return (
        f"**{timing.data_label}**, {config.model}, {config.image_size} px, batches of {config.batch_size} in "
        f"{config.chunks} micro-batches. Measured in turn, {len(timing.seconds)} batches a row, on "
        f"{timing.environment['hardware']}. Reported (003 §1.2): {reporters}."
    )


def _seconds(timing: BatchTiming) -> str:
    low, high = timing.middle_half
    return f"{timing.median:.3f} ({low:.3f}–{high:.3f})"
