"""Devices, folders, atomic writes and progress lines."""

import re
import stat

import pytest
import torch

from splitlib import experiment, progress, runtime
from splitlib.errors import ConfigError
from splitlib.files import write_atomically, write_text
from splitlib.progress import Progress
from tests import support


def test_folders_follow_the_project_then_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("SPLITLIB_RESULTS")
    (tmp_path / "run_all.py").touch()
    inside = tmp_path / "notebooks"
    inside.mkdir()
    monkeypatch.chdir(inside)
    assert runtime.results_dir() == tmp_path / "results"
    monkeypatch.setenv("SPLITLIB_RESULTS", str(tmp_path / "elsewhere"))
    assert runtime.results_dir() == tmp_path / "elsewhere"


@pytest.mark.parametrize("variable", ["SPLITLIB_RESULTS", "SPLITLIB_CHECKPOINTS"])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_file_where_a_folder_should_be_is_refused_before_anything_is_trained(variable, fresh, tmp_path, monkeypatch):
    monkeypatch.setattr("splitlib.training.Trainer.fit", lambda *_: pytest.fail("it trains"))
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=rf"file is no folder; set \${variable}"):
        experiment.run(support.TINY, fresh=fresh)


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:64"])
def test_a_device_that_is_not_there_is_an_error(name):
    with pytest.raises(ConfigError, match=name):
        runtime.pick_device(name)


def test_auto_takes_a_gpu_when_there_is_one():
    assert runtime.pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "record"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_can_be_read_by_others(tmp_path):
    write_text(tmp_path / "record", "new")
    assert stat.S_IMODE((tmp_path / "record").stat().st_mode) == 0o644


def test_environment_names_hardware_and_versions():
    found = runtime.environment(torch.device("cpu"))
    assert found["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert re.search(r"\d+ threads?$", found["hardware"])
    assert f"CPU capability usage: {found['instructions']}" in torch.__config__.show()


def test_a_record_says_on_what_by_what_and_when_it_was_made():
    made = runtime.provenance(torch.device("cpu"))
    assert made.keys() == {"environment", "splitlib_version", "created"}
    assert made["environment"] == runtime.environment(torch.device("cpu"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", made["created"])


def test_a_log_gets_few_whole_lines(monkeypatch, capsys):
    monkeypatch.setenv("SPLITLIB_PROGRESS", "log")
    with Progress("cola seed 0", total=500) as bar:
        for step in range(500):
            bar.advance(loss=step / 500)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("cola seed 0: 0/500")
    assert re.fullmatch(r"cola seed 0: 500/500  loss 0\.998  \d+ s", lines[1])


def test_a_long_log_says_where_it_is(monkeypatch, capsys):
    monkeypatch.setenv("SPLITLIB_PROGRESS", "log")
    clock = iter(range(0, 10_000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with Progress("slow", total=6) as bar:
        for _ in range(6):
            bar.advance()
    lines = capsys.readouterr().out.splitlines()
    assert 3 <= len(lines) <= 5
    assert any("s left" in line for line in lines[1:-1])


def test_a_resumed_bar_starts_where_it_stopped(monkeypatch, capsys):
    monkeypatch.setenv("SPLITLIB_PROGRESS", "log")
    with Progress("again", total=10, done=7) as bar:
        bar.advance(3)
    assert capsys.readouterr().out.startswith("again: 7/10")


def test_a_terminal_gets_one_bar(monkeypatch, capsys):
    monkeypatch.setenv("SPLITLIB_PROGRESS", "terminal")
    with Progress("bar", total=3) as bar:
        for _ in range(3):
            bar.advance(loss=1.0)
    captured = capsys.readouterr()
    assert captured.out == "" and "bar" in captured.err and "\n" not in captured.err.strip()


def test_one_device_serves_all_stages_or_each_has_its_own():
    cpu = torch.device("cpu")
    assert runtime.pick_devices("cpu", 4) == [cpu] * 4
    assert runtime.pick_devices("cpu, cpu,cpu", 3) == [cpu] * 3
    with pytest.raises(ConfigError, match="3 stages need one device, or 3, not the 2 of 'cpu,cpu'"):
        runtime.pick_devices("cpu,cpu", 3)
    with pytest.raises(ConfigError, match="unknown device 'gpu'"):
        runtime.pick_devices("cpu,gpu,cpu", 3)
