"""The playground's parts and the whole, without a browser: values are set on the widgets and their traits read."""

import gc
import io
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from PIL import Image

import run_all
from splitlib.capture import tensors_at_cuts
from splitlib.cli import _parser, config_from_options
from splitlib.compressors import COMPRESSORS, decode, make_compressor
from splitlib.config import RunConfig
from splitlib.errors import ConfigError
from splitlib.options import option_choices
from splitlib.planner.candidates import parse_compressor
from splitlib.planner.choices import TOLERABLE_ERROR
from splitlib.playground import outlook
from splitlib.playground.bench import PROBES, Bench, Codec, plain_config, rank_note
from splitlib.playground.choice import Choice, read_words, words
from splitlib.playground.controls import CodecControls
from splitlib.playground.copying import client_command, papermill_parameters, plan_command, train_command
from splitlib.playground.lab import STALE, Playground
from splitlib.playground.levels import edges_and_levels
from splitlib.playground.scene import Scene
from splitlib.plots import playground as figures
from splitlib.timeline import TENSORS
from splitlib.workbook.studies import read_studies

SORT = {"compressor": "sort", "options": {"level_bits": 3, "bin_bits": 2, "edges": "cube_root"}}
VISION = Choice(profile="smoke", task="cifar10", **SORT)
TEXT = Choice(profile="smoke", task="cola", compressor="uniform", options={"bits": 4})


@pytest.fixture(scope="module")
def bench():
    """What is measured once serves every test that does not count it."""
    return Bench(device="cpu")


@pytest.fixture(scope="module")
def lab(bench):
    """A playground on that bench; each test sets what it needs."""
    made = Playground(VISION, bench=bench)
    made.refresh()
    return made


@pytest.fixture
def screen(lab):
    """The same, as it was at first."""
    lab.controls.show(VISION.filled())
    lab.tabs.selected_index = 0
    lab.refresh()
    assert lab.problem.value == ""
    return lab


# --- Choices and what is copied --------------------------------------------------------------------------------------


def test_a_choice_and_its_parameters_are_the_same():
    choice = VISION.filled().replace(
        gradient_compressor="uniform", gradient_options={"bits": 4, "block": 256}, mbit=3.5
    )
    assert Choice.from_parameters(**choice.parameters()) == choice
    assert Choice.from_parameters(**choice.parameters()).config() == choice.config()


@pytest.mark.parametrize(("data", "weights"), [("embedded", "random"), ("real", "pretrained")])
def test_real_data_starts_from_pretrained_weights(data, weights):
    assert Choice(task="cifar10", data=data, model="mobilenet_v2").config().weights == weights


def test_options_in_words_are_read_back():
    assert read_words("sort", words(SORT["options"])) == SORT["options"]
    with pytest.raises(ConfigError, match="has no option 'bits'"):
        read_words("sort", "bits 4")
    with pytest.raises(ConfigError, match="'bits many' has no number"):
        read_words("uniform", "bits many")


@pytest.mark.parametrize(
    "choice",
    [
        VISION,
        TEXT.replace(chunks=2, batch_size=16, epochs=3),
        Choice(task="rte", partition="custom", cuts="2,5", compressor="power_iteration", options={"rank": 2}),
        Choice(task="cola", data="real", hub="some/mirror", gradient_compressor="cast"),
    ],
    ids=["vision", "text", "custom cuts", "real"],
)
def test_the_command_line_means_what_is_on_screen(choice, bench):
    scene = Scene(choice.filled(), bench)
    program, *arguments = shlex.split(train_command(scene))[2:]
    assert program == "splitlib"
    options = _parser().parse_args(arguments)
    assert config_from_options(options) == scene.config
    assert str(options.hub or "") == (choice.hub if choice.data == "real" else "")


def test_the_client_command_asks_for_the_link_on_screen(bench):
    scene = Scene(TEXT.replace(mbit=3.0, latency_ms=7.0).filled(), bench)
    options = _parser().parse_args(shlex.split(client_command(scene))[3:])
    assert (options.link, options.latency) == ("3Mbit", "7ms")


