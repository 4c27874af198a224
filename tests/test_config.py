"""The config: defaults, keys, and one clear line for each mistake."""

import dataclasses

import pytest

from splitlib.compressors import COMPRESSORS, SortQuantization
from splitlib.config import PARTITIONS, RunConfig
from splitlib.config.choices import FLOAT_OPTIONS
from splitlib.errors import ConfigError
from splitlib.models.inserted import INSERTS
from splitlib.options import all_options, parameters
from splitlib.profiles import DOCUMENT_SETTINGS, PROFILES, get_profile


def test_defaults_follow_the_task():
    text, vision = RunConfig(task="cola"), RunConfig(task="cifar100")
    assert (text.model, text.partition, text.max_length, text.image_size) == ("roberta-base", "condition_1", 128, None)
    assert (vision.model, vision.partition, vision.max_length, vision.image_size) == (
        "mobilenet_v2",
        "first_last",
        None,
        224,
    )


def test_spelling_out_a_default_does_not_change_the_key():
    assert RunConfig(task="rte") == RunConfig(task="rte", max_length=128, compressor_options={})
    assert RunConfig(task="rte").key == RunConfig(task="rte", max_length=128).key
    assert hash(RunConfig(task="rte")) == hash(RunConfig(task="rte", max_length=128))


def test_order_of_options_does_not_change_the_key():
    one = RunConfig(compressor="sort", compressor_options={"level_bits": 6, "bin_bits": 2})
    other = RunConfig(compressor="sort", compressor_options={"bin_bits": 2, "level_bits": 6})
    assert one.key == other.key


def test_every_setting_changes_the_key():
    base = RunConfig(task="cola", compressor="sort")
    changes = {
        "task": "rte",
        "data": "real",
        "train_samples": 500,
        "eval_samples": 9,
        "max_length": 64,
        "model": "other/encoder",
        "weights": "random",
        "lora_rank": 8,
        "partition": "condition_2",
        "chunks": 2,
        "insert": "linear",
        "compressor": "uniform",
        "compressor_options": {"level_bits": 3},
        "gradient_compressor": "uniform",
        "engine": "simulated",
        "epochs": 3,
        "batch_size": 8,
        "optimizer": "adam",
        "lr": 1e-3,
        "weight_decay": 0.1,
        "adam_eps": 1e-6,
        "adam_beta2": 0.98,
        "scheduler": "cosine",
        "warmup": 0.06,
        "precision": "bf16",
        "seed": 1,
        "recompute": "always",
        "micro_batch_loss": "sum",
        "padding": "skipped",
    }
    keys = {name: base.replace(**{name: value}).key for name, value in changes.items()}
    assert len({base.key, *keys.values()}) == len(changes) + 1
    untested = {f.name for f in dataclasses.fields(RunConfig)} - set(changes)
    need_another = {
        "image_size",
        "lora_alpha",
        "momentum",
        "gradient_options",
        "insert_options",
        "batch_norm",
        "schedule",
        "coding",
        "error_feedback",
    }
    assert untested == need_another | {"stages", "cuts", "replicas", "images"}


def test_fields_added_later_keep_the_keys_of_records_that_do_not_use_them():
    """What a key is made of changes only together with SCHEMA: records are found by it."""
    vision = RunConfig(
        task="cifar10", partition="conv_insert_type_2", compressor="sort", compressor_options={"level_bits": 6}
    )
    assert RunConfig(task="cola").key == RunConfig(task="cola", insert="none", insert_options={}).key == "5749190c5d69"
    assert RunConfig(task="cola", engine="in_process", schedule="gpipe").key == "5749190c5d69"
    assert vision.key == vision.replace(images="each").key == "9c44914c2c4a"


def test_two_ways_to_write_one_run_have_one_key():
    assert RunConfig(weight_decay=-0.0).key == RunConfig(weight_decay=0.0).key
    custom = RunConfig(task="cifar10", partition="custom", cuts="3,10")
    assert custom.replace(cuts="03,010") == custom


def test_options_are_part_of_the_key_as_they_are_given():
    """Filling in defaults would rename the records there are."""
    left_out = RunConfig(compressor="sort")
    written = left_out.replace(compressor_options=dict(parameters(SortQuantization)))
    assert left_out != written and left_out.key != written.key


