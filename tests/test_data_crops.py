"""A batch of crops is what torchvision makes of each image, and boxes are drawn as torchvision draws them."""

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from splitlib.data.crops import AREA, ASPECT, Crops, centre_crop_weights, draw_crops, resized_crops

CPU = torch.device("cpu")
FLOAT_TOLERANCE = 1e-3  # levels of 255: float32 rounding alone
LEVEL_TOLERANCE = 1.01  # torchvision rounds uint8 images after each of the two axes


def pictures(count, side):
    return torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def crops_of(count, side, *, seed=0, flip=True):
    return draw_crops(count, side, generator=torch.Generator().manual_seed(seed), flip=flip)


def one_by_one(images, crops, size):
    """What torchvision makes of the same boxes."""
    found = []
    for image, box, flip in zip(images, crops.boxes.tolist(), crops.flips.tolist(), strict=True):
        crop = functional.resized_crop(image, *box, [size, size], antialias=True)
        found.append(functional.horizontal_flip(crop) if flip else crop)
    return torch.stack(found)


@pytest.mark.parametrize("side, size", [(32, 224), (32, 32), (32, 16), (48, 30), (8, 64)])
def test_a_batch_equals_torchvision_image_by_image(side, size):
    images, crops = pictures(40, side), crops_of(40, side)
    found = resized_crops(images, crops, size)
    torch.testing.assert_close(found, one_by_one(images.float(), crops, size), rtol=0, atol=FLOAT_TOLERANCE)
    torch.testing.assert_close(found, one_by_one(images, crops, size).float(), rtol=0, atol=LEVEL_TOLERANCE)


@pytest.mark.parametrize("side, size", [(32, 224), (32, 32), (32, 17), (64, 16)])
def test_evaluation_resizes_and_crops_the_centre_as_torchvision_does(side, size):
    images, resized = pictures(5, side), round(size * 256 / 224)
    weights = centre_crop_weights(side, resized, size, CPU)
    found = weights @ images.float() @ weights.mT
    whole = functional.resize(images.float(), [resized], antialias=True)
    torch.testing.assert_close(found, functional.center_crop(whole, [size]), rtol=0, atol=FLOAT_TOLERANCE)


def test_one_pixel_becomes_a_flat_picture():
    images = pictures(1, 8)
    found = resized_crops(images, Crops(torch.tensor([[3, 5, 1, 1]]), torch.tensor([False])), 4)
    assert torch.equal(found, images[:, :, 3:4, 5:6].float().expand(1, 3, 4, 4))


def test_boxes_are_distributed_as_torchvisions():
    """Mean and quantiles of area, aspect and place, of 20,000 boxes of either; their own spread is well below."""
    count, side = 20_000, 32
    top, left, height, width = crops_of(count, side).boxes.double().T
    torch.manual_seed(0)
    transform, image = v2.RandomResizedCrop(224), torch.empty(3, side, side)
    drawn = [transform.make_params([image]) for _ in range(count)]
    theirs = torch.tensor([[p[name] for name in ("top", "left", "height", "width")] for p in drawn]).double().T
    levels = torch.tensor([0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98], dtype=torch.float64)

    def summary(top, left, height, width):
        numbers = (height * width / side**2, (width / height).log(), top / side, left / side)
        return torch.stack([torch.cat([x.mean()[None], x.std()[None], x.quantile(levels)]) for x in numbers])

    torch.testing.assert_close(summary(top, left, height, width), summary(*theirs), rtol=0, atol=0.04)
    assert (summary(top, left, height, width)[:, :2] - summary(*theirs)[:, :2]).abs().max() < 0.01
    assert not torch.equal(height, width) and float((height * width / side**2).min()) < 0.1


def test_boxes_keep_their_bounds():
    crops = crops_of(5000, 32)
    top, left, height, width = crops.boxes.T
    assert int(crops.boxes.min()) == 0 and int(torch.maximum(top + height, left + width).max()) == 32
    loose = 1.15  # sides are whole pixels: a box of 8 x 10 may be a little off
    area, aspect = height * width / 32**2, width / height
    assert float(area.min()) > AREA[0] / loose and float(area.max()) <= AREA[1]
    assert float(aspect.min()) > ASPECT[0] / loose and float(aspect.max()) < ASPECT[1] * loose
    assert 0.47 < float(crops.flips.float().mean()) < 0.53
    assert not crops_of(100, 32, flip=False).flips.any()


def test_a_samples_crop_does_not_depend_on_how_many_follow():
    few, many = crops_of(10, 32), crops_of(1000, 32)
    assert torch.equal(few.boxes, many.boxes[:10]) and torch.equal(few.flips, many.flips[:10])
    assert not torch.equal(few.boxes, crops_of(10, 32, seed=1).boxes)
