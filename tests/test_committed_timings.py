"""Committed times can be read and say on what they were taken; the README says of them what they show."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from splitlib.measuring import breakdown
from splitlib.measuring.batches import measure_in_turn
from splitlib.measuring.kept import read_kept
from splitlib.measuring.records import read_timing
from splitlib.pipeline.remote.link import Link
from splitlib.planner import plan, recorded_costs
from splitlib.planner.costs import Costs
from splitlib.profiles import DOCUMENT_SETTINGS, get_profile
from splitlib.results import TIMING_PREFIX
from splitlib.tally import RECORDED

RESULTS = Path(__file__).resolve().parent.parent / "results"
TIMINGS = sorted(RESULTS.glob(f"{TIMING_PREFIX}*-real-*.json"))
READERS = {
    "breakdown": breakdown.read,
    "codecs": read_kept,
    "plan": lambda path: Costs.from_dict(json.loads(path.read_text(encoding="utf-8"))),
    "sorting": read_kept,
    "stages": read_kept,
}


@pytest.mark.parametrize("path", TIMINGS, ids=lambda path: path.stem)
def test_a_committed_time_is_readable_and_says_where_it_was_taken(path):
    kind = path.stem.removeprefix(TIMING_PREFIX).partition("-")[0]
    found = READERS.get(kind, read_timing)(path)
    assert found.environment["hardware"] and found.environment["versions"]["torch"]


@pytest.fixture
def parallel():
    """Notebook 02's times: medians by model, optimizer, way of training and cut."""
    (path,) = RESULTS.glob("timing-breakdown-real-*.json")
    table = pd.DataFrame(breakdown.read(path).rows())
    return table.set_index(["model", "optimizer", "parallelism", "partition"])


def test_a_pipeline_on_one_cpu_is_slower_than_replicas(parallel):
    def ratio(model, optimizer, partition):
        pipeline = parallel.loc[(model, optimizer, "pipeline", partition), "throughput_per_s"]
        return pipeline / parallel.loc[(model, optimizer, "data_parallel", "none"), "throughput_per_s"]

    assert ratio("mobilenet_v2", "sgd", "first_last") == pytest.approx(0.61, abs=0.05), "as 001 reports"
    assert 0.9 < ratio("roberta-base", "adamw", "condition_1") < 1
    for row in (("mobilenet_v2", "sgd"), ("roberta-base", "adamw")):
        cut = "first_last" if row[0] == "mobilenet_v2" else "condition_1"
        assert ratio(*row, "even") < ratio(*row, cut), "nothing overlaps on one CPU, and an even split sends more"


def test_adamw_costs_by_the_weight_whatever_the_model(parallel):
    def step(model, optimizer):
        return parallel.loc[(model, optimizer, "data_parallel", "none"), "optimizer_s"]

    for model in ("roberta-base", "vgg13"):
        whole = parallel.loc[(model, "adamw", "data_parallel", "none"), "time_per_batch_s"]
        assert step(model, "adamw") > whole / 4 and step(model, "adamw") > 7 * step(model, "sgd")
    assert step("vgg13", "adamw") > step("roberta-base", "adamw"), "of as many weights"
    assert step("mobilenet_v2", "adamw") < 0.02


def test_predicted_times_come_out(monkeypatch):
    """As notebook 10 compares them."""
    monkeypatch.setenv("SPLITLIB_RESULTS", str(RESULTS))
    monkeypatch.setenv(RECORDED, "1")
    config = get_profile("real").scale(DOCUMENT_SETTINGS["cifar10"], engine="two_machines")
    link = Link(rate_mbit=100, latency_ms=1)
    known = {"link": link, "device": "cpu", "measured": recorded_costs(config, torch.device("cpu"))}
    few = {"chunks": [1, 4], "compressors": ["none", "uniform:bits=8", "uniform:bits=4"]}
    named = plan(config, cuts=["first_last", "first_two_last_two"], keep=0, **few, **known)
    best = plan(config, max_error=0.01, **known).best
    choices = {str(choice): choice for choice in (*named.choices, best)}
    timings = measure_in_turn(
        {name: choice.config for name, choice in choices.items()}, devices=["cpu"], batches=4, link=str(link)
    )
    off = {name: timings[name].median / choice.predict(named.link).seconds - 1 for name, choice in choices.items()}
    assert len(off) == 13 and pd.Series(off).abs().median() < 0.05
    worst = max(off, key=off.get)
    assert worst == str(best) == min(timings, key=lambda name: timings[name].median), "fastest, worst predicted"
    assert off.pop(worst) == pytest.approx(0.38, abs=0.01) and max(map(abs, off.values())) < 0.12
