"""Time per batch of the pipelines beside what no schedule could beat, and what is sent beside what gloo alone sends.

``python -m benchmarks.pipelines`` prints the tables; ``--write`` puts them into benchmarks/README.md. Everything is
measured in one run, each time the median of several batches after a warm-up. Client and server share this machine.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.exchange import BARE, FRAMED, Exchange
from benchmarks.measuring import machine, spread, write_section
from benchmarks.namespaces import ADDRESSES, missing, two_namespaces
from splitlib.config import SCHEDULES, RunConfig
from splitlib.experiment import prepare
from splitlib.measuring.records import FROM_CLIENT
from splitlib.measuring.stages import time_stages
from splitlib.models.build import build_model
from splitlib.optimization import make_optimizer
from splitlib.pipeline.predict import Prediction, Work, predict
from splitlib.pipeline.remote.launch import Dial, local_server
from splitlib.pipeline.remote.link import Link
from splitlib.timeline import CLIENT, DECODE, SEND, SERVER, Span
from splitlib.training import Trainer

CPU = torch.device("cpu")
RATES = (20, 50, 200, 1000)
CODECS = {"none": "none", "8-bit": "uniform"}
GOALS = {"ideal": 1.10, "gain": 3.6, "goodput": 0.94, "prediction": 0.10, "one_process": 1.05, "framing": 1.10}
SHAPES = ((8, 32, 112, 112), (4, 32, 32, 32), (8, 1280, 7, 7))  # MobileNetV2's cuts at 224 px, and a short message
LINKED = RunConfig(
    task="cifar10",
    model="mobilenet_v2",
    weights="random",
    image_size=224,
    train_samples=32,
    eval_samples=10,
    epochs=1000,
    batch_size=8,
    chunks=8,
    optimizer="sgd",
    lr=1e-4,
    engine="two_machines",
)
TOGETHER = LINKED.replace(image_size=96, batch_size=16, chunks=1, engine="in_process")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long to measure."""

    batches: int
    """At least, of each setting, after a warm-up."""
    seconds: float
    """Of batches of each setting, before it is enough."""


# --- Two processes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Linked:
    """One setting on a link: what was measured and what was expected."""

    rate: int
    schedule: str
    codec: str
    seconds: list[float]
    goodput: list[float]
    """Of each batch's first burst, over the line rate; see :func:`goodput`."""
    expected: Prediction
    work: Work

    @property
    def median(self) -> float:
        """Seconds per batch."""
        return statistics.median(self.seconds)

    @property
    def link_bound(self) -> bool:
        """Whether bytes, not computation, decide the ideal."""
        computation = self.work.client_compute(LINKED.chunks), self.work.server_compute(LINKED.chunks)
        return self.expected.ideal > max(computation)

    @property
    def floor(self) -> float:
        """Seconds that no order of sending can beat: one direction is idle until the first tensor has crossed.

        What the server sends needs the first activations, and the client's last gradient follows the last of it.
        """
        first, last = self.work.activation_1.nbytes, self.work.gradient_1.nbytes
        waits = Link(rate_mbit=self.rate).seconds(min(first, last))
        return self.expected.ideal + waits if self.link_bound else self.expected.ideal

    def cells(self) -> str:
        """The setting as a line of a Markdown table."""
        ideal, ratio = self.expected.ideal, self.median / self.expected.ideal
        predicted = self.expected.seconds / self.median
        cells = [
            f"{self.rate} Mbit/s",
            self.schedule,
            self.codec,
            spread(self.seconds),
            f"{1e3 * ideal:.1f} ({'bytes' if self.link_bound else 'computation'})",
            at_most(ratio, GOALS["ideal"]),
            f"{self.floor / ideal:.3f}x",
            f"{self.expected.seconds / ideal:.3f}x",
            within(predicted, GOALS["prediction"]),
        ]
        return f"| {' | '.join(cells)} |"


LINKED_HEADS = [
    "| link | schedule | codec | ms per batch | ideal ms | measured / ideal | any order / ideal "
    "| this schedule, predicted / ideal | predicted / measured |",
    "|---|---|---|---|---|---|---|---|---|",
]


def on_links(budget: Budget) -> list[Linked]:
    """Measure every rate, schedule and codec with one server process, codecs next to each other.

    What the stages take alone is measured anew for each rate: over minutes a machine's speed drifts.
    """
    configs = {name: LINKED.replace(compressor=codec) for name, codec in CODECS.items()}
    found = []
    with _one_thread(), local_server() as server:
        for rate in RATES:
            works = {name: _alone(config) for name, config in configs.items()}
            found += [
                _linked(rate, schedule, name, config, works[name], server, budget)
                for schedule, (name, config) in itertools.product(SCHEDULES, configs.items())
            ]
    return found