@pytest.mark.parametrize(
    "codec",
    [
        {"gradient_compressor": "sort", "gradient_options": {"level_bits": 3, "bin_bits": 2}},
        {"compressor": "power_iteration", "options": {"rank": "3,7"}},
    ],
    ids=["own for gradients", "a value for each cut"],
)
def test_the_plan_command_asks_for_what_is_on_screen(bench, codec):
    choice = TEXT.replace(chunks=2, **codec)
    scene = Scene(choice.filled(), bench)
    options = _parser().parse_args(shlex.split(plan_command(scene))[3:])
    base = config_from_options(options)
    (compressor,), (cuts,), (chunks,) = options.compressors, options.cuts, options.chunks
    assert (
        base.replace(partition=cuts, chunks=chunks, epochs=scene.config.epochs, **parse_compressor(compressor))
        == scene.config
    )
    assert (options.link, options.latency) == ("50Mbit", "10ms")


def test_papermills_parameters_are_those_of_the_notebook():
    study = next(s for s in read_studies(Path(run_all.__file__).parent / "notebooks") if s.number == "09")
    values = yaml.safe_load(papermill_parameters(VISION.filled()))
    assert set(values) | {"fresh"} == set(study.parameters)
    assert Choice.from_parameters(**values) == VISION.filled()


# --- What is measured ------------------------------------------------------------------------------------------------


def test_bytes_and_error_are_exact(bench):
    config = TEXT.replace(chunks=4).config()
    x = tensors_at_cuts(config, device="cpu")["activation 1"]
    payloads = [make_compressor("uniform", bits=4).encode(part) for part in x.chunk(4)]
    found = bench.encoded(config, "activation 1", Codec.of("uniform", {"bits": 4}))
    back = torch.cat([decode(payload) for payload in payloads])
    assert found.nbytes == sum(payload.nbytes for payload in payloads)
    assert found.whole == x.numel() * 4
    assert found.error == pytest.approx(float((back - x).square().mean() / x.var(correction=0)), rel=1e-5)
    assert torch.equal(found.decoded(), back)


def test_tensors_are_looked_at_whatever_codes_them():
    """Feedback of what gradients lost is no config without their compressor."""
    config = RunConfig(task="cola", compressor="sort", error_feedback="gradients", chunks=4)
    assert plain_config(config) == RunConfig(task="cola", epochs=1)


def test_every_compressor_sends_every_tensor_exactly_once(bench):
    config = VISION.config()
    for name in COMPRESSORS:
        codec = Codec.of(name, {})
        made = [bench.encoded(config, tensor, codec) for tensor in TENSORS]
        assert all(0 <= each.error < 2 for each in made), name
        assert all(each.nbytes > 0 and each.encode > 0 and each.decode > 0 for each in made)


def test_an_uneven_batch_counts_the_micro_batches_it_really_makes(bench):
    config = TEXT.replace(batch_size=9, chunks=4).config()
    assert outlook.chosen(bench, config).chunks == 3  # 9 samples by 4 make three of three


def test_stage_times_are_of_micro_batches_of_this_size():
    bench = Bench(device="cpu")
    whole, quarter = (bench.stage_times(VISION.replace(chunks=chunks).config()) for chunks in (1, 4))
    assert bench.counts["timings"] == 2 and bench.counts["probes"] == 1
    assert whole.activation_1.nbytes > 3 * quarter.activation_1.nbytes


def test_the_model_looked_at_last_is_kept():
    bench = Bench(device="cpu")
    first, *others = (VISION.replace(batch_size=size).config() for size in (8, 12, 16, 20))
    assert len(others) == PROBES
    for config in (first, *others[:-1], first, others[-1], first):
        bench.probe(config)
    assert bench.counts["probes"] == 4


def test_what_was_measured_of_a_model_goes_with_it():
    """The times of its stages stayed, for as long as the playground was open."""
    bench = Bench(device="cpu")
    first, *others = (VISION.replace(batch_size=size).config() for size in (8, 12, 16, 20))
    bench.stage_times(first)
    bench.encoded(first, "activation 1", Codec.of("cast", {}))
    for config in others:
        bench.probe(config)
    assert not bench._works and not bench._encoded
    bench.stage_times(first)
    assert bench.counts["timings"] == 2


