"""*Train this*: a run in a thread that shows itself, can be stopped, goes on, and gives the command line's record."""

import pytest

import splitlib
from splitlib.playground import training
from splitlib.playground.bench import Bench
from splitlib.playground.choice import Choice
from splitlib.playground.lab import Playground
from splitlib.playground.training import TrainingThread
from splitlib.results import all_records, load_record, record_path
from tests.support import TINY, trainer_of

SMALL = Choice(profile="smoke", task="cola", compressor="uniform", options={"bits": 8}, epochs=2, batch_size=16)


@pytest.fixture(scope="module")
def bench():
    """Measures once for all tests."""
    return Bench(device="cpu")


@pytest.fixture
def lab(bench):
    """A playground with *Train this* open; its buttons drive a real run."""
    made = Playground(SMALL, bench=bench)
    made.tabs.selected_index = made.views.index(made.train)
    yield made
    made.train.thread.stop()
    made.train.thread.wait(30)


def test_a_run_leaves_its_record_in_the_table_and_its_curve_on_screen(lab):
    assert "No record" in lab.train.records.value
    lab.train.train.click()
    assert lab.train.train.disabled and not lab.train.stop.disabled
    lab.train.thread.wait(60)
    assert lab.train.thread.state == training.FINISHED
    record = load_record(SMALL.config())
    assert record is not None and record == lab.train.thread.record
    assert len(lab.train.thread.losses) == 2 * 64 // 16
    assert lab.train.thread.metrics == [epoch.matthews for epoch in record.history]
    assert "▶" in lab.train.records.value and "uniform 8" in lab.train.records.value
    assert bytes(lab.train.canvas.image.value[:4]) == b"\x89PNG"
    assert lab.train.stop.disabled and not lab.train.train.disabled


def test_what_was_trained_before_is_shown_without_training(lab):
    record = splitlib.run(SMALL.config(), device="cpu")
    lab.train.train.click()
    lab.train.thread.wait(60)
    assert lab.train.thread.record == record
    assert lab.train.thread.losses == []
    assert "trained before" in lab.train.status.value
    assert lab.train.canvas.draws, "its epochs are drawn"


def test_a_stopped_run_goes_on_to_the_same_bits():
    config = TINY.replace(epochs=3)
    steps = []
    thread = TrainingThread(lambda: (steps.append(thread.done), thread.done >= 4 and thread.stop()))
    thread.start(config, hub=None, device="cpu")
    thread.wait(60)
    assert thread.state == training.STOPPED
    assert thread.done == 4, "after the step during which it was asked"
    assert all_records() == []
    again = TrainingThread(lambda: None)
    again.start(config, hub=None, device="cpu")
    again.wait(60)
    assert again.losses[0][0] == 5, "it goes on, and does not start anew"
    whole = splitlib.run(config, device="cpu", fresh=True)
    assert again.record is not None
    assert again.record.history == whole.history


def test_what_is_measured_meanwhile_does_not_change_the_run():
    """Moving a control measures in another thread, which drew from the generator that the run's dropout draws from."""
    alone = splitlib.run(TINY, device="cpu")
    thread = TrainingThread(lambda: None)
    record_path(TINY).unlink()
    thread.start(TINY, hub=None, device="cpu")
    while thread.running:
        trainer = trainer_of(TINY.replace(seed=1))
        for inputs, labels in trainer.rest_of_epoch():
            trainer.step(inputs, labels)
    assert thread.record is not None
    assert thread.record.history == alone.history


def test_a_stopped_run_goes_on_when_it_is_started_again():
    thread = TrainingThread(lambda: None)
    for stop, state in ((True, training.STOPPED), (False, training.FINISHED)):
        thread.start(TINY, hub=None, device="cpu")
        if stop:
            thread.stop()
        thread.wait(60)
        assert thread.state == state


def test_what_cannot_be_trained_is_told(tmp_path):
    thread = TrainingThread(lambda: None)
    thread.start(TINY.replace(data="real", weights="pretrained", model="roberta-base"), hub=tmp_path, device="cpu")
    thread.wait(60)
    assert thread.state == training.FAILED
    assert str(tmp_path) in thread.message or "roberta-base" in thread.message


def test_a_second_click_changes_nothing(lab):
    lab.train.train.click()
    first = lab.train.thread._thread
    lab.train._start()
    assert lab.train.thread._thread is first
