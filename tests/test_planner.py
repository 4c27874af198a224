"""The ranking is predict's own, on costs that can be checked by hand; a choice is a config that runs."""

import itertools
import json
import math
import random
import shlex
from dataclasses import replace

import pytest

from splitlib import cli
from splitlib.cli.plan import as_json
from splitlib.config import RunConfig
from splitlib.errors import ConfigError, RecordError
from splitlib.pipeline.predict import Message, Work, predict
from splitlib.pipeline.remote.link import Link
from splitlib.planner import compressor_text, lower_bound, parse_compressor, plan
from splitlib.planner.candidates import Compressors, at_cuts, chosen_chunks, codec
from splitlib.planner.costs import CodecCost, Costs, Layer, LayerTimes, codec_key, depends_on, save_costs
from tests.support import TINY, TINY_VISION

BASE = TINY.replace(batch_size=8, chunks=1)
SPECS = {"none": (1.0, 0.0, 0.0), "cast": (0.5, 0.001, 1e-7), "uniform:bits=4": (0.125, 0.004, 0.02)}
COUNT, CUT_BYTES = 5, 80_000  # layers; bytes of a whole batch's tensor at any cut
NAMED = {"condition_1": (1, 4), "condition_2": (2, 3)}


def costs_by_hand(config: RunConfig, sizes=(8, 4, 2)) -> Costs:
    """Layers of 10 ms a sample forward and 20 ms back; compressors as SPECS: share of the bytes, seconds, error."""
    times = {
        size: LayerTimes(
            forward=(0.010 * size,) * COUNT, backward=(0.020 * size,) * COUNT, repeats=1, beside_nbytes=0,
            nbytes=(CUT_BYTES * size // 8,) * COUNT,
        )
        for size in sizes
    }  # fmt: skip
    codecs = {
        codec_key(spec, direction, cut, size): CodecCost(
            nbytes=round(share * CUT_BYTES * size / 8), encode=seconds, decode=seconds, error=error
        )
        for spec, (share, seconds, error) in SPECS.items()
        for direction, cut, size in itertools.product(("activation", "gradient"), range(1, COUNT), sizes)
    }
    return Costs(
        depends_on=depends_on(config), device="cpu", data_label="data by hand", data_fingerprint="", optimizer=0.010,
        layers=tuple(Layer(name=f"layer {n}", macs=100 + n, parameters=10) for n in range(COUNT)), named_cuts=NAMED,
        sizes=times, codecs=codecs, created="2000-01-01",
        environment={"hardware": "a sheet of paper", "versions": {"torch": "none"}},
    )  # fmt: skip


@pytest.fixture
def ask(tmp_path):
    """Plan with the costs by hand."""
    path = tmp_path / "costs.json"
    save_costs(costs_by_hand(BASE), path)
    standard = {"compressors": list(SPECS), "chunks": [1, 2, 4], "measured": path}
    return lambda **options: plan(options.pop("config", BASE), **{**standard, **options})


# --- Ranking ---------------------------------------------------------------------------------------------------------


def test_without_a_limit_no_compressor_beats_none(ask):
    found = ask()
    assert found.best.compressor == "none"
    per_split = {}
    for choice in ask(keep=0).choices:
        per_split.setdefault((choice.pair, choice.chunks), {})[choice.compressor] = choice.seconds
    assert len(per_split) == 6 * 3
    for times in per_split.values():  # a busy client can hide a codec's time, but never gain by it
        assert times["none"] == pytest.approx(min(times.values()))


def test_on_a_very_slow_link_the_smallest_payload_wins(ask):
    found = ask(link=Link(rate_mbit=0.001), keep=0)
    assert found.best.compressor == "uniform:bits=4"
    assert found.best.wire_bytes == min(choice.wire_bytes for choice in found.choices) == 40_000
    by_compressor = found.table().groupby("compressor")["predicted_s"].median()
    assert list(by_compressor.sort_values().index) == ["uniform:bits=4", "cast", "none"]


def test_one_time_by_hand(ask):
    """One micro-batch: nothing overlaps. 8 Mbit/s carry a byte in a microsecond."""
    found = ask(link=Link(rate_mbit=8, latency_ms=5), cuts=["1,4"], compressors=["cast"], chunks=[1])
    (choice,) = found.choices
    layers = 5 * 8 * (0.010 + 0.020)
    crossings = 4 * (2 * 0.001 + 40_000e-6 + 0.005)
    optimizer = 2 / 5 * 0.010  # two of five equal layers are the client's, and nothing waits for the server's
    assert choice.seconds == pytest.approx(layers + crossings + optimizer)
    (row,) = found.table().to_dict("records")
    assert (row["partition"], row["cuts"], row["wire_bytes"]) == ("condition_1", "1,4", 160_000)
    assert row["compression_ratio"] == 0.5
    assert row["client_share"] == pytest.approx((100 + 104) / 510)
    assert row["client_compute_s"] == pytest.approx(2 * 8 * 0.030 + optimizer)
    assert row["server_compute_s"] == pytest.approx(3 * 8 * 0.030 + 0.006)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize("link", [Link(rate_mbit=1, latency_ms=3), Link()])
def test_ranking_is_that_of_predict(ask, schedule, link):
    config = BASE.replace(engine="two_machines", schedule=schedule)
    everything = ask(config=config, link=link, keep=0)
    times = [predict(c.work, chunks=c.chunks, link=link, schedule=schedule).seconds for c in everything.choices]
    assert times == sorted(times) == [choice.seconds for choice in everything.choices]
    assert list(everything.table()["predicted_s"]) == times
    kept = ask(config=config, link=link, keep=4)
    for spec in SPECS:
        wanted = [c.seconds for c in everything.choices if c.compressor == spec][:4]
        assert [c.seconds for c in kept.choices if c.compressor == spec] == wanted, "what is not simulated is slower"
    assert kept.best.seconds == everything.best.seconds
    assert kept.compared == everything.compared == 6 * 3 * 3


def test_no_schedule_beats_the_bound():
    draw = random.Random(1)

    def message():
        return Message(nbytes=draw.randrange(10**6), encode=draw.random() / 9, decode=draw.random() / 9)

    for number in range(300):
        passes = (f"{part}_{way}" for part in ("head", "body", "tail") for way in ("forward", "backward"))
        sent = ("activation_1", "activation_2", "gradient_1", "gradient_2")
        optimizers = {name: draw.random() for name in ("client_optimizer", "server_optimizer")}
        work = Work(**{name: draw.random() for name in passes}, **{name: message() for name in sent}, **optimizers)
        link = Link(rate_mbit=10 ** draw.uniform(0, 4), latency_ms=draw.random() * 99)
        for schedule, chunks in itertools.product(("gpipe", "1f1b"), (1, 2, 1 + number % 8)):
            seconds = predict(work, chunks=chunks, link=link, schedule=schedule).seconds
            assert lower_bound(work, chunks, link) <= seconds * (1 + 1e-9)
            if chunks == 1:
                assert lower_bound(work, chunks, link) == pytest.approx(seconds)


def test_limits_leave_choices_out_or_say_what_would_do(ask):
    slow = Link(rate_mbit=0.01)
    assert ask(link=slow, max_error=0.01).best.compressor == "cast"
    assert ask(link=slow, max_client_share=0.5).table()["client_share"].max() <= 0.5
    with pytest.raises(ConfigError, match=r"max_client_share 0\.1; the least is 0\.4"):
        ask(max_client_share=0.1)
    with pytest.raises(ConfigError, match=r"max_error 0\.001; the least is 0\.02"):
        ask(compressors=["uniform:bits=4"], max_error=0.001)


def test_what_may_collapse_is_shown_but_not_called_best(tmp_path, monkeypatch):
    """The fastest has an error of 0.2: many of its kind are, and none may hide the others."""
    monkeypatch.setitem(SPECS, "uniform:bits=4", (0.125, 0.0, 0.2))
    save_costs(costs_by_hand(BASE), path := tmp_path / "costs.json")
    options = {"link": Link(rate_mbit=0.01), "chunks": [1, 2], "measured": path, "keep": 2}
    found = plan(BASE, compressors=list(SPECS), **options)
    assert found.choices[0].compressor == "uniform:bits=4" and found.best.compressor == "cast"
    assert plan(BASE, compressors=list(SPECS), max_error=math.inf, **options).best == found.choices[0]
    assert plan(BASE, compressors=["uniform:bits=4"], **options).best.error > found.limits.error, "there is no other"


def test_gradients_whose_tokens_arrive_unequally_are_not_recommended(tmp_path):
    """Six bits of sort quantization have small errors and predict one class on CoLA; only errors were asked for."""
    costs = costs_by_hand(BASE)
    uneven = {
        key: replace(cost, unequal=0.6 if "gradient" in key and "bits=4" in key else 0.01)
        for key, cost in costs.codecs.items()
    }
    save_costs(replace(costs, codecs=uneven), path := tmp_path / "costs.json")
    options = {"compressors": list(SPECS), "link": Link(rate_mbit=0.01), "chunks": [1], "measured": path}
    found = plan(BASE, **options)
    assert (found.choices[0].compressor, found.choices[0].unequal) == ("uniform:bits=4", 0.6)
    assert found.choices[0].error < found.limits.error and found.best.compressor == "cast"
    assert plan(BASE, max_error=0.5, **options).best == found.choices[0], "a limit of one's own is the only one"
    assert plan(BASE, **options | {"compressors": ["uniform:bits=4"]}).best.unequal == 0.6, "there is no other"


def test_a_faster_server_takes_less(ask):
    options = {"cuts": ["condition_1"], "compressors": ["none"], "chunks": [2]}
    (plain,), (fast,) = ask(**options).choices, ask(**options, server_speed=10.0).choices
    assert fast.work.body_forward == pytest.approx(plain.work.body_forward / 10)
    assert fast.work.server_optimizer == pytest.approx(plain.work.server_optimizer / 10)
    assert fast.work.head_forward == plain.work.head_forward
    assert any("10 times as fast" in line for line in ask(**options, server_speed=10.0).assumptions)


def test_each_side_encodes_and_decodes_at_its_own_speed(ask):
    (choice,) = ask(cuts=["condition_1"], compressors=["cast"], chunks=[2], server_speed=10.0).choices
    up, down = (0.001, 0.0001), (0.0001, 0.001)  # of encoding and decoding
    for name, seconds in {"activation_1": up, "activation_2": down, "gradient_2": up, "gradient_1": down}.items():
        message = getattr(choice.work, name)
        assert (message.encode, message.decode) == pytest.approx(seconds), name


def test_a_choice_runs_as_the_command_says(ask):
    found = ask(link=Link(rate_mbit=50, latency_ms=10), keep=0)
    for choice in found.choices[::7]:
        options = cli._parser().parse_args(shlex.split(found.command(choice))[3:])
        assert cli.config_from_options(options) == choice.config
        assert (options.link, options.latency) == ("50Mbit", "10ms")
        assert choice.config.engine == "two_machines" and choice.config.chunks == choice.chunks
    names = {choice.pair: choice.config.partition for choice in found.choices}
    assert names == {pair: "custom" for pair in itertools.combinations(range(1, COUNT), 2)} | {
        pair: name for name, pair in NAMED.items()
    }


def test_assumptions_are_one_line_each_and_name_what_was_measured(ask):
    lines = ask(link=Link(rate_mbit=50, latency_ms=10), keep=1).assumptions
    text = "\n".join(lines)
    assert all(line.endswith(".") and "\n" not in line for line in lines)
    for words in ("data by hand", "a sheet of paper", "50 Mbit/s", "10 ms", "Schedule gpipe", "Of 54 choices"):
        assert words in text
    assert "equally large" not in text


def test_a_link_without_limit_is_one_in_words_and_in_json(ask):
    """Its rate is 0, as everywhere; JSON for other programs says null."""
    found = ask(keep=1)
    assert "The link is without limit, 0 ms" in "\n".join(found.assumptions)
    values = json.loads(as_json(found, found.table()), parse_constant=pytest.fail)
    assert values["link"] == {"rate_mbit": None, "latency_ms": 0.0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cuts": ["first_last"]}, "unknown cuts 'first_last'; choose from all, named, condition_1"),
        ({"cuts": ["0,3"]}, "cuts 0,3 leave a part without layers; with 5 of them"),
        ({"cuts": [(2, 5)]}, "cuts 2,5 leave a part without layers"),
        ({"cuts": []}, "no cuts to choose from"),
        ({"compressors": ["gzip"]}, "unknown compressor 'gzip'"),
        ({"compressors": ["uniform:4"]}, "not written name:option=value"),
        ({"compressors": ["uniform:bits=x"]}, "bits must be int, not 'x'"),
        ({"compressors": ["none+none+none"]}, "has 3 parts"),
        ({"compressors": []}, "no compressors to choose from"),
        ({"compressors": ["uniform:bits=2"]}, "no costs were measured for uniform:bits=2, activation at cut 1"),
        ({"chunks": [5]}, "a batch of 8 cannot be cut into 5 micro-batches"),
        ({"chunks": [8]}, "no times were measured for micro-batches of 1 samples, but of 2, 4, 8"),
        ({"chunks": []}, "no numbers of micro-batches"),
        ({"server_speed": 0.0}, "server_speed must be a positive number, not 0"),
        ({"keep": -1}, "keep must be at least 0, not -1"),
        ({"config": BASE.replace(batch_size=16)}, "was measured with batch_size 8, not 16"),
        ({"config": BASE.replace(insert="linear")}, "'linear' inserts layers"),
        ({"config": BASE.replace(padding="skipped")}, "use padding 'sent', not 'skipped'"),
        ({"config": BASE.replace(coding="change", compressor="uniform")}, "use coding 'tensor', not 'change'"),
        (
            {"config": BASE.replace(error_feedback="gradients", compressor="uniform")},
            "each by itself: use error_feedback 'none', not 'gradients'",
        ),
        ({"max_error": float("nan")}, "max_error must be at least 0, not nan"),
        ({"max_client_share": -1}, "max_client_share must be at least 0, not -1"),
        ({"config": BASE.replace(recompute="always")}, "recompute 'always' is for the engine 'in_process'"),
    ],
)
def test_mistakes_name_the_value_and_the_remedy(ask, options, words):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        ask(**options)


