"""All images of a task on the training device: decoded once, augmented there a batch at a time.

The loader of :mod:`splitlib.data.batches` decodes and augments image by image on the CPU, which keeps a GPU waiting.
Here an epoch's crops and flips are drawn on the CPU at once, from one generator seeded by the run's seed and the epoch,
and looked up by sample. So they do not depend on the device, on the batches, or on where a resumed run starts. The
order is the other loader's; the draws, and with them a run's digits, are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from splitlib.data.crops import centre_crop_weights, draw_crops, resized_crops
from splitlib.data.order import epoch_order, mix
from splitlib.data.vision import MEAN, RESIZE_RATIO, STD, Images
from splitlib.errors import ConfigError, DataError
from splitlib.files import temporary_beside
from splitlib.runtime import images_dir

_CROPS = 1  # beside seed and epoch: the crops' stream is not the order's
LEVELS = 255


class Split(NamedTuple):
    """Decoded samples on one device."""

    images: Tensor
    """[N, 3, S, S] uint8."""
    labels: Tensor
    """[N] int64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidentImages:
    """Both splits on the training device, and the augmentation of :mod:`splitlib.data.vision` for whole batches."""

    train: Split
    eval: Split
    image_size: int
    flip: bool
    """Whether training mirrors half of the images."""

    def train_batches(self, *, batch_size: int, seed: int, epoch: int, start: int) -> ResidentBatches:
        """Return an epoch's batches from number ``start`` on; the last incomplete one is dropped."""
        images, device = self.train.images, self.train.images.device
        size, whole = len(images), len(images) // batch_size
        order = epoch_order(size, seed, epoch)[start * batch_size : whole * batch_size].to(device)

        def augmented() -> Callable[[Tensor], Tensor]:
            generator = torch.Generator().manual_seed(mix(seed, epoch, _CROPS))
            crops = draw_crops(size, images.shape[-1], generator=generator, flip=self.flip).to(device)
            return lambda index: resized_crops(images[index], crops.of(index), self.image_size)

        return ResidentBatches(self.train, order.split(batch_size) if len(order) else (), augmented)

    def eval_batches(self, *, batch_size: int) -> ResidentBatches:
        """Return the evaluation batches in the data's order; the last may be short."""
        images = self.eval.images
        resized = round(self.image_size * RESIZE_RATIO)

        def centred() -> Callable[[Tensor], Tensor]:
            weights = centre_crop_weights(images.shape[-1], resized, self.image_size, images.device)
            return lambda index: weights @ images[index].float() @ weights.mT

        return ResidentBatches(self.eval, torch.arange(len(images), device=images.device).split(batch_size), centred)


class ResidentBatches:
    """Batches ``((images [B,3,H,W] float32,), labels [B])``, already on the device; nothing waits for it in between."""

    def __init__(self, split: Split, indices: Sequence[Tensor], prepare: Callable[[], Callable[[Tensor], Tensor]]):
        """``prepare`` is called once, when batches are wanted, and returns what turns indices into images."""
        self.split, self.indices, self.prepare = split, indices, prepare

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[tuple[Tensor], Tensor]]:
        device = self.split.labels.device
        view = self.prepare()
        mean, std = (LEVELS * torch.tensor(share, device=device)[:, None, None] for share in (MEAN, STD))
        for index in self.indices:
            yield (view(index).sub_(mean).div_(std),), self.split.labels[index]


def load_resident(
    train: Images, evaluation: Images, *, fingerprint: str, image_size: int, flip: bool, device: torch.device
) -> ResidentImages:
    """Return the images of both splits on ``device``: from ``runs/images/``, or decoded and kept there.

    Raises:
        ConfigError: the images are not square, or not of one size.
        DataError: an image or the kept file cannot be read.
    """
    labels = [torch.tensor(list(split.rows[split.label])) for split in (train, evaluation)]
    path = images_dir() / f"{fingerprint}.npy"
    pixels = _kept(path, sum(map(len, labels))) if path.is_file() else _decoded(path, train, evaluation)
    parts = zip(torch.from_numpy(pixels).split([len(train), len(evaluation)]), labels, strict=True)
    splits = [Split(images.to(device), answers.to(device)) for images, answers in parts]
    return ResidentImages(train=splits[0], eval=splits[1], image_size=image_size, flip=flip)


def _decoded(path: Path, *splits: Images) -> NDArray[np.uint8]:
    """Decode every image, [N, 3, S, S], and keep them in ``path``."""
    first: Tensor | None = None
    decoded = []
    for split in splits:
        plain = Images(split.rows, image=split.image, label=split.label, transform=v2.PILToTensor())
        for index in range(len(plain)):
            ((image,), _) = plain[index]
            first = image if first is None else first
            if image.shape != first.shape or image.shape[1] != image.shape[2]:
                height, width = image.shape[1:]
                raise ConfigError(
                    f"images 'resident' needs square images of one size, and image {index} has {width}x{height} pixels "
                    f"beside {first.shape[2]}x{first.shape[1]}; use images 'each'"
                )
            decoded.append(image.numpy())
    pixels = np.stack(decoded)
    with temporary_beside(path) as temporary, temporary.open("wb") as file:
        np.save(file, pixels, allow_pickle=False)
    return pixels


def _kept(path: Path, count: int) -> NDArray[np.uint8]:
    try:
        pixels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is not a readable file of images ({error}); delete it") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or len(pixels) != count:
        raise DataError(f"{path} holds {pixels.dtype} {list(pixels.shape)}, not {count} images; delete it")
    return pixels
