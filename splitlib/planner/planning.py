"""The planner: rank partition x compressor x micro-batches by predicted time per batch for a link."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from splitlib.command import command_line
from splitlib.config import TWO_SIDED, RunConfig
from splitlib.errors import ConfigError
from splitlib.pipeline.remote.link import Link
from splitlib.planner.assumptions import assumptions
from splitlib.planner.bench import REPEATS, Wanted, measured_costs
from splitlib.planner.candidates import ALL, Compressors, Pair, chosen_chunks, chosen_compressors, chosen_pairs
from splitlib.planner.choices import Choice, Costing, Limits, Side, lower_bound
from splitlib.planner.costs import ACTIVATION, GRADIENT, Costs, read_costs
from splitlib.runtime import pick_device

KEEP = 10
_NAME_ANOTHER = "name a file that a plan kept, results/timing-plan-*.json, or none, to measure here"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Choices for one link, the fastest first, and what the ranking takes for granted."""

    choices: tuple[Choice, ...]
    link: Link
    assumptions: list[str]
    compared: int
    """How many choices there were."""
    limits: Limits
    """What is recommended is within these."""
    client: Costs
    """What the client's times come from."""
    server: Costs

    @property
    def best(self) -> Choice:
        """The fastest choice within ``limits``; where none is, the one with the least error."""
        within = next(filter(self.limits.allow, self.choices), None)
        return within or min(self.choices, key=lambda choice: choice.error)

    def table(self) -> pd.DataFrame:
        """Return one row for each choice, the fastest first: predicted seconds, bytes of a batch, errors."""
        return pd.DataFrame([self._row(choice) for choice in self.choices])

    def _row(self, choice: Choice) -> dict[str, Any]:
        work, chunks = choice.work, choice.chunks
        sides = {"activation": ("activation 1", "activation 2"), "gradient": ("gradient 1", "gradient 2")}
        return {
            "partition": choice.partition,
            "cuts": ",".join(map(str, choice.pair)),
            "compressor": choice.compressor,
            "chunks": chunks,
            "predicted_s": choice.seconds,
            "client_compute_s": work.client_compute(chunks),
            "server_compute_s": work.server_compute(chunks),
            "client_share": choice.client_share,
            "wire_bytes": choice.wire_bytes,
            "compression_ratio": choice.wire_bytes / max(choice.uncompressed_bytes, 1),
            **{f"{name}_error": max(choice.errors[each] for each in names) for name, names in sides.items()},
            "unequal_gain": choice.unequal,
        }

    def command(self, choice: Choice | None = None) -> str:
        """Return the command that trains a choice (the best one) over this link."""
        config = (choice or self.best).config
        return command_line(config, link=self.link if config.engine == "two_machines" else None)


def plan(
    config: RunConfig,
    *,
    link: Link = Link(),  # noqa: B008  # frozen
    cuts: str | Sequence[str | Pair] = ALL,
    compressors: Sequence[str] | None = None,
    chunks: Sequence[int] | None = None,
    hub: Path | None = None,
    device: str = "auto",
    fresh: bool = False,
    max_error: float | None = None,
    max_client_share: float | None = None,
    client_speed: float = 1.0,
    server_speed: float = 1.0,
    keep: int = KEEP,
    repeats: int = REPEATS,
    measured: Path | None = None,
) -> Plan:
    """Return the fastest ways to train ``config``'s model over ``link``, by predicted time per batch.

    Times of layers, tensors at the cuts, and what compressors make of them are measured here once and kept
    (:mod:`splitlib.planner.costs`); asked again, also for another link, nothing is measured.

    Args:
        config: model, data and training. Its partition and compressor need not be among the choices.
        link: between client and server; by default one that costs no time.
        cuts: ``all`` pairs of cuts, the ``named`` partitions, or some: ``"first_last"``, ``"3,10"``, ``(3, 10)``.
        compressors: as :mod:`splitlib.planner.candidates` writes them (default: a usual selection and the config's).
        chunks: numbers of micro-batches (default: 1, 2, 4, 8 and the config's).
        hub: a local mirror of the hub.
        device: ``auto``, ``cpu``, ``cuda:N``: where both sides run; or ``cpu,cuda`` for client and server.
        fresh: measure again.
        max_error: leave out choices with a larger error (mean squared over variance) at any cut; None leaves out none,
            and recommends what is within :class:`~splitlib.planner.choices.Limits`.
        max_client_share: leave out cuts that give the client a larger share of the MACs.
        client_speed: how many times as fast as this machine the client is.
        server_speed: the same of the server.
        keep: how many choices of each compressor to return; 0: all of them.
        repeats: micro-batches in each median.
        measured: a file of costs from this or another machine, instead of measuring.

    Raises:
        SplitlibError: a setting is impossible, nothing is left to choose from, or data or weights are missing.
    """
    base = _two_sided(config)
    sizes, codecs = chosen_chunks(base, chunks), chosen_compressors(base, compressors)
    speeds = {"client_speed": client_speed, "server_speed": server_speed}
    _check(speeds, keep=keep, repeats=repeats, max_error=max_error, max_client_share=max_client_share)

    def wanted(costs: Costs) -> list[Wanted]:
        return _wanted(chosen_pairs(costs, cuts), codecs, set(sizes.values()))

    def costs_on(place: torch.device) -> Costs:
        return measured_costs(
            config, sizes=set(sizes.values()), wanted=wanted, hub=hub, device=place, fresh=fresh, repeats=repeats
        )

    devices = [] if measured else list(dict.fromkeys(_client_and_server(device)))
    found = [read_costs(measured, config, remedy=_NAME_ANOTHER)] if measured else [costs_on(place) for place in devices]
    client, server = Side(costs=found[0], speed=client_speed), Side(costs=found[-1], speed=server_speed)
    costing, pairs = Costing(base, client, server), chosen_pairs(client.costs, cuts)
    choices = [
        costing.choice(pair, name, compressor, number, size)
        for pair, name in pairs.items()
        for compressor in codecs
        for number, size in sizes.items()
    ]
    allowed = _allowed(choices, max_error, max_client_share)
    limits = Limits() if max_error is None else Limits(error=max_error, unequal=math.inf)
    sound = [choice for choice in allowed if limits.allow(choice)]
    coarse = [choice for choice in allowed if not limits.allow(choice)]
    kept = (*_fastest(sound, link, keep), *_fastest(coarse, link, keep))  # apart: faster ones would crowd out the best
    ranked = sorted(kept, key=lambda choice: choice.seconds)
    return Plan(
        choices=tuple(ranked),
        link=link,
        assumptions=list(assumptions(base, link, client, server, sizes, len(allowed), len(ranked), measured)),
        compared=len(allowed),
        limits=limits,
        client=client.costs,
        server=server.costs,
    )


