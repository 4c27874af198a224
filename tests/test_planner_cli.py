"""``plan`` on the command line: a ranking, what it assumed, files, and a command that means its best choice."""

import json
import shlex

import pandas as pd
import pytest

from splitlib import cli
from tests.support import refused_in_one_line

PLAN = ["plan", "--profile", "smoke", "--device", "cpu"]
FEW = ["--cuts", "named", "--compressors", "none", "uniform:bits=4", "--chunks", "1", "2"]


def test_plan_prints_ranking_assumptions_and_command(capsys, tmp_path):
    files = ["--csv", str(tmp_path / "plan.csv"), "--json", str(tmp_path / "plan.json")]
    small = ["--model", "mobilenet_v2_tiny", "--image-size", "32", "--link", "1Mbit", "--latency", "10ms", "--top", "3"]
    assert cli.main([*PLAN, *FEW, *small, *files]) == 0
    shown = capsys.readouterr().out
    table, values = pd.read_csv(tmp_path / "plan.csv"), json.loads((tmp_path / "plan.json").read_text())
    assert "mobilenet_v2_tiny, cifar10 (embedded), 32 px" in shown, "a vision model means cifar10"
    assert all(line in shown for line in values["assumptions"])
    assert values["link"] == {"rate_mbit": 1.0, "latency_ms": 10.0}
    assert list(table["predicted_s"]) == sorted(table["predicted_s"]) and table["compressor"][0] == "uniform:bits=4"
    command = shown.splitlines()[-1].strip()
    assert command == values["best"]["command"]
    options = cli._parser().parse_args(shlex.split(command)[3:])
    assert cli.config_from_options(options).to_dict() == values["best"]["config"]
    assert (options.link, options.latency) == ("1Mbit", "10ms")

    assert cli.main([*PLAN, *FEW, *small, "--each", "--link", "1Gbit"]) == 0
    again = capsys.readouterr().out
    assert "planner:" not in again, "another link measures nothing"
    assert again.count("uniform:bits=4") + again.count("none ") >= 2


def test_large_errors_are_marked_and_not_recommended(capsys):
    small = ["--task", "cifar10", "--model", "mobilenet_v2_tiny", "--image-size", "32", "--link", "0.1Mbit"]
    few = ["--cuts", "first_last", "--chunks", "1", "--top", "1", "--compressors", "uniform:bits=1"]
    assert cli.main([*PLAN, *small, *few, "uniform:bits=8"]) == 0
    shown = capsys.readouterr().out
    assert " !" in shown and "warning: ! errors above 0.1" in shown
    assert "the best, after" in shown and shown.splitlines()[-1].endswith("--bits 8")
    assert cli.main([*PLAN, *small, *few]) == 0
    shown = capsys.readouterr().out
    assert (
        "warning: no choice is without errors above 0.1 of the variance, so" in shown
        and "the least error, after" in shown
    )
    assert cli.main([*PLAN, *small, *few, "uniform:bits=8", "--max-error", "inf"]) == 0
    shown = capsys.readouterr().out
    assert "warning" not in shown and shown.splitlines()[-1].endswith("--bits 1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--link", "50"], ["link '50' is none", "50Mbit"]),
        (["--top", "0"], ["top must be at least 1, not 0"]),
        (["--compressors", "gzip"], ["gzip"]),
        (["--chunks", "many"], ["--chunks", "many"]),
        (["--chunks", "999"], ["cannot be cut into 999"]),
        (["--measured", "/nowhere.json"], ["/nowhere.json", "holds no readable costs", "name a file that a plan kept"]),
        (["--compressor", "sort"], ["--compressor"]),
        (["--error-feedback", "gradients"], ["unrecognized arguments: --error-feedback gradients"]),
        (["--coding", "change"], ["unrecognized arguments: --coding change"]),
        (["--padding", "skipped"], ["unrecognized arguments: --padding skipped"]),
        (["--device", "cpu,cpu,cuda:9"], ["names 3"]),
        (["--server-speed", "-1"], ["server_speed", "-1"]),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(arguments, words, capsys, tmp_path):
    refused_in_one_line([*PLAN, *arguments], words, capsys)
    assert not (tmp_path / "results").exists()


def test_nothing_is_measured_that_could_not_be_kept(capsys, monkeypatch):
    monkeypatch.setenv("SPLITLIB_RESULTS", "/proc/nowhere")  # refused to every user
    assert cli.main([*PLAN, *FEW]) == 2
    shown = capsys.readouterr()
    assert "cannot write /proc/nowhere" in shown.err and "planner:" not in shown.out


def test_a_schedule_can_be_planned_for(capsys):
    """It is one of client and server, and was read as one of a single process."""
    one = ["--task", "cola", "--cuts", "condition_1", "--compressors", "none", "--chunks", "2", "--schedule", "1f1b"]
    assert cli.main([*PLAN, *one]) == 0
    shown = capsys.readouterr().out
    assert "Schedule 1f1b" in shown and shown.splitlines()[-1].endswith("--schedule 1f1b")


def test_usual_numbers_of_micro_batches_that_cannot_be_are_left_out(capsys):
    """Nobody asked for the task's 8: of 8 images each would be alone, of 6 there are not so many."""
    small = ["--task", "cifar10", "--model", "mobilenet_v2_tiny", "--cuts", "first_last", "--compressors", "none"]
    for batch, sizes in (("8", "124"), ("6", "12")):
        assert cli.main([*PLAN, *small, "--batch-size", batch]) == 0
        rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["first_last"]]
        assert {row[3] for row in rows} == set(sizes)
    refused_in_one_line([*PLAN, *small, "--batch-size", "8", "--chunks", "8"], ["single image"], capsys)
    refused_in_one_line([*PLAN, *small, "--batch-size", "0"], ["batch_size must be at least 1, not 0"], capsys)


def test_help_of_plan_says_how(capsys):
    with pytest.raises(SystemExit):
        cli.main(["plan", "--help"])
    shown = capsys.readouterr().out
    for word in ("examples:", "--link", "--max-error", "--compressors", "--client-speed", "--image-size"):
        assert word in shown
    assert "--gradient-compressor" not in shown, "the planner chooses it"
