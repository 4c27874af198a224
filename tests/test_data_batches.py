"""Order and augmentation follow from seed and epoch alone, and loading leaves every random state as it was."""

import dataclasses
import pickle
import random

import pytest
import torch
from torch.utils.data import Dataset

from splitlib.config import RunConfig
from splitlib.data import eval_batches, load_task, train_batches
from splitlib.errors import ConfigError

VISION = RunConfig(
    task="cifar10",
    model="mobilenet_v2_tiny",
    weights="random",
    image_size=16,
    train_samples=50,
    eval_samples=21,
    batch_size=8,
)
TEXT = RunConfig(
    task="rte", model="roberta_tiny", weights="random", max_length=24, train_samples=50, eval_samples=21, batch_size=8
)


class Noise(Dataset):
    """Samples that are nothing but augmentation."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return (torch.rand(3),), index


def noise():
    return dataclasses.replace(load_task(TEXT), train=Noise())


def drawn(data, **options):
    """What each sample of an epoch drew, in the epoch's order."""
    batches = train_batches(data, **{"batch_size": 4, "seed": 0, "epoch": 0, **options})
    return {int(label): noise for (values,), labels in batches for label, noise in zip(labels, values, strict=True)}


def same(first, second):
    return all(
        torch.equal(a, b)
        for (inputs, labels), (others, other_labels) in zip(first, second, strict=True)
        for a, b in zip((*inputs, labels), (*others, other_labels), strict=True)
    )


@pytest.mark.parametrize("config", [VISION, TEXT], ids=["vision", "text"])
def test_batches_are_tuples_of_tensors_and_labels(config):
    data = load_task(config)
    train, evaluation = train_batches(data, batch_size=8, seed=0, epoch=0), eval_batches(data, batch_size=8)
    assert (len(train), len(evaluation)) == (6, 3), "50 // 8 without the rest, 21 / 8 with it"
    assert [len(labels) for _, labels in train] == [8] * 6
    assert [len(labels) for _, labels in evaluation] == [8, 8, 5]
    expected = [((8, 3, 16, 16), torch.float32)] if config.kind == "vision" else [((8, 24), torch.int64)] * 2
    for batches in (train, evaluation):
        inputs, labels = next(iter(batches))
        assert isinstance(inputs, tuple) and [(tuple(x.shape), x.dtype) for x in inputs] == expected
        assert labels.dtype == torch.int64


@pytest.mark.parametrize("config", [VISION, TEXT], ids=["vision", "text"])
def test_workers_change_nothing(config):
    data = load_task(config)
    alone, helped = (train_batches(data, batch_size=8, seed=3, epoch=2, workers=workers) for workers in (0, 1))
    assert same(alone, helped)
    assert same(eval_batches(data, batch_size=8), eval_batches(data, batch_size=8, workers=1))


def test_a_resumed_epoch_goes_on_where_it_stopped():
    data = load_task(VISION)
    whole = list(train_batches(data, batch_size=8, seed=0, epoch=1))
    rest = train_batches(data, batch_size=8, seed=0, epoch=1, start=4)
    assert len(rest) == 2 and same(rest, whole[4:])
    assert len(train_batches(data, batch_size=8, seed=0, epoch=1, start=6)) == 0


def test_every_epoch_is_another_order_of_the_same_samples():
    orders = [list(drawn(noise(), **options)) for options in ({}, {"epoch": 1}, {"seed": 1})]
    assert [sorted(order) for order in orders] == [list(range(20))] * 3
    assert len({tuple(order) for order in orders}) == 3


def test_augmentation_follows_from_seed_epoch_and_sample_alone():
    first = drawn(noise())
    for options in ({}, {"batch_size": 10}, {"workers": 1}):
        again = drawn(noise(), **options)
        assert all(torch.equal(first[index], again[index]) for index in first)
    draws = [*first.values(), *drawn(noise(), epoch=1).values(), *drawn(noise(), seed=1).values()]
    assert len({tuple(values.tolist()) for values in draws}) == 60, "no two samples, epochs or seeds share a draw"


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_random_state_alone(workers):
    torch.manual_seed(0)
    before, python = torch.get_rng_state(), random.getstate()
    data = load_task(VISION)
    for batches in (
        train_batches(data, batch_size=8, seed=0, epoch=0, workers=workers),
        eval_batches(data, batch_size=8, workers=workers),
    ):
        for _ in batches:
            assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before) and random.getstate() == python


def test_the_gpu_is_not_reseeded(monkeypatch):
    """torch.manual_seed would seed every GPU as well, and dropout there would repeat itself with each sample."""

    def refuse(seed):
        raise AssertionError("the GPUs' generators were seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    assert len(list(train_batches(load_task(VISION), batch_size=8, seed=0, epoch=0))) == 6


def test_data_can_be_sent_to_a_spawned_worker():
    data = pickle.loads(pickle.dumps(load_task(VISION)))
    assert same(
        train_batches(data, batch_size=8, seed=0, epoch=0),
        train_batches(load_task(VISION), batch_size=8, seed=0, epoch=0),
    )


def test_the_selection_does_not_depend_on_the_seed():
    fingerprints = {load_task(TEXT.replace(seed=seed)).fingerprint for seed in (0, 1)}
    assert len(fingerprints) == 1
    assert load_task(TEXT.replace(train_samples=49)).fingerprint not in fingerprints
    fewer, more = (load_task(TEXT.replace(train_samples=count)).train for count in (10, 20))
    assert [fewer[i][0][0].tolist() for i in range(10)] == [more[i][0][0].tolist() for i in range(10)]


@pytest.mark.parametrize("setting", ["train_samples", "eval_samples"])
def test_more_samples_than_there_are(setting):
    with pytest.raises(ConfigError, match=rf"{setting} of RTE: 5000 asked for, but there are (1000|300)$"):
        load_task(TEXT.replace(**{setting: 5000}))


def test_a_batch_larger_than_the_training_set():
    message = "batch_size 1001 is larger than the training set of 1000 samples"
    with pytest.raises(ConfigError, match=message):
        load_task(TEXT.replace(train_samples=None, batch_size=1001))
    with pytest.raises(ConfigError, match="batch_size 51 is larger than the training set of 50 samples"):
        train_batches(load_task(TEXT), batch_size=51, seed=0, epoch=0)