def _alone(config: RunConfig) -> Work:
    return time_stages(prepare(config.replace(engine="in_process"), None, CPU), batches=6, warmup=2)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have processes started in the block compute on one thread."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    if before is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = before


def _linked(rate: int, schedule: str, name: str, config: RunConfig, work: Work, server: Dial, budget: Budget) -> Linked:
    trainer = prepare(config.replace(schedule=schedule), None, CPU, server=server, link=Link(rate_mbit=rate))
    with trainer.opened():
        taken, spans = _batches(trainer, budget)
    return Linked(
        rate=rate,
        schedule=schedule,
        codec=name,
        seconds=taken,
        goodput=[goodput(each, work, rate) for each in spans],
        expected=predict(work, chunks=config.chunks, link=Link(rate_mbit=rate), schedule=schedule),
        work=work,
    )


def _batches(trainer: Trainer, budget: Budget) -> tuple[list[float], list[list[Span]]]:
    """Take steps on the same batch; return what each took, and what both sides did."""
    inputs, labels = next(iter(trainer.rest_of_epoch()))
    taken: list[float] = []
    spans: list[list[Span]] = []
    while len(taken) <= budget.batches or sum(taken[1:]) < budget.seconds:
        start = time.perf_counter()
        trainer.step(inputs, labels)
        taken.append(time.perf_counter() - start)
        spans.append(trainer.engine.take_spans())
        trainer.state.step += 1
    return taken[1:], spans[1:]


def goodput(spans: Sequence[Span], work: Work, rate: int) -> float:
    """Return payload bytes of the client's activations over their time on the link, over the line rate.

    From the start of sending the first to the start of decoding the last; what else the client sent meanwhile counts.
    """
    sent = [span for span in spans if (span.side, span.activity) == (CLIENT, SEND)]
    there = [s.start for s in spans if (s.side, s.activity, s.what) == (SERVER, DECODE, FROM_CLIENT[0])]
    meanwhile = [span for span in sent if span.end <= max(there)]
    sizes = {"activation 1": work.activation_1.nbytes, "gradient 2": work.gradient_2.nbytes}
    nbytes = sum(sizes[span.what] for span in meanwhile)
    return 8e-6 * nbytes / (max(there) - min(span.start for span in sent)) / rate


def gains(found: Sequence[Linked]) -> Iterator[str]:
    """Yield how many times as fast 8-bit is, for each link and schedule where bytes decide without compression."""
    by_setting = {(each.rate, each.schedule, each.codec): each for each in found}
    for rate, schedule in itertools.product(RATES, SCHEDULES):
        none, coded = (by_setting[rate, schedule, name] for name in CODECS)
        if none.link_bound:
            gain = none.median / coded.median
            bytes_decide = coded.link_bound
            shown = at_least(gain, GOALS["gain"]) if bytes_decide else f"{gain:.2f}x (8-bit waits for computation)"
            predicted = none.expected.seconds / coded.expected.seconds
            yield f"| {rate} Mbit/s | {schedule} | {shown} | {predicted:.2f}x |"


# --- A link of the kernel's ------------------------------------------------------------------------------------------


