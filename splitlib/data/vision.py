"""Images: the documents' augmentation at any size, and rows of a ``datasets.Dataset`` as tensors."""

from __future__ import annotations

import datasets
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from splitlib.errors import DataError

# Channel statistics of ImageNet, which the pretrained weights were trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# The documents' evaluation resizes to 256 pixels before it crops 224; other sizes keep the ratio.
RESIZE_RATIO = 256 / 224


def train_transform(image_size: int, *, flip: bool) -> v2.Transform:
    """Return RandomResizedCrop and, if ``flip``, a horizontal flip; draws from torch's global generator.

    Flipping is off for the embedded digits: a mirrored digit is another sign, not another picture of the same one.
    """
    flips = [v2.RandomHorizontalFlip()] if flip else []
    return v2.Compose([v2.PILToTensor(), v2.RandomResizedCrop(image_size, antialias=True), *flips, *_to_input()])


def eval_transform(image_size: int) -> v2.Transform:
    """Return Resize(256) and CenterCrop(224), both in proportion to ``image_size``."""
    resize = v2.Resize(round(image_size * RESIZE_RATIO), antialias=True)
    return v2.Compose([v2.PILToTensor(), resize, v2.CenterCrop(image_size), *_to_input()])


def _to_input() -> list[v2.Transform]:
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]


class Images(Dataset[tuple[tuple[Tensor], int]]):
    """Rows with an image and a label as ``((image,), label)``, image [3,H,W] float32.

    Greyscale and palette images become RGB. An image that cannot be decoded raises DataError.
    """

    def __init__(self, rows: datasets.Dataset, *, image: str, label: str, transform: v2.Transform) -> None:
        self.rows, self.image, self.label, self.transform = rows, image, label, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[tuple[Tensor], int]:
        try:
            row = self.rows[index]
            picture = row[self.image].convert("RGB")
        except OSError as error:  # Pillow raises it for what it cannot identify and for what ends too early
            raise DataError(f"image {index} of the data cannot be decoded ({error}); fetch it again") from error
        return (self.transform(picture),), row[self.label]
