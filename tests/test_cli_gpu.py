"""The study for a GPU, tried without one: every step runs, stops in time, and goes on, also on another machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from splitlib import cli
from splitlib.cli import gpu_steps
from splitlib.config import RunConfig
from splitlib.experiment import run
from splitlib.gpu_rows import timed_rows, trained_rows
from splitlib.profiles import get_profile
from splitlib.results import all_records, load_record
from splitlib.runtime import checkpoints_dir, results_dir
from tests.support import refused_in_one_line

ROOT = Path(__file__).resolve().parent.parent
SMOKE = ["gpu", "--device", "cpu", "--profile", "smoke"]


def row(label: str) -> RunConfig:
    """The config of a row to train, as ``smoke`` runs it."""
    return get_profile("smoke").scale(trained_rows()[label])


def test_all_steps_on_a_cpu_in_under_two_minutes(tmp_path):
    command = [sys.executable, "-m", "splitlib", *SMOKE, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=115, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    for words in ("embedded digits", "--- 4/4 train", "s a step:", "for 13 if all are alike", "runs left: 0"):
        assert words in done.stdout
    check, timed, trained = (
        pd.read_csv(tmp_path / "out" / f"smoke-cpu-{name}.csv") for name in ("torchgpipe", "split", "train")
    )
    assert bool(check["equal"][0]) and check["loss"][0] == pytest.approx(check["unsplit_loss"][0])
    assert list(timed["row_label"]) == list(timed_rows()) and (timed["time_per_batch_s"] > 0).all()
    assert list(trained["row_label"]) == list(trained_rows())
    assert "plain uniform 8" in (tmp_path / "out" / "smoke-cpu-compressors.md").read_text()
    assert all(load_record(row(label)) for label in trained_rows())
    names = {path.name for path in results_dir().iterdir()}
    assert names == {path.name for path in (tmp_path / "out" / "results").iterdir()}
    assert len(names) == len(trained_rows()) + len(timed_rows())
    assert not list((tmp_path / "out" / "checkpoints").iterdir()) and not checkpoints_dir().exists()


def test_time_stops_a_run_which_goes_on_on_another_machine(tmp_path, monkeypatch, capsys):
    """The first row is done and the second in its second step when time is up; a machine with the folder goes on."""
    command = [*SMOKE, "--only", "none", "sort 4", "--minutes", "60", "--out", str(tmp_path / "out")]
    looks = iter(range(1000))
    with monkeypatch.context() as patch:
        patch.setattr(gpu_steps.TimeLimit, "over", property(lambda limit: next(looks) >= 9))
        assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "time is up" in shown and "runs left: 1" in shown
    whole = load_record(row("none"))
    assert whole is not None and load_record(row("sort 4")) is None
    checkpoint = tmp_path / "out" / "checkpoints" / f"{row('sort 4').key}.pt"
    assert torch.load(checkpoint, weights_only=True)["state"]["step"] == 2

    shutil.rmtree(results_dir())
    steps = []
    step = gpu_steps._Watched.advance
    monkeypatch.setattr(gpu_steps._Watched, "advance", lambda self, n=1, **k: (steps.append(n), step(self, n, **k))[1])
    assert cli.main(command) == 0
    assert "0 of them begun" not in capsys.readouterr().out
    assert sum(steps) == 2, "the other two of the second row's four steps"
    assert load_record(row("none")) == whole and not checkpoint.exists()
    assert load_record(row("sort 4")).history == run(row("sort 4"), fresh=True).history


def test_every_seed_is_a_run_and_the_table_holds_all_there_are(tmp_path):
    for only in (["none", "--seeds", "2"], ["sort 4"]):
        assert cli.main([*SMOKE, "--out", str(tmp_path / "out"), "--only", *only]) == 0
    assert sorted(record.config.seed for record in all_records()) == [0, 0, 1]
    table = pd.read_csv(tmp_path / "out" / "smoke-cpu-train.csv")
    assert list(zip(table["row_label"], table["seed"], strict=True)) == [("none", 0), ("sort 4", 0), ("none", 1)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "sort 5"], ["unknown step or row 'sort 5'", "torchgpipe", "cube_root 2"]),
        (["--seeds", "0"], ["seeds must be at least 1, not 0"]),
        (["--minutes", "0"], ["minutes must be more than 0, not 0"]),
        (["--profile", "quick"], ["quick", "paper"]),
        (["--device", "tpu"], ["unknown device 'tpu'"]),
        (["--hub", "/nowhere", "--profile", "paper"], ["no hub mirror at /nowhere"]),
        (["--out", f"{__file__}/below"], ["below: Not a directory; name another folder with --out"]),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(arguments, words, capsys, tmp_path):
    refused_in_one_line([*SMOKE, "--out", str(tmp_path / "out"), *arguments], words, capsys)
    assert not (tmp_path / "out").exists() and not results_dir().exists()


def test_without_a_gpu_it_says_what_it_needs(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused_in_one_line(["gpu"], ["--device cuda needs an NVIDIA GPU", "--device cpu --profile smoke"], capsys)


def test_help_says_what_it_does(capsys):
    with pytest.raises(SystemExit):
        cli.main(["gpu", "--help"])
    shown = capsys.readouterr().out
    assert "examples:" in shown and "--minutes" in shown and "cube_root" in shown
