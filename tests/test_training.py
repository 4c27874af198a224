"""One loop: it learns, it resumes with the same bits, it says when a run went wrong."""

import os
import signal
from pathlib import Path

import pytest
import torch
from transformers import get_scheduler

from splitlib import experiment, training
from splitlib.compressors import make_compressor
from splitlib.config import RunConfig
from splitlib.data import load_task
from splitlib.errors import ConfigError, DataError, RecordError, WriteError
from splitlib.models import build_model
from splitlib.optimization import Updater, make_optimizer, rate_left
from splitlib.partition import split
from splitlib.pipeline import build_pipeline
from splitlib.profiles import get_profile
from splitlib.progress import Progress
from splitlib.results import load_record, record_path, save_record
from splitlib.runtime import checkpoints_dir
from splitlib.training import Trainer, evaluate
from tests.support import TINY, record, trainer_of


def silent(total: int = 1) -> Progress:
    """A progress bar for the log."""
    return Progress("test", total)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """A copy of everything the model holds."""
    return {name: tensor.clone() for name, tensor in trainer.engine.state_dict().items()}


def test_training_lowers_the_loss_and_beats_chance():
    config = TINY.replace(train_samples=None, eval_samples=None, epochs=4, lr=1e-3, chunks=1, partition="none")
    record = experiment.run(config)
    assert record.history[-1].train_loss < record.history[0].train_loss
    assert record.best.matthews > 0.1


def test_the_same_config_gives_the_same_bits():
    first, second = experiment.run(TINY), experiment.run(TINY, fresh=True)
    assert first.created <= second.created
    assert first.history == second.history


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        TINY.replace(optimizer="sgd", momentum=0.9, scheduler="cosine", warmup=0.2, precision="bf16"),
        RunConfig(
            task="cifar10",
            model="mobilenet_v2_tiny",
            weights="random",
            image_size=32,
            train_samples=48,
            eval_samples=20,
            epochs=2,
            batch_size=16,
            chunks=2,
            compressor="sort",
        ),
    ],
    ids=["adamw", "sgd bf16", "vision sort"],
)
@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_a_stopped_run_goes_on_with_the_same_bits(config, stop_after, tmp_path):
    whole = trainer_of(config)
    whole.fit(tmp_path / "whole.pt", silent())

    stopped = trainer_of(config)
    _stop_after(stopped, stop_after)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(tmp_path / "stopped.pt", silent())
    torch.manual_seed(12345)  # whatever the process did in between
    resumed = trainer_of(config)
    resumed.restore(tmp_path / "stopped.pt")
    assert resumed.steps_done == stop_after
    resumed.fit(tmp_path / "stopped.pt", silent())

    assert resumed.state.history == whole.state.history
    assert resumed.engine.traffic == whole.engine.traffic
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name


def _stop_after(trainer: Trainer, steps: int) -> None:
    """Press Ctrl-C while step number ``steps`` is running."""
    step, taken = trainer.step, iter(range(1, 1000))

    def pressing(inputs, labels):
        if next(taken) == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return step(inputs, labels)

    trainer.step = pressing


def test_ctrl_c_keeps_a_checkpoint_and_the_next_run_uses_it(monkeypatch):
    original = Trainer.step
    calls = []

    def pressing(self, inputs, labels):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, inputs, labels)

    monkeypatch.setattr(Trainer, "step", pressing)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(TINY)
    assert load_record(TINY) is None
    assert (checkpoints_dir() / f"{TINY.key}.pt").exists()
    record = experiment.run(TINY)
    assert len(calls) == 2 * 6, "each of the 12 steps was taken once"
    assert len(record.history) == 2
    assert record.weights_norm == trainer_of(TINY).engine.weights_norm(), "of what training started from"
    assert not (checkpoints_dir() / f"{TINY.key}.pt").exists()


def test_a_second_ctrl_c_acts_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt), training._deferred_interrupt() as interrupted:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupted.is_set()
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the second Ctrl-C was held back too")
    finally:
        signal.signal(signal.SIGINT, before)


class _Stops(Progress):
    """Stops a run after its first step."""

    def advance(self, steps=1, **numbers):
        super().advance(steps, **numbers)
        self.stopped = True


