"""Resident images: the same samples and labels as one by one, draws that follow from seed, epoch and sample alone."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from splitlib import experiment
from splitlib.config import RunConfig
from splitlib.data import eval_batches, load_task, resident, train_batches, vision
from splitlib.errors import ConfigError, DataError
from splitlib.progress import Progress
from splitlib.runtime import images_dir
from splitlib.training import Trainer
from tests.support import TINY_VISION, trainer_of

EACH = RunConfig(
    task="cifar10",
    model="mobilenet_v2_tiny",
    weights="random",
    image_size=24,
    train_samples=50,
    eval_samples=21,
    batch_size=8,
)
RESIDENT = EACH.replace(images="resident")
TRAINED = TINY_VISION.replace(images="resident", train_samples=48, epochs=2, chunks=2)


def batches_of(config, **options):
    return list(train_batches(load_task(config), **{"batch_size": 8, "seed": 0, "epoch": 0, **options}))


def test_batches_have_the_form_and_the_order_of_the_other_loaders():
    ours, theirs = batches_of(RESIDENT), batches_of(EACH)
    assert len(ours) == len(theirs) == 6
    for ((image,), labels), ((other,), other_labels) in zip(ours, theirs, strict=True):
        assert (image.shape, image.dtype) == (other.shape, other.dtype)
        assert torch.equal(labels, other_labels)
        assert not torch.equal(image, other), "the draws are others"


def test_evaluation_is_torchvisions_within_a_level():
    ours, theirs = (eval_batches(load_task(config), batch_size=8) for config in (RESIDENT, EACH))
    assert len(ours) == len(theirs) == 3
    level = 1.01 / 255 / min(vision.STD)
    for ((image,), labels), ((other,), other_labels) in zip(ours, theirs, strict=True):
        assert torch.equal(labels, other_labels)
        torch.testing.assert_close(image, other, rtol=0, atol=level)


def test_training_images_have_the_other_loaders_statistics():
    """Mean and spread of all pixels over 40 epochs: normalised alike, cropped alike."""
    moments = []
    for config in (RESIDENT, EACH):
        pixels = torch.cat([image for epoch in range(40) for (image,), _ in batches_of(config, epoch=epoch)])
        moments.append(torch.stack([pixels.mean(dim=(0, 2, 3)), pixels.std(dim=(0, 2, 3))]))
    torch.testing.assert_close(*moments, rtol=0, atol=0.02)  # of a deviation of about 1


def test_draws_follow_from_seed_epoch_and_sample_alone():
    whole = batches_of(RESIDENT, epoch=1)
    by_four = batches_of(RESIDENT, epoch=1, batch_size=4)
    images = torch.cat([image for (image,), _ in whole])
    torch.testing.assert_close(torch.cat([image for (image,), _ in by_four])[:48], images, rtol=0, atol=1e-5)
    others = [batches_of(RESIDENT, **options)[0][0][0] for options in ({}, {"epoch": 2}, {"epoch": 1, "seed": 1})]
    assert all(not torch.equal(image, images[:8]) for image in others)


def test_a_sample_is_cropped_by_the_runs_seed():
    """The same sample in two seeds: the order differs as well, so it is looked up."""
    data, found = load_task(RESIDENT), []
    for seed in (0, 1):
        batches = data.resident.train_batches(batch_size=1, seed=seed, epoch=0, start=0)
        place = batches.indices.index(7)
        found.append([image for (image,), _ in batches][place])
    assert not torch.equal(*found)


def test_a_resumed_epoch_goes_on_where_it_stopped():
    whole, rest = batches_of(RESIDENT, epoch=1), batches_of(RESIDENT, epoch=1, start=4)
    assert len(rest) == 2 and not batches_of(RESIDENT, start=6)
    for ((image,), labels), ((other,), other_labels) in zip(rest, whole[4:], strict=True):
        assert torch.equal(image, other) and torch.equal(labels, other_labels)


def test_all_stays_on_the_device_and_nothing_waits_for_it():
    """torch's meta device has shapes and no values: mixing it with the CPU, or reading a value, is an error."""
    meta = torch.device("meta")
    data = load_task(RESIDENT, device=meta)
    for batches in (train_batches(data, batch_size=8, seed=0, epoch=0), eval_batches(data, batch_size=8)):
        for (image,), labels in batches:
            assert (image.device, labels.device) == (meta, meta)
            assert (image.shape[1:], image.dtype, labels.dtype) == ((3, 24, 24), torch.float32, torch.int64)


def test_loading_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    batches_of(RESIDENT)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_stopped_run_goes_on_with_the_same_bits(steps, tmp_path, monkeypatch):
    whole = trainer_of(TRAINED)
    whole.fit(tmp_path / "whole.pt", Progress("", 6))
    stopped, taken = trainer_of(TRAINED), Progress("", 6)
    step = Trainer.step

    def stopping(self, inputs, labels):
        taken.stopped = self.steps_done + 1 == steps
        return step(self, inputs, labels)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", stopping)
        stopped.fit(tmp_path / "stopped.pt", taken)
    resumed = trainer_of(TRAINED)
    resumed.restore(tmp_path / "stopped.pt")
    assert resumed.steps_done == steps
    resumed.fit(tmp_path / "stopped.pt", Progress("", 6))
    assert resumed.state.history == whole.state.history
    found = resumed.engine.state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in whole.engine.state_dict().items())


def test_a_run_with_resident_images_has_a_record_of_its_own():
    record, other = (experiment.run(TRAINED.replace(images=images)) for images in ("resident", "each"))
    assert record.data_fingerprint == other.data_fingerprint and record.config.key != other.config.key


def test_the_images_are_decoded_once(monkeypatch):
    first = load_task(RESIDENT).resident
    (kept,) = images_dir().iterdir()
    monkeypatch.setattr(resident, "_decoded", lambda *_: pytest.fail("decoded again"))
    again = load_task(RESIDENT).resident
    assert torch.equal(first.train.images, again.train.images) and torch.equal(first.eval.labels, again.eval.labels)
    assert kept.name == f"{load_task(EACH).fingerprint}.npy"
    assert first.train.images.dtype == torch.uint8 and first.train.images.shape == (50, 3, 32, 32)


def test_a_damaged_file_of_images_is_refused():
    load_task(RESIDENT)
    (kept,) = images_dir().iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"not a readable file of images .*; delete it$"):
        load_task(RESIDENT)
    np.save(kept, np.zeros((3, 3, 8, 8), dtype=np.uint8))
    with pytest.raises(DataError, match=r"holds uint8 \[3, 3, 8, 8\], not 71 images; delete it$"):
        load_task(RESIDENT)


@pytest.mark.parametrize("sizes, words", [([(8, 8), (8, 9)], "image 1 has 8x9"), ([(9, 8), (9, 8)], "image 0 has 9x8")])
def test_images_of_other_sizes_are_refused(sizes, words):
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(num_classes=1)})
    pictures = [Image.new("RGB", size) for size in sizes]
    rows = datasets.Dataset.from_dict({"img": pictures, "label": [0] * len(sizes)}, features=features)
    images = vision.Images(rows, image="img", label="label", transform=vision.eval_transform(16))
    with pytest.raises(ConfigError, match=f"square images of one size, and {words} .*; use images 'each'$"):
        resident.load_resident(images, images, fingerprint="0", image_size=16, flip=False, device=torch.device("cpu"))
    assert not images_dir().exists()