@pytest.mark.parametrize(
    ("whole", "fraction"), [(1, 1.0), ("0.5,1", "0.5,1.0"), (" 2, .5", "2.0,0.5"), (-0.0, 0.0), (0, 0.0)]
)
def test_a_whole_number_is_the_fraction_it_is_written_for(whole, fraction):
    """A step of 1 was refused, and one of "0.5,1" at the second cut; accepted as they are, they would have two keys."""
    one, other = (RunConfig(compressor="deadzone", compressor_options={"step": step}) for step in (whole, fraction))
    assert one.key == other.key and repr(one.compressor_options["step"]) == repr(fraction)
    assert one.replace(gradient_compressor="deadzone", gradient_options={"step": whole}).gradient_options == {
        "step": fraction
    }


def test_options_that_are_no_fractions_stay_as_they_are():
    options = {"bits": 8, "rank": "3,7", "step": "0.5,many", "ratio": True}
    kept = RunConfig(compressor="uniform", compressor_options=options).compressor_options
    assert repr(sorted(kept.items())) == repr(sorted(options.items()))


def test_a_config_knows_which_options_are_fractions():
    """It imports neither compressors nor inserts, so it has a list of its own; a name is one kind everywhere."""
    defaults = all_options({**COMPRESSORS, **INSERTS})
    kinds = {name: {type(default) for default in of_each.values()} for name, of_each in defaults.items()}
    fractions = {name for name, of_each in kinds.items() if of_each == {float}}
    assert fractions == set(FLOAT_OPTIONS), "FLOAT_OPTIONS in splitlib/config/choices.py names others"
    assert not [name for name, of_each in kinds.items() if len(of_each) > 1], "one name, two kinds of value"


def test_options_of_inserts_change_the_key():
    keys = {RunConfig(insert="linear", insert_options=options).key for options in ({}, {"ratio": 0.5}, {"ratio": 0.25})}
    assert len(keys) == 3


def test_settings_of_the_engines_and_of_free_partitions_change_the_key():
    vision = RunConfig(task="cifar10", partition="none")
    configs = [
        vision,
        vision.replace(engine="data_parallel"),
        vision.replace(engine="data_parallel", replicas=2),
        vision.replace(batch_norm="deferred"),
        vision.replace(batch_norm="frozen"),
        vision.replace(images="resident"),
        vision.replace(partition="balanced"),
        vision.replace(partition="balanced", stages=4),
        vision.replace(partition="custom", cuts="3"),
        vision.replace(partition="custom", cuts="3,10"),
    ]
    assert len({config.key for config in configs}) == len(configs)


def test_a_config_knows_how_often_it_cuts():
    base = RunConfig(task="cifar10")
    cases = {"none": {}, "first_last": {}, "balanced": {"stages": 5}, "custom": {"cuts": "2,4,7"}}
    assert [base.replace(partition=p, **more).cut_count for p, more in cases.items()] == [0, 2, 4, 3]
    assert base.replace(partition="custom", cuts="2,4,7").cut_positions == (2, 4, 7)


def test_configs_are_frozen():
    config = RunConfig(compressor="sort", compressor_options={"bin_bits": 2})
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epochs = 3
    with pytest.raises(TypeError):
        config.compressor_options["bin_bits"] = 3


