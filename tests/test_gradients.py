"""The check that torchgpipe's gradients are the unsplit model's passes where they are, and fails where they are not."""

import pytest
import torch

from splitlib.compressors import make_compressor
from splitlib.errors import ConfigError
from splitlib.measuring import gradients
from splitlib.measuring.gradients import compare_gradients
from tests.support import TINY_VISION

CPUS = [torch.device("cpu")] * 3


@pytest.mark.parametrize("images", ["each", "resident"])
@pytest.mark.parametrize("chunks", [1, 4])
def test_the_identity_changes_no_gradient(images, chunks):
    found = compare_gradients(TINY_VISION.replace(images=images, chunks=chunks), devices=CPUS)
    assert found.equal and found.difference < 1e-5 and found.largest < 1e-4
    assert found.loss == pytest.approx(found.unsplit_loss, abs=1e-6)


def test_micro_batches_of_other_sizes():
    assert compare_gradients(TINY_VISION.replace(batch_size=14, chunks=4), devices=CPUS).equal


def test_dropout_is_off():
    config = TINY_VISION.replace(model="mobilenet_v2", train_samples=16, batch_size=8, chunks=2)
    assert compare_gradients(config, devices=CPUS).equal


def test_what_is_not_the_identity_is_found_out(monkeypatch):
    monkeypatch.setattr(gradients, "make_compressor", lambda name: make_compressor("uniform", bits=8))
    found = compare_gradients(TINY_VISION, devices=CPUS)
    assert not found.equal and found.difference > 10 * gradients.TOLERANCE


def test_a_device_for_each_stage():
    with pytest.raises(ConfigError, match="3 stages need 3 devices, not 2"):
        compare_gradients(TINY_VISION, devices=CPUS[:2])
