"""What the playground measures on this machine, each thing once: tensors at the cuts, stage times, encodings.

Tensors depend on model, partition and data; stage times on the micro-batches too; encodings on the codec.
Each is kept under a key of just that, so that moving a control measures no more than it changes.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splitlib.capture import tensors_of_batch
from splitlib.compressors import Payload, after, decode, others_before, relative_error
from splitlib.compressors.per_cut import make_compressors
from splitlib.config import RunConfig
from splitlib.errors import ConfigError
from splitlib.experiment import prepare
from splitlib.measuring.stages import time_stages
from splitlib.pipeline.predict import Work
from splitlib.planner.codecs import tokens_gain
from splitlib.runtime import hardware, pick_device
from splitlib.training import Trainer

PROBES = 3  # models kept with their tensors
TIMED_BATCHES = 3
KEPT_BYTES = 256 << 20  # of payloads
KEPT_NAMES = 64
Report = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A compressor by name and options, as a key."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any]) -> Codec:
        """Return the key of a compressor and its options."""
        return cls(name=name, options=tuple(sorted(options.items())))

    def __str__(self) -> str:
        """Name and sizes in words, such as ``sort 6+2, cube_root``."""
        left = dict(self.options)
        sizes = [f"{left.pop('level_bits')}+{left.pop('bin_bits')}"] if {"level_bits", "bin_bits"} <= set(left) else []
        sizes += [str(left.pop(name)) for name in ("bits", "dtype") if name in left]
        named = [str(left.pop("edges"))] if "edges" in left else []
        named += [f"{name} {value}" for name, value in left.items()]
        return ", ".join([" ".join([self.name.replace("_", " "), *sizes]), *named])


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One batch at the cuts of a model before its first step."""

    trainer: Trainer
    tensors: Mapping[str, Tensor]
    """``activation 1``, ``gradient 1`` and so on, of the whole batch."""
    inputs: tuple[Tensor, ...]
    label: str
    """Which data, in words."""
    hardware: str


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One batch's tensor through one codec, micro-batch by micro-batch."""

    payloads: tuple[Payload, ...]
    nbytes: int
    """Of all payloads, headers included."""
    whole: int
    """Bytes of the tensor itself."""
    error: float
    """Squared error over the variance."""
    unequal: float | None
    """How unequally a text's tokens arrive; None of images."""
    encode: float
    """Median seconds of one micro-batch, measured."""
    decode: float

    @property
    def ratio(self) -> float:
        """Bytes sent over uncompressed bytes."""
        return self.nbytes / max(self.whole, 1)

    def decoded(self) -> Tensor:
        """Return the whole batch as it arrives."""
        return torch.cat([decode(payload) for payload in self.payloads])