def _check(speeds: Mapping[str, float], **numbers: float | None) -> None:
    """Refuse a speed that is none, and other numbers that are too small or none; None sets no limit."""
    for name, speed in speeds.items():
        if not 0 < speed < math.inf:
            raise ConfigError(f"{name} must be a positive number, not {speed:g}")
    for name, number in numbers.items():
        least = 1 if name == "repeats" else 0
        if number is not None and not number >= least:
            raise ConfigError(f"{name} must be at least {least}, not {number}")


def _two_sided(config: RunConfig) -> RunConfig:
    """Return ``config`` as client and server run it, cut anywhere and with nothing compressed."""
    if config.insert != "none" or str(config.partition).startswith("conv_insert"):
        inserted = config.insert if config.insert != "none" else config.partition
        raise ConfigError(f"the planner compares plain cuts; {inserted!r} inserts layers: use insert 'none' and cuts")
    for name, plain in {"padding": "sent", "coding": "tensor", "error_feedback": "none"}.items():
        if getattr(config, name) != plain:
            raise ConfigError(
                f"the planner counts whole tensors, each by itself: use {name} {plain!r}, not {getattr(config, name)!r}"
            )
    engine = config.engine if config.engine in TWO_SIDED else "two_machines"
    partition = {"partition": "custom", "cuts": "1,2", "stages": 3} if config.cut_count != 2 else {}
    return config.replace(engine=engine, **partition)


def _allowed(choices: Sequence[Choice], max_error: float | None, max_client_share: float | None) -> list[Choice]:
    """Return the choices within both limits; ConfigError with what would do if there are none."""
    for name, limit in (("error", max_error), ("client_share", max_client_share)):
        within = [choice for choice in choices if limit is None or getattr(choice, name) <= limit]
        if not within:
            least = min(getattr(choice, name) for choice in choices)
            raise ConfigError(f"no choice is within max_{name} {limit:g}; the least is {least:.2g}: allow more")
        choices = within
    return list(choices)


def _client_and_server(device: str) -> list[torch.device]:
    """Return both sides' devices: of one name, of the client's and the server's, or of one a stage."""
    names = [name.strip() for name in device.split(",")]
    if len(names) == 3 and names[0] == names[2]:
        names = names[:2]
    if len(names) > 2:
        raise ConfigError(f"device {device!r} names {len(names)}; give one, or the client's and the server's")
    devices = [pick_device(name) for name in names]
    return devices if len(devices) == 2 else devices * 2


def _wanted(pairs: Iterable[Pair], codecs: Sequence[Compressors], sizes: Iterable[int]) -> list[Wanted]:
    """Return every compressor that some choice has at some cut, once."""
    found: dict[Wanted, None] = {}
    for each, pair, size in product(codecs, pairs, sizes):
        for cut, activation, gradient in zip(pair, each.activations, each.gradients, strict=True):
            found[Wanted(size, ACTIVATION, cut, activation)] = None
            found[Wanted(size, GRADIENT, cut, gradient)] = None
    return list(found)


def _fastest(choices: Sequence[Choice], link: Link, keep: int) -> Iterator[Choice]:
    """Yield the ``keep`` fastest choices of each compressor with their times; a bound spares simulating the others."""
    by_compressor: dict[str, list[tuple[float, Choice]]] = {}
    for choice in choices:
        bound = lower_bound(choice.work, choice.chunks, link)
        by_compressor.setdefault(choice.compressor, []).append((bound, choice))
    for bounded in by_compressor.values():
        kept: list[Choice] = []
        for bound, choice in sorted(bounded, key=lambda pair: pair[0]):
            if keep and len(kept) >= keep and bound > kept[keep - 1].seconds:
                break
            kept.append(replace(choice, seconds=choice.predict(link).seconds))
            kept.sort(key=lambda each: each.seconds)
        yield from kept[: keep or None]
