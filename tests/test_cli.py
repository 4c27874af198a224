"""The command line: one run, one record; every mistake is one line and writes nothing."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from splitlib import cli, experiment
from splitlib.compressors import COMPRESSORS
from splitlib.config import RunConfig, setting_fields, size_text
from splitlib.models.inserted import INSERTS
from splitlib.options import option_help
from splitlib.results import all_records, read_record, record_path, save_record
from splitlib.runtime import results_dir
from tests.support import record, refused_in_one_line

SMOKE = ["run", "--profile", "smoke"]


def config_of(*arguments: str):
    """The config a command line means."""
    return cli.config_from_options(cli._parser().parse_args(["run", *arguments]))


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("cifar10", ["--compressor", "sort", "--level-bits", "6", "--bin-bits", "2", "--chunks", "4"]),
        (
            "cola",
            ["--compressor", "uniform", "--bits", "4", "--gradient-compressor", "uniform", "--gradient-bits", "8"],
        ),
    ],
)
def test_one_run_one_record(task, settings, capsys):
    assert cli.main([*SMOKE, "--task", task, *settings]) == 0
    (made,) = all_records()
    shown = capsys.readouterr().out
    assert made.config.task == task and made.config.compressor == settings[1]
    assert made.compression_ratio < 0.4
    assert made.config.key in shown and made.data_label in shown and "samples/s" in shown and "found" not in shown
    stamp = made.created
    assert cli.main([*SMOKE, "--task", task, *settings]) == 0
    assert all_records()[0].created == stamp


def test_records_lists_what_there_is(capsys):
    assert cli.main(["records"]) == 0
    assert capsys.readouterr().out == f"no records in {results_dir()}\n"
    kept = record(config=RunConfig(task="rte", compressor="sort", compressor_options={"level_bits": 6}))
    save_record(kept)
    assert cli.main(["records"]) == 0
    shown = capsys.readouterr().out
    for words in (kept.config.key, "rte", "sort (level_bits 6)", size_text(kept.config), "0.2500", "50.00", "40.00"):
        assert words in shown


def test_records_lists_the_others_when_one_is_damaged(capsys):
    save_record(record())
    damaged = save_record(record(config=RunConfig(task="cola", seed=1)))
    damaged.write_text("{")
    (damaged.parent / "settings.json").write_text("{}")
    assert cli.main(["records"]) == 0
    shown = capsys.readouterr()
    assert "no records" not in shown.out and len(shown.out.splitlines()) == 2
    assert shown.err.startswith(f"splitlib: warning: {damaged} is not a readable record") and shown.err.count("\n") == 1


@pytest.fixture
def two_kept():
    """Two records, the first with a setting that is none and options."""
    codec = {"compressor": "deadzone", "compressor_options": {"step": 0.5}, "gradient_compressor": "none"}
    kept = record(config=RunConfig(task="rte", data="real", epochs=4, **codec), weights_norm=280.376715)
    save_record(kept)
    save_record(record(config=RunConfig(task="cola", seed=1)))
    return kept


def test_a_record_is_shown_in_full(two_kept, capsys):
    assert cli.main(["records", two_kept.config.key[:6]]) == 0
    shown = capsys.readouterr().out
    flowing = " ".join(shown.split())
    for name, value in two_kept.config.to_dict().items():
        text = {"compressor_options": "step 0.5", "gradient_options": "-"}.get(name, value)
        assert f" {name} {'-' if text in (None, '', {}) else text} " in flowing
    for words in (
        str(record_path(two_kept.config)),
        "epoch training loss validation loss accuracy [%] Matthews correlation [%] classes predicted 1 0.5000 0.6000 "
        "70.00 30.00 2 2 0.5000 0.6000 70.00 50.00 2 3 ",
        "activations 0.0 MB sent gradients 0.0 MB sent in full 0.0 MB without compression",
        "samples 64 in 2.0 s of training steps parameters 7 weights of norm 280.3767 at the start",
        "made on hardware a machine splitlib 0",
    ):
        assert words in flowing
    again = next(line for line in shown.splitlines() if line.startswith("command "))
    assert cli.config_from_options(cli._parser().parse_args(shlex.split(again)[4:])) == two_kept.config


def test_a_run_that_no_command_line_means_is_shown_too(capsys):
    odd = record(config=RunConfig(task="cola", compressor="sort", compressor_options={"seed": 1}))
    save_record(odd)
    assert cli.main(["records", odd.config.key]) == 0
    assert "command    - (no command line means the config" in capsys.readouterr().out


def test_a_key_that_is_none_or_of_several_records_is_told(two_kept, capsys):
    keys = ", ".join(sorted(made.config.key for made in all_records()))
    refused_in_one_line(["records", "xyz"], ["begins with 'xyz'", "python -m splitlib records lists"], capsys)
    refused_in_one_line(["records", ""], ["the keys of 2 records begin with ''", keys, "more digits"], capsys)
    record_path(two_kept.config).write_text("{")
    refused_in_one_line(["records", two_kept.config.key], ["is not a readable record"], capsys)


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_is_checked_also_where_there_is_a_record(device, capsys):
    save_record(record(config=config_of("--profile", "smoke")))
    refused_in_one_line([*SMOKE, "--device", device], [device], capsys)
    assert cli.main(SMOKE) == 0
    assert "found: --fresh trains again" in capsys.readouterr().out


def test_a_found_record_says_where_its_data_is_from_if_the_command_names_another_place(capsys, monkeypatch, tmp_path):
    """``--hub path/to/mirror``, and no hub at all, showed the same record without a word."""
    real = ["--profile", "smoke", "--data", "real"]
    monkeypatch.delenv("SPLITLIB_HUB", raising=False)
    save_record(record(config=config_of(*real), data_label="CoLA (real, nyu-mll/glue from a local mirror, 96/40)"))
    assert cli.main(["run", *real]) == 0
    said = "note       this command names the Hugging Face hub, but the record's data is from elsewhere"
    assert said in capsys.readouterr().out
    assert cli.main(["run", *real, "--hub", str(tmp_path)]) == 0
    assert "note " not in capsys.readouterr().out
    refused_in_one_line(["run", *real, "--hub", str(tmp_path / "gone")], ["no hub mirror at"], capsys)


def test_settings_win_over_profile_and_document():
    config = config_of("--profile", "real", "--task", "rte", "--epochs", "3", "--lr", "1e-3", "--batch-size", "8")
    assert (config.epochs, config.lr, config.batch_size, config.data) == (3, 1e-3, 8, "real")


def test_compressor_parameters_reach_the_config():
    config = config_of("--compressor", "sort", "--level-bits", "3", "--bin-bits", "1")
    assert config.compressor_options == {"level_bits": 3, "bin_bits": 1}


def test_options_can_differ_between_the_cuts():
    config = config_of("--compressor", "power_iteration", "--rank", "3,7", "--gradient-compressor", "uniform")
    assert config.compressor_options == {"rank": "3,7"}


@pytest.mark.parametrize(("step", "read"), [("1", 1.0), ("0.5,1", "0.5,1.0"), ("0.5, 1", "0.5,1.0")])
def test_a_server_wants_a_step_as_a_client_brings_it(step, read):
    arguments = ["--compressor", "deadzone", "--step", step]
    wanted = cli.given_settings(cli._parser().parse_args(["server", *arguments]))
    assert wanted["compressor_options"] == config_of(*arguments).compressor_options == {"step": read}


def test_a_client_is_one_of_two_machines_whatever_else_it_is_given():
    options = cli._parser().parse_args(["client", "--server", "10.0.0.2:1", "--schedule", "1f1b", "--link", "1Gbit"])
    config = cli.config_from_options(options)
    assert (config.engine, config.schedule) == ("two_machines", "1f1b")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["client", "--server", "nowhere"], ["nowhere:29511", "cannot be reached"]),
        (["client", "--server", ":80"], ["':80' is no address", "HOST:PORT"]),
        (["client", "--server", "127.0.0.1:²"], ["'127.0.0.1:²' is no address"]),
        (["client", "--server", "fe80::1"], ["'fe80::1' is no address", "in brackets: [::1]:29511"]),
        (["client", "--server", "127.0.0.1:1", "--link", "50"], ["link '50' is none", "50Mbit"]),
        (["client"], ["--server"]),
        (["client", "--server", "127.0.0.1:1", "--secret-file", "/nowhere"], ["secret file /nowhere cannot be read"]),
        (["client", "--server", "127.0.0.1:1", "--partition", "none"], ["engine 'two_machines' needs a cut"]),
        (["server", "--bind", "0.0.0.0", "--port", "0"], ["0.0.0.0 needs a shared secret"]),
        (["server", "--bind", "203.0.113.7", "--port", "0"], ["cannot listen on 203.0.113.7:0"]),
        (["server", "--port", "70000"], ["cannot listen on 127.0.0.1:70000: ", "port must be 0-65535"]),
        (["server", "--bind", "a..b"], ["cannot listen on a..b:29511: "]),
        (["client", "--server", "a..b:123"], ["the server a..b:123 cannot be reached"]),
        (["server", "--compressor", "gzip"], ["gzip"]),
        (["run", "--profile", "smoke", "--engine", "two_machines"], ["needs a server", "python -m splitlib server"]),
        (["run", "--profile", "smoke", "--schedule", "1f1b"], ["schedule '1f1b' is for two machines"]),
        (["pair"], ["torchrun --nproc-per-node 2"]),
        (["pair", "--secret-file", "any"], ["unrecognized arguments: --secret-file any"]),
        (["client", "--server", "127.0.0.1:1", "--engine", "in_process"], ["leave out --engine in_process", "'run'"]),
    ],
)
def test_mistakes_with_two_machines_are_one_line(arguments, words, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("SPLITLIB_SECRET", raising=False)
    small = ["--profile", "smoke"] if arguments[0] in ("client", "pair") else []
    refused_in_one_line([*arguments, *small], words, capsys)
    assert not (tmp_path / "results").exists() and not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("command", ["server", "client", "pair"])
def test_help_of_the_two_machines_says_how(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    shown = capsys.readouterr().out
    assert "examples:" in shown and f"splitlib {command}" in shown and "--compressor" in shown


def test_insert_parameters_reach_the_config():
    config = config_of("--insert", "linear", "--insert-ratio", "0.25", "--insert-start", "random")
    assert (config.insert, config.insert_options) == ("linear", {"ratio": 0.25, "start": "random"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "mnist"], ["mnist"]),
        (["--epochs", "many"], ["--epochs", "many"]),
        (["--compresor", "sort"], ["--compresor sort; did you mean --compressor?", "see splitlib run --help"]),
        (["--task", "cifar10", "--partition", "condition_1"], ["condition_1", "first_last"]),
        (["--batch-size", "2", "--chunks", "4"], ["batch_size 2", "chunks 4"]),
        (["--batch-size", "0"], ["batch_size must be at least 1, not 0"]),
        (["--lora-rank", "10000000000000"], ["not enough memory for these sizes", "make them smaller"]),
        (["--compressor", "sort", "--bits", "3"], ["no parameter 'bits'"]),
        (["--compressor", "gzip"], ["gzip"]),
        (["--compressor", "power_iteration", "--rank", "many"], ["--rank", "many"]),
        (["--compressor", "power_iteration", "--rank", "3,7,9"], ["rank '3,7,9' has 3 values"]),
        (["--compressor", "deadzone", "--step", "0.5,much"], ["--step", "0.5,much"]),
        (["--insert", "linear", "--insert-rate", "0.5"], ["no parameter 'rate'"]),
        (["--gradient-compressor", "gzip"], ["gzip"]),
        (["--profile", "fast"], ["fast"]),
        (["--device", "tpu"], ["tpu"]),
        (["--device", "cuda:99"], ["cuda:99"]),
        (["--workers", "-1"], ["workers", "-1"]),
        (["--seed", str(1 << 64)], ["seed must be at least 0 and at most 18446744073709551615"]),
        (["--lr", "1e300"], ["lr must be a positive number up to 1e+30, not 1e+300"]),
        (["--weight-decay", "inf"], ["weight_decay must be at least 0 and at most 1000000.0, not inf"]),
        (["--model", "/nowhere/at/all", "--weights", "pretrained"], ["there is no folder /nowhere/at/all"]),
        (["--model", "m" * 300, "--weights", "pretrained", "--hub", "."], ["is not in the hub mirror"]),
        (["--data", "real", "--hub", "/nowhere/at/all"], ["/nowhere/at/all"]),
        (["--precision", "fp16", "--device", "cpu"], ["003"]),
        (["--model", "roberta_tiny", "--weights", "pretrained"], ["roberta_tiny"]),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(arguments, words, capsys, tmp_path):
    refused_in_one_line([*SMOKE, *arguments], words, capsys)
    assert not (tmp_path / "results").exists() and not (tmp_path / "checkpoints").exists()


def test_help_names_every_setting_and_parameter(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    shown = capsys.readouterr().out
    names = [f.name for f in setting_fields() if not f.name.endswith("_options")]
    names += [*option_help(COMPRESSORS), *(f"insert_{name}" for name in option_help(INSERTS))]
    missing = [name for name in names if "--" + name.replace("_", "-") not in shown]
    assert not missing
    assert "examples:" in shown
    meanings = option_help(COMPRESSORS) | {f"insert {name}": help for name, help in option_help(INSERTS).items()}
    flowing = " ".join(shown.split())
    assert all(len(help) > 10 and help in flowing for help in meanings.values())


def help_of(command: str, capsys) -> str:
    """What a command's --help says, as one line."""
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("command", "engine"), [("run", "in_process"), ("client", "two_machines")])
def test_help_says_what_a_command_without_settings_takes(command, engine, capsys):
    """It did not say that a task left out is cola."""
    shown = help_of(command, capsys)
    usual = config_of("--engine", engine).to_dict()
    assert usual["task"] == "cola" and usual["model"] == "roberta_tiny"
    for name, value in usual.items():
        if value in (None, "") or name.endswith("_options"):
            continue
        own = re.search(rf" --{name.replace('_', '-')} (?:STR|INT|FLOAT) (?!\[)(?!--)(.*?) --", shown)[1]
        assert f"(default {value})" in own, own