def test_json_round_trip():
    config = RunConfig(
        compressor="sort",
        compressor_options={"level_bits": 6, "bin_bits": 2},
        lora_rank=8,
        insert="linear",
        insert_options={"ratio": 0.25},
    )
    assert RunConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"task": "mnist"}, ["unknown task 'mnist'", "cifar10"]),
        ({"task": ["cola"]}, ["task must be str"]),
        ({"epochs": "3"}, ["epochs must be int", "'3'"]),
        ({"epochs": True}, ["epochs must be int", "True"]),
        ({"epochs": 0}, ["epochs must be at least 1"]),
        ({"lr": float("nan")}, ["lr must be a positive number", "nan"]),
        ({"lr": -1.0}, ["lr must be a positive number"]),
        ({"lr": 10**400}, ["lr is too large a number"]),
        ({"lr": 1e-7}, ["'polynomial' ends at a learning rate of 1e-07", "lr 1e-07 would not fall", "a larger lr"]),
        ({"warmup": 1.0}, ["warmup must be in [0, 1)"]),
        ({"optimizer": "lamb"}, ["unknown optimizer 'lamb'", "adamw"]),
        ({"batch_size": 2, "chunks": 4}, ["batch_size 2", "chunks 4", "micro-batch"]),
        ({"train_samples": 8, "batch_size": 16}, ["train_samples 8", "batch_size 16"]),
        ({"partition": "first_last"}, ["unknown partition 'first_last'", "condition_1"]),
        ({"partition": "none", "compressor": "sort"}, ["needs a cut"]),
        ({"image_size": 32}, ["image_size is for vision"]),
        ({"images": "resident"}, ["images 'resident' is for vision tasks", "cola is a text task"]),
        ({"task": "cifar10", "images": "all"}, ["unknown images 'all'", "each, resident"]),
        ({"task": "cifar10", "max_length": 32}, ["max_length is for text"]),
        ({"task": "cifar10", "lora_rank": 8}, ["lora_rank is for text"]),
        ({"task": "cifar10", "model": "resnet"}, ["unknown vision model 'resnet'"]),
        ({"model": "mobilenet_v2"}, ["for vision tasks"]),
        ({"model": "roberta_tiny"}, ["no pretrained weights for roberta_tiny", "random"]),
        ({"lora_alpha": 16}, ["needs a lora_rank"]),
        ({"lora_rank": -1}, ["lora_rank must be at least 0, not -1"]),
        ({"lora_rank": 8, "lora_alpha": 0}, ["lora_alpha must be at least 1, not 0"]),
        (
            {"compressor": "uniform", "compressor_options": "bits"},
            ["compressor_options must be a mapping", "not 'bits'"],
        ),
        ({"compressor": "uniform", "compressor_options": {"bits": [4]}}, ["must have names and numbers or words"]),
        ({"compressor": "uniform", "compressor_options": {4: 4}}, ["must have names and numbers or words"]),
        ({"task": "cifar10", "image_size": 32, "batch_size": 10, "chunks": 4}, ["10 in 4 parts", "more than 32 px"]),
        (
            {"task": "cifar10", "engine": "data_parallel", "partition": "none", "batch_size": 2, "replicas": 3},
            ["multiple"],
        ),
        ({"task": "cifar10", "batch_size": 2, "replicas": 3}, ["replicas 3 need the engine 'data_parallel'"]),
        ({"task": "cifar10", "image_size": 32, "batch_size": 8, "chunks": 8}, ["8 in 8 parts", "batch norm needs two"]),
        ({"momentum": 0.9}, ["momentum is for sgd"]),
        ({"optimizer": "sgd", "adam_eps": 1e-6}, ["sgd does not use them"]),
        ({"gradient_options": {"bits": 8}}, ["need a gradient_compressor"]),
        ({"compressor_options": 3}, ["compressor_options must be"]),
        ({"compressor": "zip"}, ["unknown compressor 'zip'", "none, cast, uniform, sort, power_iteration, fast"]),
        ({"gradient_compressor": "zip"}, ["unknown gradient_compressor 'zip'", "same, none, cast"]),
        ({"compressor": "same"}, ["unknown compressor 'same'"]),
        ({"insert": "conv"}, ["unknown insert 'conv'", "none, linear, decaying_linear"]),
        ({"insert_options": {"ratio": 0.5}}, ["insert_options need an insert"]),
        ({"insert": "linear", "partition": "none"}, ["insert 'linear' needs a cut"]),
        ({"stages": 4}, ["stages 4 needs the partition 'balanced'", "condition_1"]),
        ({"stages": 1, "partition": "balanced"}, ["stages must be at least 2", "partition 'none'"]),
        ({"cuts": "3"}, ["cuts and the partition 'custom' belong together"]),
        ({"partition": "custom"}, ["cuts and the partition 'custom' belong together"]),
        ({"partition": "custom", "cuts": "3;4"}, ["numbers separated by commas", "'3;4'"]),
        ({"partition": "custom", "cuts": "٣,٩"}, ["numbers separated by commas"]),
        ({"partition": "custom", "cuts": "1" * 5000}, ["numbers separated by commas"]),
        ({"partition": "custom", "cuts": "4,4"}, ["cuts must rise", "'4,4'"]),
        ({"partition": "custom", "cuts": "0,4"}, ["cuts must rise from at least 1"]),
        ({"recompute": "sometimes"}, ["unknown recompute 'sometimes'", "except_last"]),
        ({"batch_norm": "deferred"}, ["for vision models", "roberta-base has no batch norm"]),
        ({"batch_norm": "frozen"}, ["batch_norm 'frozen' is for vision models", "roberta-base has no batch norm"]),
        ({"task": "cifar10", "batch_norm": "frozen", "weights": "random"}, ["'frozen' needs weights 'pretrained'"]),
        (
            {"task": "cifar10", "batch_norm": "deferred", "batch_size": 5, "chunks": 4},
            ["waits for all of 4 chunks", "5 samples make only 3 micro-batches of 2"],
        ),
        ({"replicas": 2}, ["replicas 2 need the engine 'data_parallel'"]),
        ({"engine": "data_parallel"}, ["trains the model whole", "condition_1"]),
        ({"engine": "data_parallel", "partition": "none", "replicas": 0}, ["replicas must be at least 1"]),
        ({"engine": "data_parallel", "partition": "none", "replicas": 3}, ["batch_size 32", "multiple of replicas 3"]),
        ({"engine": "data_parallel", "partition": "none", "chunks": 2}, ["chunks 2 need an engine with stages"]),
        ({"engine": "data_parallel", "partition": "none", "recompute": "always"}, ["recompute 'always' is for"]),
        ({"engine": "simulated", "micro_batch_loss": "sum"}, ["micro_batch_loss 'sum' is for", "'simulated'"]),
        ({"engine": "simulated", "partition": "balanced", "stages": 4}, ["head, body and tail, not 4 stages"]),
        ({"task": "cifar10", "insert": "linear"}, ["insert 'linear' is for text tasks", "conv_insert_"]),
    ],
)
def test_mistakes_are_one_clear_line(settings, words):
    with pytest.raises(ConfigError) as error:
        RunConfig(**settings)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_unknown_setting_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown setting 'learning_rate'.*\blr\b"):
        RunConfig.from_dict({"learning_rate": 1.0})