class Bench:
    """Measures, and remembers. ``counts`` says how often each thing was really done."""

    def __init__(self, *, hub: Path | None = None, device: str = "auto") -> None:
        self.hub, self.device = hub, device
        self.report: Report = lambda text, share: None
        self.counts: Counter[str] = Counter()
        self._names: dict[int, tuple[RunConfig, RunConfig, str]] = {}
        self._probes: OrderedDict[tuple[str, str], Probe] = OrderedDict()
        self._works: dict[tuple[str, str, int], Work] = {}
        self._encoded: OrderedDict[tuple[str, str, int, str, Codec], Encoded] = OrderedDict()

    def probe(self, config: RunConfig) -> Probe:
        """Return the tensors at the cuts of ``config``, whatever its compressors and micro-batches."""
        plain, name = self._plain(config)
        if plain.partition == "none":
            raise ConfigError("partition 'none' has no cut to look at; choose another partition")
        if plain.cut_count != 2:
            raise ConfigError(f"cuts {plain.cuts!r} make {plain.cut_count + 1} stages; client head, server body and "
                              "client tail need two cuts, such as '3,10'")  # fmt: skip
        key = (str(self.hub), name)
        if key not in self._probes:
            self.report("measuring: model, data and the tensors at the cuts", 0.1)
            self.counts["probes"] += 1
            device = pick_device(self.device)
            trainer = prepare(plain, self.hub, device)
            inputs, labels = next(iter(trainer.rest_of_epoch()))
            found = tensors_of_batch(trainer, inputs, labels)
            tensors = {name: x.float().cpu() for name, x in found.items()}
            self._probes[key] = Probe(
                trainer=trainer, tensors=tensors, inputs=inputs, label=trainer.data.label, hardware=hardware(device)
            )
            while len(self._probes) > PROBES:
                self._forget(next(iter(self._probes)))
        self._probes.move_to_end(key)
        return self._probes[key]

    def stage_times(self, config: RunConfig) -> Work:
        """Return the measured times of the passes of one micro-batch; the messages are those without compression."""
        probe = self.probe(config)
        plain, name = self._plain(config)
        key = (str(self.hub), name, config.chunks)
        if key not in self._works:
            self.report("measuring: time of each stage", 0.4)
            self.counts["timings"] += 1
            trainer = Trainer(probe.trainer.engine, probe.trainer.data, plain.replace(chunks=config.chunks))
            self._works[key] = time_stages(trainer, batches=TIMED_BATCHES, warmup=1)
        return self._works[key]

    def encoded(self, config: RunConfig, name: str, codec: Codec) -> Encoded:
        """Return the tensor ``name`` of ``config``'s batch through ``codec``, in ``config.chunks`` micro-batches.

        Raises:
            ConfigError: an option is impossible.
        """
        x = self.probe(config).tensors[name]
        key = (str(self.hub), self._plain(config)[1], config.chunks, name, codec)
        if key not in self._encoded:
            self.report(f"measuring: {codec} on {name}", 0.6)
            self.counts["encodes"] += 1
            self._encoded[key] = _encode(codec, int(name[-1]), x.chunk(config.chunks))
            while sum(e.nbytes for e in self._encoded.values()) > KEPT_BYTES and len(self._encoded) > 1:
                self._encoded.popitem(last=False)
        self._encoded.move_to_end(key)
        return self._encoded[key]

    def _plain(self, config: RunConfig) -> tuple[RunConfig, str]:
        """Return :func:`plain_config` and its key, which take milliseconds, and are asked for all the time."""
        if id(config) not in self._names:
            if len(self._names) > KEPT_NAMES:
                self._names.clear()
            plain = plain_config(config)
            self._names[id(config)] = config, plain, plain.key  # holding the config keeps its id its own
        return self._names[id(config)][1:]

    def _forget(self, key: tuple[str, str]) -> None:
        del self._probes[key]
        for old in [k for k in self._encoded if k[:2] == key]:
            del self._encoded[old]
        for other in [k for k in self._works if k[:2] == key]:
            del self._works[other]


def plain_config(config: RunConfig) -> RunConfig:
    """Return ``config`` without what the tensors at its cuts do not depend on."""
    return config.uncompressed(chunks=1, epochs=1)


def rank_note(codec: Codec, name: str, x: Tensor) -> str:
    """Return in words that the rank is more than a sample's matrix has, or nothing.

    The codec then takes the highest there is, and sends more bytes than the tensor has.
    """
    if codec.name != "power_iteration" or x.ndim < 3:
        return ""
    given = str(dict(codec.options).get("rank", 16)).split(",")
    rank = int(given[min(int(name[-1]) - 1, len(given) - 1)])
    rows, columns = x.shape[1], x[0].numel() // max(x.shape[1], 1)
    if rank <= min(rows, columns):
        return ""
    return (f"Rank {rank} is more than {name} has: each of its samples is a {rows} x {columns} matrix of at most "
            f"{min(rows, columns)} ranks, so rank {min(rows, columns)} is sent, in more bytes than the tensor itself; "
            f"lower the rank at cut {name[-1]}, or choose another cut or compressor.")  # fmt: skip


def _encode(codec: Codec, cut: int, chunks: tuple[Tensor, ...]) -> Encoded:
    """Send every micro-batch there and back, after one that does not count: it compiles the loops.

    A compressor that learns has learnt from the micro-batches before, those of the batch's end before the first, and
    never from the one it is measured on. Of a batch in one piece there are no others: there it starts from nothing.
    """
    compressor = make_compressors(codec.name, dict(codec.options))[cut - 1]
    decode(copy.copy(compressor).encode(chunks[0]))
    payloads, times, arrived = [], [], []
    for number, x in enumerate(chunks):
        learnt = after(compressor, others_before(chunks, number))
        start = time.perf_counter()
        payload = learnt.encode(x)
        middle = time.perf_counter()
        back = decode(payload)
        times.append((middle - start, time.perf_counter() - middle))
        payloads.append(payload)
        arrived.append(back)
    whole, came = torch.cat(chunks), torch.cat(arrived)
    return Encoded(
        payloads=tuple(payloads),
        nbytes=sum(payload.nbytes for payload in payloads),
        whole=whole.numel() * whole.element_size(),
        error=relative_error(whole, came),
        unequal=tokens_gain(whole, came),
        encode=statistics.median(t[0] for t in times),
        decode=statistics.median(t[1] for t in times),
    )