def test_a_server_wants_nothing_by_default(capsys):
    shown = help_of("server", capsys)
    settings = shown[shown.index("settings a client must bring") : shown.index("parameters of the inserted layers")]
    assert not [value for value in ("cola", "roberta_tiny", "4", "in_process") if f"(default {value})" in settings]


@pytest.mark.parametrize(("command", "profile"), [("run", "quick"), ("headline", "real"), ("gpu", "paper")])
def test_help_names_the_profile_taken(command, profile, capsys):
    """The words for quick said that it was the default, also where it is not."""
    shown = help_of(command, capsys)
    assert f"(default {profile})" in shown and "the default)" not in shown


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.name)
def test_help_has_examples_that_can_be_pasted(command):
    lines = command.examples.replace("\\\n", " ").splitlines()
    assert lines[0] == "examples:" and len(lines) > 1
    for line in lines[1:]:
        options = cli._parser().parse_args(shlex.split(line.partition("-m splitlib ")[2], comments=True))
        assert options.command is command
        if command.name in ("run", "client", "pair"):
            cli.config_from_options(options)


def test_ctrl_c_in_a_terminal_leaves_a_resumable_run(tmp_path):
    """A real process, a real SIGINT: it saves, exits 130, and the next call goes on to the record."""
    command = [
        sys.executable, "-m", "splitlib", "run", "--task", "cola", "--profile", "smoke", "--train-samples", "640",
        "--epochs", "200",
    ]  # fmt: skip
    environment = {**os.environ, "SPLITLIB_PROGRESS": "log"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first_line = process.stdout.readline()
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert first_line.endswith(": 0/4000\n") or "0/4000" in first_line
    assert process.returncode == 130, error
    assert "goes on from here" in error and "Traceback" not in error
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("module", ["splitlib.errors", "numpy.version"])
def test_ctrl_c_while_importing_is_one_line(module, interruptible):
    """In the middle of numpy's start the interrupt was lost, and the command ran on."""
    command = [sys.executable, "-X", "importtime", "-m", "splitlib", "records"]
    said, stopped = [], False
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if not line.startswith("import time:"):
                said.append(line)
            elif line.split()[-1] == module and not stopped:
                process.send_signal(signal.SIGINT)
                stopped = True
    assert stopped and process.returncode == 130
    assert "".join(said) == "\nsplitlib: stopped\n"


def test_record_is_readable_by_hand(capsys):
    cli.main([*SMOKE, "--task", "rte"])
    path = next(line.split()[-1] for line in capsys.readouterr().out.splitlines() if line.startswith("record"))
    from pathlib import Path

    assert read_record(Path(path)).config.task == "rte"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--profile", "smoke"], "stopped; the same command goes on from here"),
        (
            ["run", "--profile", "smoke", "--fresh"],
            "stopped; the same command goes on from here without --fresh, and starts over with it",
        ),
    ],
)
def test_ctrl_c_says_what_becomes_of_the_run(arguments, words, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "run", stop)
    assert cli.main(arguments) == 130
    assert capsys.readouterr().err == f"\nsplitlib: {words}\n"


def test_ctrl_c_before_a_fresh_run_began_says_that_nothing_changed(capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    save_record(record(config=config_of("--profile", "smoke")))
    monkeypatch.setattr(experiment, "run", stop)
    assert cli.main([*SMOKE, "--fresh"]) == 130
    assert capsys.readouterr().err == "\nsplitlib: stopped before training began; the record is as it was\n"