@pytest.mark.parametrize("name", ["sort", "fast", "uniform"])
def test_drawn_levels_are_the_values_that_arrive(name):
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    payload = make_compressor(name, zstd=3).encode(x)
    edges, levels = edges_and_levels(payload)
    assert np.isin(decode(payload).numpy(), levels).all()
    assert edges[0] == pytest.approx(float(x.min())) and edges[-1] == pytest.approx(float(x.max()), rel=1e-5)


def test_blocks_and_codecs_without_levels_draw_none():
    x = torch.randn(512)
    for codec in (make_compressor("uniform", block=64), make_compressor("none"), make_compressor("power_iteration")):
        assert [len(found) for found in edges_and_levels(codec.encode(x))] == [0, 0]


# --- What is predicted -----------------------------------------------------------------------------------------------


def test_a_compressor_pays_exactly_where_its_batch_is_shorter(bench):
    config = VISION.config()
    none, other = outlook.compared(bench, config)[1], outlook.chosen(bench, config)
    assert none.label == outlook.NONE
    spans = outlook.pays(other, none, 10.0)
    assert spans and spans[0][0] == outlook.RATES[0], "at 1 Mbit/s five bits a value beat thirty-two"
    for rate in (2.0, 70.0, 900.0, 40_000.0):
        link = outlook.Link(rate_mbit=rate, latency_ms=10.0)
        assert (other.seconds(link) < none.seconds(link)) == any(low < rate < high for low, high in spans)


def test_rates_in_words():
    low, high = outlook.RATES[0], outlook.RATES[-1]
    assert outlook.in_words([]) == "nowhere"
    assert outlook.in_words([(low, 50.0)]) == "up to 50 Mbit/s"
    assert outlook.in_words([(low, 50.0), (2000.0, high)]) == "up to 50 Mbit/s, from 2 Gbit/s"
    assert outlook.in_words([(low, high)]).startswith("at every rate")


# --- The screen ------------------------------------------------------------------------------------------------------


def picture(lab):
    """The pixels of the view that is open."""
    return np.asarray(Image.open(io.BytesIO(lab.views[lab.tabs.selected_index].canvas.image.value)))


def test_only_the_controls_that_apply_are_shown(screen):
    codec = screen.controls.activations

    def shown():
        return {name for name in ("bits", "level_bits", "edges", "rank", "dtype", "zstd")
                if codec[name].layout.display != "none"}  # fmt: skip

    assert shown() == {"level_bits", "edges", "zstd"}
    codec.name.value = "power_iteration"
    assert shown() == {"rank"}
    codec.name.value = "none"
    assert shown() == set()
    assert screen.controls.hub.layout.display == "none"
    assert screen.controls.cuts.layout.display == "none"
    screen.controls.partition.value = "custom"
    assert screen.controls.cuts.layout.display is None


def test_a_fixed_set_of_choices_is_a_drop_down():
    """The dead zone's scale was a text field: the choices of each option were a list of the playground's own."""
    codec = CodecControls("activations", list(COMPRESSORS), "deadzone", {})
    choices = option_choices(COMPRESSORS)
    assert choices["scale"] == ("tensor", "row") and {"codes", "dtype", "edges"} <= choices.keys()
    assert {name: codec[name].options for name in choices} == choices


def test_a_compressor_that_is_chosen_has_its_own_defaults():
    """Codes that sort quantization packs stayed packed for a dead zone: four times its bytes, in no record's config."""
    codec = CodecControls("activations", list(COMPRESSORS), "sort", {"level_bits": 3})
    codec.name.value = "deadzone"
    assert codec.options() == {} and codec["codes"].value == "context"
    codec["step"].value = 0.7
    codec.name.value = "sort"
    assert (codec["codes"].value, codec["level_bits"].value) == ("packed", 3)
    codec.name.value = "deadzone"
    assert codec.options() == {"step": 0.7}, "what was chosen stays"
    assert CodecControls("activations", list(COMPRESSORS), "deadzone", {}).options() == {}


def test_a_step_given_as_a_whole_number_can_be_a_fraction_afterwards():
    codec = CodecControls("activations", list(COMPRESSORS), "deadzone", {"step": 2})
    codec["step"].value = 0.5
    assert codec.options()["step"] == 0.5