@pytest.mark.parametrize("engine", ["in_process", "simulated"])
def test_a_stopped_fresh_run_goes_on_in_place_of_the_older_record(engine, monkeypatch):
    """The older record was returned, and the checkpoint that Ctrl-C had promised to go on from was never read again."""
    config = TINY.replace(engine=engine)
    old = experiment.run(config)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(config, fresh=True, progress=_Stops)
    assert load_record(config) == old and not experiment.is_found(config)
    assert experiment.sweep({"row": config}, recorded=True) == {"row": [old]}, "what only shows records trains nothing"
    steps, step = [], Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self, *batch: steps.append(self.steps_done) or step(self, *batch))
    new = experiment.run(config)
    assert steps == list(range(1, 12)) and new.history == old.history and new.train_seconds != old.train_seconds
    assert load_record(config) == new == experiment.run(config) and not list(checkpoints_dir().iterdir())


@pytest.mark.parametrize("engine", ["in_process", "simulated"])
def test_a_fresh_run_that_is_killed_in_its_first_minute_goes_on(engine, monkeypatch):
    config = TINY.replace(engine=engine)
    old = experiment.run(config)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", lambda *_: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            experiment.run(config, fresh=True)
    again = experiment.run(config)
    assert again.train_seconds != old.train_seconds and again.history == old.history


def test_a_fresh_run_that_never_began_leaves_all_as_it_was(monkeypatch):
    old = experiment.run(TINY)
    monkeypatch.setattr(experiment, "load_task", lambda *_, **__: (_ for _ in ()).throw(DataError("gone")))
    with pytest.raises(DataError):
        experiment.run(TINY, fresh=True)
    assert experiment.run(TINY) == old and not list(checkpoints_dir().iterdir())


def test_a_run_killed_between_its_record_and_its_checkpoint_is_whole(monkeypatch):
    """Of two machines the server had forgotten the run by then, and could not have gone on."""
    config, unlink = TINY.replace(engine="simulated"), Path.unlink

    def kept(path, missing_ok=False):
        if path.parent != checkpoints_dir() or "server" in path.name:
            unlink(path, missing_ok)
        elif path.exists():
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", kept)
        with pytest.raises(SystemExit):
            experiment.run(config, fresh=True)
    made = load_record(config)
    assert experiment.run(config).history == made.history and not list(checkpoints_dir().iterdir())


def test_a_checkpoint_of_no_fresh_run_replaces_no_record():
    trainer = trainer_of(TINY)
    trainer.save(checkpoints_dir() / f"{TINY.key}.pt")
    save_record(record(config=TINY))
    assert experiment.run(TINY) == load_record(TINY) == record(config=TINY)


def test_a_mistyped_hub_is_an_error_also_where_there_is_a_record(tmp_path):
    """The record was returned, whatever folder was named."""
    real = get_profile("smoke").scale(RunConfig(task="cola"), data="real")
    save_record(record(config=real))
    assert experiment.run(real) == record(config=real)
    with pytest.raises(DataError, match=r"no hub mirror at .*gone"):
        experiment.run(real, hub=tmp_path / "gone")


def test_fresh_starts_over_although_a_checkpoint_is_there(monkeypatch):
    trainer, steps = trainer_of(TINY), []
    trainer._timed_step(*next(iter(trainer.rest_of_epoch())))
    trainer.save(checkpoints_dir() / f"{TINY.key}.pt")
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self, *batch: steps.append(self.steps_done) or step(self, *batch))
    experiment.run(TINY, fresh=True)
    assert steps == list(range(12))


def test_a_foreign_or_damaged_checkpoint_is_refused(tmp_path):
    trainer = trainer_of(TINY)
    trainer.save(tmp_path / "own.pt")
    with pytest.raises(RecordError, match="another config"):
        trainer_of(TINY.replace(seed=1)).restore(tmp_path / "own.pt")
    older = torch.load(tmp_path / "own.pt", weights_only=True)
    torch.save({**older, "format": 1}, tmp_path / "older.pt")
    with pytest.raises(RecordError, match="no checkpoint of this version"):
        trainer.restore(tmp_path / "older.pt")
    (tmp_path / "own.pt").write_bytes((tmp_path / "own.pt").read_bytes()[:1000])
    with pytest.raises(RecordError, match="not a readable checkpoint; delete it"):
        trainer.restore(tmp_path / "own.pt")


def test_a_flipped_bit_of_a_weight_does_not_go_on_training(tmp_path):
    trainer, path = trainer_of(TINY), tmp_path / "own.pt"
    trainer.save(path)
    contents = bytearray(path.read_bytes())
    weight = next(iter(trainer.engine.state_dict().values()))
    contents[contents.index(weight.numpy().tobytes()) + 3] ^= 1  # in the exponent of the first value
    path.write_bytes(contents)
    with pytest.raises(RecordError, match="not a readable checkpoint; delete it"):
        trainer_of(TINY).restore(path)


