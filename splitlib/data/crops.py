"""RandomResizedCrop of a whole batch on its device, with a box and a flip for each image.

Bilinear resizing is linear and separable: what becomes of a crop is ``rows @ pixels @ columns.T``. Each image has its
own two thin matrices, so a batch is two batched products, and a GPU augments as fast as it multiplies. The weights are
those of torchvision with antialiasing (v2, bilinear); its uint8 images are rounded to whole levels, these are not.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# What torchvision's RandomResizedCrop draws from, after Szegedy et al. 2014 (arXiv:1409.4842).
AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10


class Crops(NamedTuple):
    """A box of each of N square images, and whether it is mirrored."""

    boxes: Tensor
    """Top, left, height and width in pixels, [N, 4] int64."""
    flips: Tensor
    """[N] bool."""

    def to(self, device: torch.device) -> Crops:
        """Return the same on ``device``."""
        return Crops(self.boxes.to(device), self.flips.to(device))

    def of(self, index: Tensor) -> Crops:
        """Return those of some images; ``index`` [B] lies on the same device."""
        return Crops(self.boxes[index], self.flips[index])


def draw_crops(count: int, side: int, *, generator: torch.Generator, flip: bool) -> Crops:
    """Draw a crop for each of ``count`` images of ``side`` pixels, distributed as RandomResizedCrop's.

    The first of ten boxes that fits is taken, and the whole image where none does. A row of numbers belongs to an
    image: what it gets does not depend on how many images follow.

    >>> crops = draw_crops(100, 32, generator=torch.Generator().manual_seed(0), flip=True)
    >>> top, left, height, width = crops.boxes.T
    >>> bool((top + height <= 32).all()), bool((left + width <= 32).all())
    (True, True)
    """
    numbers = torch.rand(count, 2 * ATTEMPTS + 3, generator=generator, dtype=torch.float64)
    area, aspect, (down, across, mirrored) = numbers[:, :ATTEMPTS], numbers[:, ATTEMPTS:-3], numbers[:, -3:].T
    area = side**2 * _between(area, *AREA)
    aspect = _between(aspect, *map(math.log, ASPECT)).exp()
    sizes = torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()], dim=2).round().long()  # [N, attempts, 2]
    fits = ((sizes > 0) & (sizes <= side)).all(dim=2)
    first = fits.int().argmax(dim=1)
    chosen = torch.where(fits.any(dim=1)[:, None], sizes[torch.arange(count), first], side)
    corners = torch.stack([down, across], dim=1) * (side + 1 - chosen)
    return Crops(torch.cat([corners.long(), chosen], dim=1), (mirrored < 0.5) & flip)


def _between(uniform: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * uniform


def resized_crops(images: Tensor, crops: Crops, size: int) -> Tensor:
    """Return the crops at ``size`` pixels, [B, C, size, size] float32 in the levels of the images.

    Args:
        images: square, [B, C, S, S], of any dtype.
        crops: of these images, on their device.
        size: of the result.
    """
    side = images.shape[-1]
    top, left, height, width = crops.boxes.T
    rows = resize_weights(top, height, side, size)
    columns = resize_weights(left, width, side, size)
    columns = torch.where(crops.flips[:, None, None], columns.flip(1), columns)
    return rows[:, None] @ images.float() @ columns[:, None].mT


def centre_crop_weights(side: int, resized: int, size: int, device: torch.device) -> Tensor:
    """Return the weights [size, side] that resize an axis to ``resized`` pixels and keep the middle ``size``."""
    first, whole = torch.tensor([[0], [side]], device=device)
    margin = round((resized - size) / 2)
    return resize_weights(first, whole, side, resized)[0, margin : margin + size]


def resize_weights(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Return how much each pixel of an axis counts in each of ``size`` outputs, [B, size, side] float32.

    A triangle around the output's centre, as wide as two pixels or, where the crop shrinks, two outputs; nothing
    outside the crop counts, and the weights of an output add up to 1.

    Args:
        start: the crop's first pixel, [B].
        length: its pixels, [B].
        side: pixels of the whole axis.
        size: pixels of the result.
    """
    scale = (length.float() / size)[:, None, None]
    centres = (torch.arange(size, device=start.device) + 0.5)[:, None] * scale
    pixels = torch.arange(side, device=start.device) - start[:, None, None]  # counted from the crop's first
    distance = (pixels + 0.5 - centres).abs() / scale.clamp(min=1.0)
    inside = (pixels >= 0) & (pixels < length[:, None, None])
    weights = (1.0 - distance).clamp(min=0.0) * inside
    return weights / weights.sum(dim=2, keepdim=True)
