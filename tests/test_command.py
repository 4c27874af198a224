"""The command line of a config is read back, by the parser that users meet, as the same config."""

import itertools
import random
import shlex

import pytest

from splitlib import cli
from splitlib.command import command_line, from_parameters, parameters
from splitlib.config import RunConfig
from splitlib.errors import ConfigError
from splitlib.pipeline.remote.link import Link
from splitlib.playground.choice import Choice
from splitlib.profiles import DOCUMENT_SETTINGS, PROFILES, get_profile

# Any of these go together, whatever the task and the profile.
CHANGES = {
    "anything": [{}, {"epochs": 3, "lr": 1e-05, "seed": 7, "weight_decay": 0.1}, {"data": "real", "precision": "bf16"}],
    "samples": [{}, {"train_samples": 640, "eval_samples": 100}, {"train_samples": None, "eval_samples": None}],
    "batches": [{}, {"batch_size": 8, "chunks": 2}, {"chunks": 1, "batch_size": 64}],
    "optimizer": [
        {},
        {"optimizer": "sgd", "momentum": 0.9, "adam_beta2": 0.999},
        {"optimizer": "adam", "momentum": 0.0, "adam_beta2": 0.95},
    ],
    "cut": [
        {},
        {"partition": "custom", "cuts": "2,5"},
        {"partition": "custom", "cuts": "2,5", "engine": "simulated", "schedule": "1f1b"},
        {"partition": "balanced", "stages": 4},
        {"engine": "two_machines"},
    ],
    "codec": [
        {},
        {"compressor": "sort", "compressor_options": {"level_bits": 3, "bin_bits": 1, "edges": "quantile"}},
        {"compressor": "power_iteration", "compressor_options": {"rank": "3,7"}, "gradient_compressor": "none"},
        {"gradient_compressor": "uniform", "gradient_options": {"bits": "4,6", "zstd": 1}},
    ],
}  # fmt: skip
FIXED = {
    "unsplit": RunConfig(task="rte", partition="none"),
    "replicas": RunConfig(task="cola", partition="none", engine="data_parallel", replicas=2, batch_size=32),
    "lora": RunConfig(task="cola", lora_rank=8, lora_alpha=16),
    "inserted": RunConfig(task="rte", insert="linear", insert_options={"ratio": 0.25, "start": "random"}),
    "a folder with a space": RunConfig(task="rte", model="my models/roberta's", max_length=48),
    "deferred": RunConfig(task="cifar100", batch_norm="deferred", batch_size=32, chunks=4, recompute="always"),
    "resident": RunConfig(task="cifar10", images="resident"),
    "defaults": RunConfig(),
}


def some_configs(count=60):
    """Configs of every task and profile with some of the changes, the same ones every time."""
    draw = random.Random(0)
    corners = itertools.cycle(itertools.product(DOCUMENT_SETTINGS, PROFILES))
    while count:
        task, profile = next(corners)
        changes = {}
        for group in CHANGES.values():
            changes |= draw.choice(group)
        config = get_profile(profile).scale(DOCUMENT_SETTINGS[task])
        try:
            yield config.replace(**changes)
        except ConfigError:  # such as all samples of a config whose batch they bound
            continue
        count -= 1


def read_back(line: str) -> RunConfig:
    """The config that the command line's own parser makes of a line."""
    python, _, package, *arguments = shlex.split(line)
    assert (python, package) == ("python", "splitlib")
    return cli.config_from_options(cli._parser().parse_args(arguments))


def test_command_lines_mean_their_configs():
    configs = [*some_configs(), *FIXED.values()]
    assert len({config.key for config in configs}) > 50
    for config in configs:
        line = command_line(config)
        made = read_back(line)
        assert made == config and made.key == config.key, line


def test_parameters_mean_their_configs():
    for config in [*some_configs(20), *FIXED.values()]:
        values = parameters(config)
        assert all(isinstance(value, (int, float, str)) for value in values.values()), values
        assert from_parameters(values).key == config.key, values


def test_only_what_differs_is_said():
    quick = get_profile("quick").scale(DOCUMENT_SETTINGS["cola"])
    assert command_line(quick) == "python -m splitlib run --task cola"
    two = quick.replace(engine="two_machines", schedule="1f1b")
    assert command_line(two, server="10.0.0.2:1", link=Link.parse("1Gbit", "2.5ms")) == (
        "python -m splitlib client --server 10.0.0.2:1 --link 1000Mbit --latency 2.5ms --task cola --schedule 1f1b"
    )
    assert parameters(two) == {"profile": "quick", "task": "cola", "engine": "two_machines", "schedule": "1f1b"}


@pytest.mark.parametrize(
    "link", [Link(), Link(rate_mbit=0.3), Link(rate_mbit=1e5, latency_ms=0.05), Link(latency_ms=7)]
)
def test_links_come_back(link):
    line = command_line(RunConfig(task="cola", engine="two_machines"), link=link)
    options = cli._parser().parse_args(shlex.split(line)[3:])
    assert Link.parse(options.link, options.latency) == link


def test_every_reader_of_a_task_refuses_an_unknown_one_in_the_same_words():
    options = cli._parser().parse_args(["run"])
    setattr(options, "setting:task", "mnist")
    readers = (
        lambda: from_parameters({"task": "mnist"}),
        lambda: cli.config_from_options(options),
        lambda: Choice(task="mnist").config(),
    )
    for read in readers:
        with pytest.raises(ConfigError, match=f"^unknown task 'mnist'; choose from {', '.join(DOCUMENT_SETTINGS)}$"):
            read()


def test_what_cannot_be_said_is_refused():
    with pytest.raises(ConfigError, match="sends nothing over a link"):
        command_line(RunConfig(), link=Link(rate_mbit=5))
    with pytest.raises(ConfigError, match="unknown task 'mnist'"):
        from_parameters({"task": "mnist"})
    with pytest.raises(ConfigError, match="has no parameter 'bitz'"):
        from splitlib.pipeline.parts import make_codecs

        make_codecs(from_parameters({"compressor": "uniform", "bitz": 3}))