@pytest.mark.parametrize("part", ["state", "traffic", "model", "channels", "updater"])
def test_a_checkpoint_that_lacks_a_part_is_refused(part, tmp_path):
    trainer, path = trainer_of(TINY), tmp_path / "own.pt"
    trainer.save(path)
    contents = torch.load(path, weights_only=True)
    for wrong in ({}, {part: {"other": 1}}):
        torch.save({name: value for name, value in contents.items() if name != part} | wrong, path)
        with pytest.raises(RecordError, match="lacks part of the run's state; delete it"):
            trainer_of(TINY).restore(path)


@pytest.mark.parametrize("engine", ["in_process", "simulated"])
def test_ctrl_c_in_the_last_evaluation_ends_a_sweep_and_costs_nothing(engine, monkeypatch):
    config, evaluated = TINY.replace(engine=engine), []

    def pressing(*args, **options):
        evaluated.append(options["epoch"])
        if evaluated == [1, 2]:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(*args, **options)

    monkeypatch.setattr(training, "evaluate", pressing)
    with pytest.raises(KeyboardInterrupt):
        experiment.sweep({"first": config, "second": config.replace(seed=1)})
    assert evaluated == [1, 2], "the second row has not begun"
    assert len(experiment.run(config).history) == 2 and evaluated == [1, 2]


@pytest.mark.parametrize("seeds", [0, -1])
def test_a_sweep_of_no_seeds_is_an_error(seeds):
    with pytest.raises(ConfigError, match=f"seeds must be at least 1, not {seeds}"):
        experiment.sweep({"none": TINY}, seeds=seeds)