def real_links(rounds: int) -> Iterator[str]:
    """Yield the goodput between two network namespaces, by rate."""
    lacks = missing()
    if lacks:
        yield f"Goodput on a link that the kernel shapes was not measured: it needs {lacks}."
        return
    yield from ["| link, shaped by the kernel (tc tbf) | goodput / line rate | gloo alone |", "|---|---|---|"]
    for rate in RATES:
        count = max(8, rate // 10)  # a round lasts long beside the link's burst
        with two_namespaces(rate) as places:
            what = Exchange(shape=SHAPES[1], count=count, rounds=rounds, places=places, addresses=ADDRESSES)
            found = what.run()
        bits = 32 * math.prod(what.shape) * count
        framed, bare = (bits / statistics.median(found[way]) / 1e6 / rate for way in (FRAMED, BARE))
        yield f"| {rate} Mbit/s | {at_least(framed, GOALS['goodput'], percent=True)} | {bare:.1%} |"


# --- Framing ---------------------------------------------------------------------------------------------------------


def framing(rounds: int) -> Iterator[str]:
    """Yield what a pipeline's endpoint costs beside gloo alone, on the loopback."""
    for shape in SHAPES:
        found = Exchange(shape=shape, count=8, rounds=rounds).run()
        ratio = statistics.median(found[FRAMED]) / statistics.median(found[BARE])
        cells = f"{spread(found[FRAMED])} | {spread(found[BARE])} | {at_most(ratio, GOALS['framing'])}"
        yield f"| 8 x {list(shape)} | {cells} |"


FRAMING_HEADS = ["| tensors of a round | framed ms | gloo alone ms | framed / gloo |", "|---|---|---|---|"]


# --- One process -----------------------------------------------------------------------------------------------------


def one_process(threads: int, budget: Budget) -> str:
    """Measure three stages of torchgpipe on one CPU device beside the unsplit model, a batch of each in turn."""
    torch.set_num_threads(threads)
    trainer = prepare(TOGETHER, None, CPU)
    inputs, labels = next(iter(trainer.rest_of_epoch()))
    unsplit = build_model(TOGETHER, num_labels=trainer.data.num_labels, hub=None).train()
    optimizer = make_optimizer(unsplit, TOGETHER)

    def plain() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(unsplit(*inputs), labels)
        loss.backward()
        loss.item()
        optimizer.step()

    calls: dict[str, Callable[[], object]] = {"split": lambda: trainer.step(inputs, labels), "unsplit": plain}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    while len(taken["split"]) <= 2 * budget.batches or sum(taken["split"]) < 2 * budget.seconds:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
    split, whole = (taken[name][2:] for name in calls)
    ratio = statistics.median(split) / statistics.median(whole)
    return f"| {threads} | {spread(split)} | {spread(whole)} | {at_most(ratio, GOALS['one_process'])} |"


ONE_HEADS = ["| threads | three stages ms | unsplit ms | three stages / unsplit |", "|---|---|---|---|"]


# --- Tables ----------------------------------------------------------------------------------------------------------


def at_most(ratio: float, goal: float) -> str:
    """For example ``**1.04x** (goal 1.1: met)``."""
    return f"**{ratio:.3f}x** (goal {goal:g}: {'met' if ratio <= goal else 'missed'})"


def at_least(ratio: float, goal: float, *, percent: bool = False) -> str:
    """For example ``**3.71x** (goal 3.6: met)``."""
    shown, wanted = (f"{ratio:.1%}", f"{goal:.0%}") if percent else (f"{ratio:.2f}x", f"{goal:g}")
    return f"**{shown}** (goal {wanted}: {'met' if ratio >= goal else 'missed'})"


def within(ratio: float, share: float) -> str:
    """For example ``**0.97x** (goal within 10%: met)``."""
    return f"**{ratio:.3f}x** (goal within {share:.0%}: {'met' if abs(ratio - 1) <= share else 'missed'})"


def compare(budget: Budget) -> str:
    """Measure everything; return the tables in Markdown."""
    together = [one_process(threads, budget) for threads in sorted({1, os.cpu_count() or 1})]
    said = machine().replace(f" {torch.get_num_threads()} threads;", "")
    wire = [*FRAMING_HEADS, *framing(3 * budget.batches)]
    kernel = list(real_links(3))
    torch.set_num_threads(1)
    found = on_links(budget)
    shaped = [statistics.median(each.goodput) for each in found if each.codec == "none" and each.link_bound]
    cores = os.cpu_count()
    lines = [
        f"{said} Client and server share {cores} cores, one thread of torch each; {described(LINKED)}.",
        "Milliseconds are the median (and the middle half).",
        "",
        *LINKED_HEADS,
        *(each.cells() for each in found),
        "",
        "| link | schedule | 8-bit, times as fast as none | predicted |",
        "|---|---|---|---|",
        *gains(found),
        "",
        "Goodput of the activations on these links, shaped in process, where bytes decide, uncompressed, over the line "
        f"rate: at least {at_least(min(shaped), GOALS['goodput'], percent=True)}.",
        "",
        *kernel,
        "",
        *wire,
        "",
        f"One process, one CPU device, 1 micro-batch; {described(TOGETHER)}:",
        "",
        *ONE_HEADS,
        *together,
    ]
    return "\n".join(lines)


def described(config: RunConfig) -> str:
    """Return the model and the batch in words."""
    batch = f"{config.batch_size} images of {config.image_size} px"
    chunks = f" in {config.chunks} micro-batches" if config.chunks > 1 else ""
    return f"{config.model}, {config.partition}, {batch}{chunks}"


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the tables into benchmarks/README.md")
    parser.add_argument("--batches", type=int, default=5, help="at least so many of each setting, from 2 (default 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of batches of each setting (default 5)")
    for other in ("--threads", "--hub"):  # `make bench` gives both benchmarks the same options
        parser.add_argument(other, help=argparse.SUPPRESS)
    options = parser.parse_args()
    tables = compare(Budget(batches=options.batches, seconds=options.seconds))
    if options.write:
        write_section("pipelines", tables)
    print(tables)


if __name__ == "__main__":
    main()