@pytest.mark.parametrize("view", [0, 1, 2, 3])
def test_moving_a_control_changes_the_figure(screen, view):
    screen.tabs.selected_index = view
    before = picture(screen)
    screen.controls.activations["level_bits"].value = 1
    assert picture(screen).shape == before.shape
    assert (picture(screen) != before).any()
    assert screen.problem.value == ""


def test_what_was_measured_is_not_measured_again(screen):
    counts = screen.bench.counts
    screen.controls.activations["level_bits"].value = 2
    before = dict(counts)
    screen.controls.activations["level_bits"].value = 3
    screen.controls.rate.value, screen.controls.latency.value = 700.0, 3.0
    for view in (1, 2, 3, 0):
        screen.tabs.selected_index = view
    screen.controls.activations["level_bits"].value = 2
    assert dict(counts) == before, "nothing of this is new"
    screen.controls.activations["edges"].value = "equal_count"
    assert counts["encodes"] == before["encodes"] + 4, "one codec, at four tensors"
    screen.controls.gradients.name.value = "fast"
    assert counts["encodes"] == before["encodes"] + 6, "the two gradients only"
    assert (counts["probes"], counts["timings"]) == (before["probes"], before["timings"])


def test_only_the_open_view_is_drawn(screen):
    draws = [view.canvas.draws for view in screen.views[:4]]
    screen.controls.rate.value = 123.0
    assert [view.canvas.draws for view in screen.views[:4]] == [draws[0] + 1, *draws[1:]]


def test_the_preset_and_the_slider_are_one_rate(screen):
    screen.controls.preset.value = "1 Gbit/s"
    assert screen.controls.read().mbit == 1000.0
    assert "1 Gbit/s" in screen.answer.value
    screen.controls.rate.value = 20.0
    assert screen.controls.preset.value == "by the slider"


def test_another_task_brings_its_own_model_and_its_tokens(screen):
    screen.tabs.selected_index = 2
    screen.controls.task.value = "cola"
    assert screen.controls.read().model == "roberta_tiny"
    assert screen.problem.value == ""
    assert "embedded acceptability corpus" in screen.views[2].words.value
    assert screen.views[2].channel.layout.display == "none"
    screen.views[2].sample.value = 3
    assert screen.problem.value == ""


def test_one_time_is_written_in_one_way(screen, monkeypatch):
    """The answer said 46 ms where the table below it said 45.6 ms."""
    monkeypatch.setattr(outlook.Candidate, "seconds", lambda self, link: 0.0456)
    screen.refresh()
    assert "45.6 ms uncompressed" in screen.answer.value and "45.6 ms" in screen.views[0].words.value


def test_everything_says_what_it_is_and_of_which_data(screen):
    for view in range(4):
        screen.tabs.selected_index = view
        text = screen.views[view].words.value
        assert "embedded digits standing in for CIFAR-10" in text
        assert "real" not in text
    assert "predicted" in screen.views[0].words.value and "measured" in screen.views[0].words.value
    assert "predicted" in screen.answer.value


def test_errors_of_tokens_below_the_least_have_no_bar():
    """Nothing lost was once drawn as bars that filled the picture, and a long sentence as words over each other."""
    axes = Figure().subplots(2, 1)
    tokens, errors = [f"word{place}" for place in range(128)], np.full(128, 1e-3)
    figures.error_by_token(axes[0], tokens, np.zeros(128), np.zeros(128))
    figures.error_by_token(axes[1], tokens, np.zeros(128), errors)
    drawn = [[bar.get_height() for bar in ax.patches if bar.get_height() > 0] for ax in axes]
    assert drawn == [[], [1e-3] * 128]
    assert [text.get_text() for text in axes[0].texts] == ["no error"]
    assert 30 < len(axes[1].get_xticks()) <= figures.MOST_WORDS


# --- Bad input -------------------------------------------------------------------------------------------------------


def test_three_micro_batches_of_a_batch_of_two(screen):
    screen.controls.batch_size.value, screen.controls.chunks.value = 2, 3
    assert "batch_size 2 is smaller than chunks 3" in screen.problem.value
    assert screen.answer.value == ""
    assert STALE in screen.tabs._dom_classes, "what is below is of an earlier choice"
    screen.controls.chunks.value = 2  # single samples, of one value a channel at this size
    assert "batch norm needs two" in screen.problem.value
    screen.controls.chunks.value = 1
    assert screen.problem.value == ""
    assert screen.answer.value
    assert STALE not in screen.tabs._dom_classes