@pytest.mark.parametrize("variable", ["SPLITLIB_RESULTS", "SPLITLIB_CHECKPOINTS"])
def test_a_folder_that_cannot_be_written_is_known_before_training(variable, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file" / "below"))
    monkeypatch.setattr(Trainer, "step", lambda *_: pytest.fail("trained"))
    with pytest.raises(WriteError, match=rf"below: Not a directory; name another folder with \${variable}"):
        experiment.run(TINY)
    monkeypatch.setenv(variable, "a" * 300)
    with pytest.raises(ConfigError, match=rf"is no folder; set \${variable}"):
        experiment.run(TINY)


def test_a_record_is_returned_not_remade():
    first = experiment.run(TINY)
    stamp = record_path(TINY).stat().st_mtime_ns
    assert experiment.run(TINY) == first
    assert record_path(TINY).stat().st_mtime_ns == stamp


def test_a_sweep_runs_each_row_with_each_seed_once():
    small = TINY.replace(epochs=1, train_samples=32)
    runs = experiment.sweep({"none": small, "sort": small.replace(compressor="sort")}, seeds=2)
    assert [[r.config.seed for r in records] for records in runs.values()] == [[0, 1], [0, 1]]
    assert runs["sort"][0].compression_ratio < 0.3 < runs["none"][0].compression_ratio


def test_seeds_count_from_the_rows_own():
    small = TINY.replace(epochs=1, train_samples=32, seed=5)
    assert [r.config.seed for r in experiment.sweep({"row": small}, seeds=2)["row"]] == [5, 6]


def test_a_sweep_of_records_trains_nothing():
    rows = {"there": TINY.replace(epochs=1), "not there": TINY.replace(epochs=1, lr=1e-3)}
    made = experiment.sweep({"there": rows["there"]}, seeds=2)["there"]
    found = experiment.sweep(rows, seeds=3, recorded=True)
    assert found == {"there": made, "not there": []}


def test_a_diverged_run_saves_no_half_epoch_and_counts_the_steps_it_took(monkeypatch):
    """Its last epoch is short; saved in the middle, it would never get its evaluation."""
    saved = []
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(Trainer, "save", lambda trainer, path: saved.append(trainer.state.step))
    record = experiment.run(TINY.replace(lr=1e30, optimizer="sgd", epochs=1))
    *steps, end = saved
    assert record.diverged and len(record.history) == 1 and end == 0
    assert steps == list(range(1, len(steps) + 1)) and len(steps) < 5, "all but the step that diverged"
    assert record.samples_seen == (len(steps) + 1) * TINY.batch_size


def test_divergence_ends_the_run_and_is_flagged():
    record = experiment.run(TINY.replace(lr=1e30, optimizer="sgd"))
    assert record.diverged
    assert record.history[-1].epoch <= 2


def test_collapse_is_flagged():
    """Decaying the weights to nothing leaves one prediction, whatever the sentence."""
    record = experiment.run(TINY.replace(lr=1e-2, weight_decay=99.0, scheduler="constant"))
    assert record.collapsed and record.last.predicted_classes == 1
    assert record.last.matthews == 0.0
    assert not record.diverged


def test_lora_trains_adapters_and_classifier_only():
    config = TINY.replace(lora_rank=4, lora_alpha=8, epochs=1)
    trainer = trainer_of(config)
    before = weights(trainer)
    for inputs, labels in trainer.rest_of_epoch(0):
        trainer.step(inputs, labels)
    changed = {name for name, tensor in weights(trainer).items() if not torch.equal(tensor, before[name])}
    assert changed and all("lora_" in name or ("layers." in name and "attention" not in name) for name in changed)
    assert any("lora_A" in name for name in changed) and any("out_proj" in name for name in changed)


@pytest.mark.parametrize(
    ("scheduler", "middle"), [("constant", 1.0), ("linear", 0.5), ("polynomial", 0.5), ("cosine", 0.5)]
)
def test_schedules_warm_up_and_decay(scheduler, middle):
    trainer = trainer_of(TINY.replace(scheduler=scheduler, warmup=0.5, epochs=4, lr=1.0))
    rates = []
    for _ in range(24):
        rates.append(trainer.updater.optimizer.param_groups[0]["lr"])
        trainer.updater.optimizer.step()
        trainer.updater.scheduler.step()
    assert rates[:13] == pytest.approx([step / 12 for step in range(13)])
    assert rates[18] == pytest.approx(middle, abs=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_optimizers_take_their_settings(name):
    extra = {"momentum": 0.1} if name == "sgd" else {"adam_eps": 1e-6, "adam_beta2": 0.98}
    config = TINY.replace(optimizer=name, weight_decay=0.1, lr=0.25, **extra)
    optimizer = make_optimizer(torch.nn.Linear(2, 2), config)
    group = optimizer.param_groups[0]
    assert type(optimizer).__name__.lower() == name
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.1)
    if name == "sgd":
        assert group["momentum"] == 0.1
    else:
        assert (group["eps"], group["betas"]) == (1e-6, (0.9, 0.98))


def test_fp16_scales_the_loss():
    config = TINY.replace(precision="fp16")
    updater = Updater(torch.nn.Linear(2, 2), config, total_steps=4, device=torch.device("cpu"))
    assert updater.scale(torch.tensor(1.0)) > 1000


def test_evaluation_agrees_with_scikit_learn_on_known_predictions():
    config = TINY.replace(partition="none", chunks=1)
    data = load_task(config)
    torch.manual_seed(0)
    model = build_model(config, num_labels=2)
    model.classifier.out_proj.weight.data.zero_()
    model.classifier.out_proj.bias.data = torch.tensor([0.0, 1.0])  # always class 1
    codec = make_compressor("none")
    pipeline = build_pipeline(
        split(model, "none").parts, devices=[torch.device("cpu")], chunks=1, activations=codec, gradients=codec
    )
    result = evaluate(pipeline, data, epoch=1, train_loss=0.0)
    labels = torch.tensor([int(data.eval[i][1]) for i in range(len(data.eval))])
    assert result.accuracy == pytest.approx(labels.float().mean().item())
    assert (result.matthews, result.predicted_classes) == (0.0, 1)


def test_evaluation_draws_no_dropout():
    trainer = trainer_of(TINY)
    trainer.engine.train()
    first, again = (evaluate(trainer.engine, trainer.data, epoch=1, train_loss=0.0) for _ in range(2))
    assert first == again and not trainer.engine.training


def test_nothing_is_written_before_everything_is_checked(tmp_path):
    for wrong, words in (
        (TINY.replace(compressor="sort", compressor_options={"bits": 8}), "no parameter 'bits'"),
        (TINY.replace(precision="fp16"), "fp16 training on a CPU"),
        (TINY.replace(train_samples=10**6), "1000000"),
    ):
        with pytest.raises(ConfigError, match=words):
            experiment.run(wrong, device="cpu")
    assert not any((tmp_path / folder).exists() for folder in ("results", "checkpoints"))


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "polynomial"])
def test_schedules_are_those_of_transformers(name, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.003)
    theirs = get_scheduler("constant_with_warmup" if name == "constant" else name, optimizer, warmup, 11)
    for step in range(14):
        assert 0.003 * rate_left(name, step, warmup=warmup, total=11, lr=0.003) == theirs.get_last_lr()[0], step
        optimizer.step()
        theirs.step()