def test_replacing_the_task_by_another_kind_resets_what_belongs_to_the_first():
    config = RunConfig(task="cola", max_length=64).replace(task="cifar10")
    assert (config.model, config.image_size, config.max_length) == ("mobilenet_v2", 224, None)


def test_replacing_the_task_by_another_kind_keeps_what_both_have():
    text = RunConfig(task="cola", lora_rank=8, partition="even", padding="skipped", compressor="uniform", seed=3)
    assert text.replace(task="cifar10") == RunConfig(task="cifar10", partition="even", compressor="uniform", seed=3)
    vision = RunConfig(task="cifar10", images="resident", batch_norm="frozen", partition="balanced", stages=4)
    assert vision.replace(task="rte") == RunConfig(task="rte", partition="balanced", stages=4)
    assert vision.replace(task="rte", max_length=32).max_length == 32


def test_loras_scale_goes_with_the_rank_unless_it_was_set():
    assert RunConfig(lora_rank=8).replace(lora_rank=16) == RunConfig(lora_rank=16)
    assert RunConfig(lora_rank=8).replace(lora_rank=0) == RunConfig()
    assert RunConfig(lora_rank=8, lora_alpha=16).replace(lora_rank=4).lora_alpha == 16
    assert RunConfig(lora_rank=8).replace(lora_rank=4, lora_alpha=8).lora_alpha == 8


def test_gradients_take_the_activations_compressor_unless_told():
    same = RunConfig(compressor="sort", compressor_options={"bin_bits": 1})
    own = same.replace(gradient_compressor="uniform", gradient_options={"bits": 4})
    assert same.effective_gradient_compressor == ("sort", {"bin_bits": 1})
    assert own.effective_gradient_compressor == ("uniform", {"bits": 4})


def test_a_config_without_compression_codes_nothing_either():
    text = RunConfig(task="cola", insert="linear", lora_rank=4, seed=3, chunks=2)
    cut = text.replace(insert="none")
    coded = cut.replace(compressor="sort", coding="change", error_feedback="gradients", padding="skipped")
    own = coded.replace(gradient_compressor="uniform", gradient_options={"bits": 4}, compressor_options={"bin_bits": 1})
    assert coded.uncompressed() == own.uncompressed() == cut
    assert text.replace(compressor="sort").uncompressed() == text, "inserted layers are part of the model"
    assert own.uncompressed(partition="none", chunks=1) == RunConfig(lora_rank=4, seed=3, partition="none")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("task", DOCUMENT_SETTINGS)
def test_every_profile_scales_every_document(profile, task):
    scaled = get_profile(profile).scale(DOCUMENT_SETTINGS[task])
    assert scaled.task == task
    assert scaled.data == ("embedded" if profile in ("smoke", "quick") else "real")
    assert scaled.batch_size >= scaled.chunks


def test_paper_changes_nothing_but_the_data():
    for config in DOCUMENT_SETTINGS.values():
        assert get_profile("paper").scale(config) == config.replace(data="real")


def test_overrides_win_over_the_profile():
    scaled = get_profile("smoke").scale(DOCUMENT_SETTINGS["cola"], epochs=7, data="real", model="some/encoder")
    assert (scaled.epochs, scaled.data, scaled.model) == (7, "real", "some/encoder")


def test_unknown_profile():
    with pytest.raises(ConfigError, match="unknown profile 'fast'; choose from smoke, quick, real, paper"):
        get_profile("fast")


def test_each_kind_starts_with_the_unsplit_model():
    assert all(names[0] == "none" for names in PARTITIONS.values())