def test_a_damaged_or_missing_file_is_named(ask, tmp_path):
    with pytest.raises(RecordError, match="nowhere"):
        ask(measured=tmp_path / "nowhere.json")
    (tmp_path / "costs.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RecordError, match=r"costs\.json holds no readable costs"):
        ask()


def test_no_gradient_crosses_to_layers_that_do_not_train(tmp_path):
    """As with LoRA, whose embedding is frozen: what the first cut sends back is then nothing."""
    costs = costs_by_hand(BASE)
    frozen = tuple(replace(layer, parameters=0 if n == 0 else 10) for n, layer in enumerate(costs.layers))
    sizes = {n: replace(each, backward=(0.0, *each.backward[1:])) for n, each in costs.sizes.items()}
    save_costs(replace(costs, layers=frozen, sizes=sizes), tmp_path / "frozen.json")
    found = plan(BASE, cuts=["1,4", "2,4"], compressors=["none"], chunks=[1], measured=tmp_path / "frozen.json")
    sent = {choice.pair: (choice.work.nbytes("gradient_1"), choice.uncompressed_bytes) for choice in found.choices}
    assert sent == {(1, 4): (0, 3 * CUT_BYTES), (2, 4): (CUT_BYTES, 4 * CUT_BYTES)}
    (choice,) = [choice for choice in found.choices if choice.pair == (1, 4)]
    assert choice.work.gradient_1 is None and choice.wire_bytes == 3 * CUT_BYTES
    waits = [choice.predict(Link(latency_ms=each)).seconds for each in (0, 100)]
    assert waits[1] - waits[0] == pytest.approx(3 * 0.1), "three messages, three latencies"


# --- Candidates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["none", "uniform:bits=4", "uniform:bits=4+uniform:bits=8", "power_iteration:rank=3/7+cast:dtype=bfloat16"]
)
def test_compressors_come_back_as_they_are_written(text):
    assert compressor_text(TINY.replace(**parse_compressor(text))) == text


