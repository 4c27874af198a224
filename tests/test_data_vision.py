"""The documents' augmentation, at their size and at others."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from splitlib.data import vision
from splitlib.errors import DataError


def picture(pixels, mode="RGB"):
    return Image.fromarray(np.asarray(pixels, dtype=np.uint8)).convert(mode)


def pixels_of(image):
    """Undo the normalisation: [3,H,W] of shares of 255."""
    return image * torch.tensor(vision.STD)[:, None, None] + torch.tensor(vision.MEAN)[:, None, None]


@pytest.mark.parametrize("image_size", [16, 32, 64, 224])
@pytest.mark.parametrize("shape", [(8, 8, 3), (48, 31, 3)])
def test_any_picture_becomes_a_square_of_the_asked_size(image_size, shape):
    source = picture(np.random.default_rng(0).integers(0, 256, shape))
    for transform in (vision.train_transform(image_size, flip=True), vision.eval_transform(image_size)):
        image = transform(source)
        assert (image.shape, image.dtype, type(image)) == ((3, image_size, image_size), torch.float32, torch.Tensor)


def test_evaluation_crops_the_centre_of_256_pixels():
    source = np.random.default_rng(0).integers(0, 256, (256, 256, 3))
    expected = torch.tensor(source[16:240, 16:240]).permute(2, 0, 1) / 255
    torch.testing.assert_close(pixels_of(vision.eval_transform(224)(picture(source))), expected)


def test_images_are_normalised_as_the_pretrained_weights_expect():
    grey = vision.eval_transform(32)(picture(np.full((40, 40, 3), 128)))
    expected = (128 / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(grey.mean(dim=(1, 2)), expected)


@pytest.mark.parametrize("flip", [True, False])
def test_only_real_pictures_are_mirrored(flip):
    """Left half black, right half white: a crop is never brighter on its left unless it was mirrored."""
    source = picture(np.repeat([[[0] * 3, [255] * 3]], 16, axis=1).repeat(32, axis=0))
    transform = vision.train_transform(32, flip=flip)
    torch.manual_seed(0)
    crops = [pixels_of(transform(source)) for _ in range(30)]
    mirrored = [crop[..., 0].mean() > crop[..., -1].mean() + 0.1 for crop in crops]
    assert any(mirrored) == flip and not all(mirrored)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_kind_of_picture_becomes_rgb(mode):
    encoded = datasets.Image().encode_example(picture(np.full((20, 20, 3), 255), mode))
    (image,), label = images([encoded])[0]
    assert image.shape == (3, 16, 16) and label == 0
    torch.testing.assert_close(pixels_of(image), torch.ones(3, 16, 16))


def images(encoded):
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(num_classes=1)})
    rows = datasets.Dataset.from_dict({"img": encoded, "label": [0] * len(encoded)}, features=features)
    return vision.Images(rows, image="img", label="label", transform=vision.eval_transform(16))


def test_a_damaged_picture_is_one_clear_line():
    whole = datasets.Image().encode_example(picture(np.zeros((64, 64, 3))))
    damaged = images([whole, {"bytes": b"not a picture"}, {"bytes": whole["bytes"][:60]}])
    assert damaged[0][1] == 0
    for index in (1, 2):
        with pytest.raises(DataError, match=f"^image {index} of the data cannot be decoded .*; fetch it again$"):
            damaged[index]