def test_more_than_sixteen_bits_a_code(screen):
    screen.controls.activations["level_bits"].value = 12
    screen.controls.activations["bin_bits"].value = 8
    assert "level_bits 12 + bin_bits 8 must come to 1 to 16 bits" in screen.problem.value


def test_a_rank_above_the_tensors(screen):
    screen.controls.activations.name.value = "power_iteration"
    screen.controls.activations["rank"].value = 40
    assert "Rank 40 is more than activation 1 has" in screen.problem.value
    assert "32 x 256 matrix of at most 32 ranks" in screen.problem.value
    assert screen.answer.value, "the codec takes the highest rank there is: that can be shown"


def test_the_highest_rank_is_no_mistake():
    x = torch.zeros(2, 18, 64)
    assert rank_note(Codec.of("power_iteration", {"rank": 18}), "activation 1", x) == ""
    assert "at most 18 ranks" in rank_note(Codec.of("power_iteration", {"rank": "18,19"}), "activation 2", x)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mbit": 0.0}, "mbit must be a number from 1 to 100000, not 0.0"),
        ({"mbit": "fast"}, "not 'fast'"),
        ({"latency_ms": -1.0}, "latency_ms must be a number from 0 to 10000, not -1.0"),
        ({"chunks": 100}, "chunks must be a number from 1 to 32, not 100"),
        ({"epochs": 50}, "epochs must be a number from 1 to 20, not 50"),
    ],
)
def test_a_parameter_that_no_control_could_show_is_no_other_in_silence(change, words):
    """Sliders used to take the nearest number they have."""
    with pytest.raises(ConfigError, match=words):
        Choice.from_parameters(**change)


def test_an_unknown_option_is_explained_in_place(bench):
    lab = Playground(VISION.replace(options={"edges": "sharp"}), bench=bench)
    lab.refresh()
    assert "edges must be one of" in lab.problem.value and "sharp" in lab.problem.value


@pytest.mark.parametrize(
    ("cuts", "words"),
    [("", "give both"), ("3", "need two cuts"), ("9,3", "must rise"), ("a", "must be numbers"), ("3,99", "needs more")],
)
def test_impossible_cuts(screen, cuts, words):
    screen.controls.partition.value = "custom"
    screen.controls.cuts.value = cuts
    if not cuts:
        screen.refresh()
    assert words in screen.problem.value


def test_data_that_is_not_there_is_explained(screen, tmp_path):
    screen.controls.data.value = "real"
    screen.controls.hub.value = str(tmp_path)
    assert "Not possible" in screen.problem.value
    assert str(tmp_path) in screen.problem.value or "mirror" in screen.problem.value


def test_nothing_impossible_can_be_trained(screen):
    screen.tabs.selected_index = 4
    assert not screen.train.train.disabled
    screen.controls.batch_size.value, screen.controls.chunks.value = 2, 3
    assert screen.train.train.disabled
    screen.train.train.click()
    assert screen.train.thread.state == "idle"


def test_a_compressor_that_loses_the_tensor_is_not_recommended(screen):
    """On a slow link the fewest bits are fastest; the answer at the top passes over those with too large an error."""
    screen.controls.show(VISION.replace(compressor="none", options={}, mbit=1.0).filled())
    screen.refresh()
    scene = screen._scene()
    fastest = min(scene.compared, key=lambda each: each.seconds(scene.link))
    assert fastest.error > TOLERABLE_ERROR, "else this shows nothing"
    recommended = screen.answer.value.split("fastest with an error up to 0.1: ")[1].split(",")[0]
    (found,) = [each for each in scene.compared if each.label == recommended]
    assert found.error <= TOLERABLE_ERROR


def test_the_garbage_collector_does_not_look_through_what_is_loaded(bench, capsys):
    """Its rounds through all of torch took longer than the 300 ms that a control may."""
    before = gc.get_freeze_count()
    try:
        Playground(VISION, bench=bench).show()
        assert gc.get_freeze_count() > before + 100_000
    finally:
        gc.unfreeze()