@pytest.mark.parametrize(("whole", "fraction"), [("1", "1.0"), ("0.5/1", "0.5/1.0")])
def test_a_whole_number_is_the_fraction_it_is_written_for(whole, fraction):
    one, other = (TINY.replace(**parse_compressor(f"deadzone:step={step}")) for step in (whole, fraction))
    assert one.key == other.key and compressor_text(one) == f"deadzone:step={fraction}"
    assert {codec(spec).step for spec in Compressors.of(one).activations} == {float(s) for s in whole.split("/")}


def test_each_cut_gets_its_own_value():
    assert at_cuts("uniform", {"bits": "4,6", "block": 64}) == ("uniform:bits=4,block=64", "uniform:bits=6,block=64")
    assert at_cuts("none", {}) == ("none", "none")


def test_micro_batches_are_those_that_torch_makes():
    assert chosen_chunks(TINY.replace(batch_size=10, chunks=1), None) == {1: 10, 2: 5, 4: 3}
    assert chosen_chunks(TINY.replace(batch_size=96, chunks=3), None) == {1: 96, 2: 48, 3: 32, 4: 24, 8: 12}
    assert math.ceil(10 / math.ceil(10 / 8)) == 5, "which is why 8 is not among the first"


def test_a_usual_number_of_micro_batches_that_no_run_can_have_is_left_out():
    """Batch norm takes no single image of 32 px: the whole plan failed, for a number that nobody had asked for."""
    config = TINY_VISION.replace(batch_size=8, chunks=1)
    assert chosen_chunks(config, None) == {1: 8, 2: 4, 4: 2}
    with pytest.raises(ConfigError, match="single image"):
        chosen_chunks(config, [8])
