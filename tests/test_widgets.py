"""The widgets of the studies: a control moves, the picture changes, and nothing is trained or measured."""

import base64
import io

import matplotlib
import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

import splitlib
from splitlib import experiment, widgets
from splitlib.compressors import decode, make_compressor, relative_error
from splitlib.measuring import batches, stages
from splitlib.pipeline.predict import Message, Work
from splitlib.plots import QUANTITIES
from splitlib.training import EpochResult
from splitlib.widgets import tensors as tensor_widgets
from splitlib.workbook.execution import _exporter
from tests.support import TINY
from tests.test_plots_exploring import TABLE

matplotlib.use("Agg")
RAW = Message(nbytes=10**6)
WORK = Work(
    head_forward=0.01, body_forward=0.02, tail_forward=0.01, tail_backward=0.01, body_backward=0.04, head_backward=0.02,
    activation_1=RAW, activation_2=RAW, gradient_2=RAW, gradient_1=RAW,
)  # fmt: skip
SMALL = dict.fromkeys(("activation_1", "activation_2", "gradient_1", "gradient_2"), Message(nbytes=10**5, encode=0.02))
TENSORS = {"activation 1": torch.randn(4, 8, 6, 6, generator=torch.Generator().manual_seed(0)).relu()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("RESULTS", "CHECKPOINTS"):
            patch.setenv(f"SPLITLIB_{variable}", str(tmp_path_factory.mktemp(variable.lower())))
        return {name: [splitlib.run(TINY.replace(epochs=1, lr=lr))] for name, lr in (("one", 5e-4), ("two", 1e-4))}


@pytest.fixture
def make(runs):
    """A fresh widget of each kind."""
    works, chunks = {"none": WORK, "small": Work(**{**vars(WORK), **SMALL})}, {"none": 2, "small": 2}
    return {
        "curves": lambda: widgets.explore_curves("title", runs),
        "comparison": lambda: widgets.explore_comparison("title", {"first": TABLE, "second": TABLE.iloc[:2]}),
        "codecs": lambda: widgets.explore_codecs("title", {**TENSORS, "gradient 1": TENSORS["activation 1"] ** 2}),
        "spectrum": lambda: widgets.explore_spectrum("title", TENSORS),
        "batch": lambda: widgets.explore_batch("title", works, chunks),
        "cuts": lambda: widgets.explore_cuts("title", {"m": [1, 2, 3, 4]}, {"m": [5, 6, 7]}),
    }


MOVES = {
    "curves": {"quantity": "train_loss"},
    "comparison": {"table": "second", "show": "changes against the baseline"},
    "codecs": {"tensor": "gradient 1", "codecs": ("uniform", "power iteration")},
    "spectrum": {"rank": 1},
    "batch": {"way": "small", "rate": 10.0, "schedule": "1f1b"},
    "cuts": {"cuts": (2, 3)},
}


@pytest.mark.parametrize("kind", MOVES)
def test_every_control_changes_the_picture_and_starts_nothing(kind, make, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a widget trains or measures")

    monkeypatch.setattr(experiment, "prepare", refuse)
    monkeypatch.setattr(batches, "prepare", refuse)
    monkeypatch.setattr(stages, "codec_times", refuse)
    open_before = matplotlib.pyplot.get_fignums()
    explorer = make[kind]()
    for name, value in MOVES[kind].items():
        before = explorer.picture.value
        explorer.controls[name].value = value
        assert explorer.picture.value != before, name
        assert explorer.words.value == ""
    with Image.open(io.BytesIO(explorer.picture.value)) as picture:
        assert np.asarray(picture).std() > 10, "something is drawn"
    assert matplotlib.pyplot.get_fignums() == open_before, "no cell shows a figure a second time"


def test_what_is_impossible_is_said_in_words_and_the_picture_stays(make):
    explorer = make["codecs"]()
    before = explorer.picture.value
    explorer.controls["codecs"].value = ()
    assert "no codec is chosen" in explorer.words.value and explorer.picture.value == before
    explorer.controls["codecs"].value = ("uniform",)
    assert explorer.words.value == ""


@pytest.mark.parametrize("runs", [{}, {"never run": []}])
def test_without_runs_there_are_words_and_no_picture(runs):
    explorer = widgets.explore_curves("title", runs)
    assert "nothing was run" in explorer.words.value
    assert "image/png" not in explorer._repr_mimebundle_()


def test_curves_start_with_the_tasks_own_metric_and_know_what_a_record_has(make):
    explorer = make["curves"]()
    assert explorer.controls["quantity"].value == "matthews"
    assert set(QUANTITIES) <= set(EpochResult.__dataclass_fields__)


def test_where_there_is_no_kernel_the_picture_stands_for_the_widget(make):
    explorer = make["cuts"]()
    bundle = explorer._repr_mimebundle_()
    view = "application/vnd.jupyter.widget-view+json"
    assert bundle[view]["model_id"] == explorer.model_id
    assert base64.b64decode(bundle["image/png"]) == explorer.picture.value
    output = nbformat.v4.new_output("display_data", data=bundle)
    cell = nbformat.v4.new_code_cell("", outputs=[output])
    page = _exporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))[0]
    assert bundle["image/png"][:60] in page and "widget-view+json" not in page.split("<body")[1]


def test_error_and_ratio_are_those_of_the_codec():
    x = TENSORS["activation 1"]
    found = tensor_widgets._once(x, "4 bits", make_compressor("uniform", bits=4))
    payload = make_compressor("uniform", bits=4).encode(x)
    assert found["compression_ratio"] == payload.nbytes / (4 * x.numel())
    assert found["error"] == relative_error(x, decode(payload))


def test_a_large_tensor_is_cut_to_whole_samples(monkeypatch):
    monkeypatch.setattr(tensor_widgets, "LARGEST", 700)
    assert tensor_widgets._first_samples(TENSORS["activation 1"]).shape == (2, 8, 6, 6)
    assert tensor_widgets._first_samples(torch.zeros(3, 1000)).shape == (1, 1000)


def test_no_rank_is_offered_that_a_tensor_has_not():
    assert [text for text, _ in tensor_widgets.CODECS["power iteration"](torch.zeros(2, 5, 6))] == [
        "rank 1", "rank 2", "rank 4"
    ]  # fmt: skip


def test_a_tensor_too_small_for_any_codec_is_no_error():
    explorer = widgets.explore_codecs("title", {"tiny": torch.ones(1, 2)})
    assert explorer.words.value == "" and explorer.picture.value


def test_energy_is_a_mean_over_samples_and_ends_at_one():
    rank_one = torch.outer(torch.arange(1.0, 5), torch.arange(1.0, 4))
    shares = tensor_widgets._energy(torch.stack([rank_one, torch.eye(4, 3)]))
    assert shares == pytest.approx([(1 + 1 / 3) / 2, (1 + 2 / 3) / 2, 1.0])
