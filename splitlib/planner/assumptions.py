"""What a plan takes for granted, in words: it stands beside every ranking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from splitlib.config import RunConfig
from splitlib.pipeline.remote.link import Link
from splitlib.planner.choices import Side


def assumptions(
    config: RunConfig,
    link: Link,
    client: Side,
    server: Side,
    sizes: Mapping[int, int],
    compared: int,
    ranked: int,
    measured: Path | None,
) -> Iterator[str]:
    """Yield what the ranking takes for granted, a line each.

    Args:
        config: what all choices share.
        link: what they are ranked for.
        client: whose device's times stand for the client.
        server: the same of the server.
        sizes: samples in a micro-batch by number of micro-batches.
        compared: how many choices there were.
        ranked: how many of them are kept.
        measured: the file that was given instead of measuring.
    """
    repeats = min(client.costs.times(size).repeats for size in sizes.values())
    source = f"taken from {measured.name}" if measured else "measured on this machine"
    yield f"Data: {client.costs.data_label}; from the start of training, in batches of {config.batch_size}."
    for name, side in (("client", client), ("server", server)):
        speed = "" if side.speed == 1 else f", taken {side.speed:g} times as fast"
        where = side.costs.environment
        yield (
            f"The {name} computes as {where['hardware']} with torch {where['versions']['torch']} did, {source} "
            f"on {side.costs.created[:10]}{speed}."
        )
    yield (
        f"A part takes as long as its layers, each timed alone in one process: medians of {repeats} micro-batches; an "
        "optimizer's step is shared out by parameters."
    )
    rate = f"{link.rate_mbit:g} Mbit/s" if link.rate_mbit else "without limit"
    yield (
        f"The link is {rate}, {link.latency_ms:g} ms, full duplex, and carries one message after the other in each "
        "direction; nothing else is on it."
    )
    yield (
        f"Schedule {config.schedule}; encoding and decoding run beside the computation, on cores that nothing else "
        "uses: two sides on one small machine are slower."
    )
    if any(config.batch_size % chunks for chunks in sizes):
        yield "Micro-batches are taken as equally large, also where the last one is smaller."
    yield (
        "Errors are mean squared errors over the variance, on the tensors of a model before its first step, of a "
        "micro-batch that no compressor has learnt from; what they do to the accuracy only training shows."
    )
    if config.kind == "text":
        yield (
            "Unequal gain says how unlike tokens' gradients arrive: how far the share of the median token's that does "
            "is from the share of all of them."
        )
    yield "A batch's data is at hand: loading and evaluation are not counted; whether memory suffices is not checked."
    if ranked < compared:
        yield (
            f"Of {compared} choices the {ranked} kept are each compressor's fastest; choices whose lower bound lies "
            "above these are not simulated."
        )
