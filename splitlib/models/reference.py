"""The models that 004 sizes beside its own two: VGG-13, ResNet-101 and AmoebaNet-D, all with random weights.

AmoebaNet-D is the one of GPipe (Huang et al. 2019, arXiv:1811.06965, table 1), searched by Real et al. 2019
(arXiv:1802.01548). Where the second paper joins the hidden states 4, 5 and 6 of a normal cell, the first one's numbers
of parameters need 0, 3, 4 and 6, as in Google's published implementation and in torchgpipe's benchmark.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.models import VGG, ResNet, resnet101, vgg13

from splitlib.errors import ConfigError
from splitlib.models.mobilenet import IMAGENET_CLASSES

# 004 gives AmoebaNet about 3 million parameters and no size, and several fit. This one comes nearest with ImageNet's
# classes, which the document's VGG-13 has (notebook 02).
AMOEBANET_LAYERS, AMOEBANET_FILTERS = 9, 48
TINY_WIDTHS = (8, 8, "M", 16, 16, "M", 16, 16, "M", 32, 32, "M", 32, 32, "M")


def vgg_13(num_labels: int = IMAGENET_CLASSES) -> VGG:
    """Return torchvision's VGG-13 (Simonyan and Zisserman 2015, arXiv:1409.1556); any image from 32 px on."""
    return vgg13(weights=None, num_classes=num_labels)


def vgg_13_tiny(num_labels: int = IMAGENET_CLASSES) -> nn.Sequential:
    """Return VGG-13's ten convolutions and three linear layers, narrow: for tests and the smoke profile."""
    layers: list[nn.Module] = []
    channels = 3
    for width in TINY_WIDTHS:
        if isinstance(width, int):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    return nn.Sequential(*layers, *head, nn.Linear(64, num_labels))


def resnet_101(num_labels: int = IMAGENET_CLASSES) -> ResNet:
    """Return torchvision's ResNet-101 (He et al. 2016, arXiv:1512.03385)."""
    return resnet101(weights=None, num_classes=num_labels)


# --- AmoebaNet-D: operations, each (channels, stride) -> a layer from [B, C, H, W] to as many channels ---------------


def _conv(inputs: int, outputs: int, kernel: tuple[int, int] = (1, 1), stride: tuple[int, int] = (1, 1)) -> nn.Module:
    """ReLU, convolution without bias, batch norm; sizes stay at stride 1."""
    padding = kernel[0] // 2, kernel[1] // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(outputs))


def _narrowed(channels: int, *middle: nn.Module) -> nn.Module:
    """Put 1x1 convolutions around ``middle``, which works on a quarter of the channels."""
    return nn.Sequential(_conv(channels, channels // 4), *middle, _conv(channels // 4, channels))


def _conv_1x1(channels: int, stride: int) -> nn.Module:
    return _conv(channels, channels, stride=(stride, stride))


def _conv_3x3(channels: int, stride: int) -> nn.Module:
    return _narrowed(channels, _conv(channels // 4, channels // 4, (3, 3), (stride, stride)))


def _conv_1x7_7x1(channels: int, stride: int) -> nn.Module:
    width = channels // 4
    return _narrowed(channels, _conv(width, width, (1, 7), (1, stride)), _conv(width, width, (7, 1), (stride, 1)))


def _max_pool_2x2(channels: int, stride: int) -> nn.Module:
    return nn.MaxPool2d(2, stride)


def _max_pool_3x3(channels: int, stride: int) -> nn.Module:
    return nn.MaxPool2d(3, stride, padding=1)


def _avg_pool_3x3(channels: int, stride: int) -> nn.Module:
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


def _skip(channels: int, stride: int) -> nn.Module:
    return nn.Identity() if stride == 1 else _Halving(channels, channels)


class _Halving(nn.Module):
    """Halve the map with two strided 1x1 convolutions, the second one pixel further on, so that no pixel is lost."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        sizes = inputs, outputs // 2, 1, 2
        self.first, self.second = nn.Conv2d(*sizes, bias=False), nn.Conv2d(*sizes, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        shifted = nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.norm(torch.cat([self.first(x), self.second(shifted)], dim=1))


# A cell adds five hidden states to its two inputs: each is the sum of two operations on earlier states.
Operation = tuple[int, Callable[[int, int], nn.Module]]
NORMAL: tuple[tuple[Operation, Operation], ...] = (
    ((1, _conv_1x1), (1, _max_pool_3x3)),
    ((1, _skip), (0, _conv_1x7_7x1)),
    ((0, _conv_1x1), (0, _conv_1x7_7x1)),
    ((2, _max_pool_3x3), (2, _skip)),
    ((1, _avg_pool_3x3), (5, _conv_1x1)),
)
NORMAL_JOINS = (0, 3, 4, 6)
REDUCTION: tuple[tuple[Operation, Operation], ...] = (
    ((0, _max_pool_2x2), (0, _max_pool_3x3)),
    ((2, _skip), (1, _conv_3x3)),
    ((2, _conv_1x7_7x1), (2, _max_pool_3x3)),
    ((3, _skip), (1, _max_pool_2x2)),
    ((2, _avg_pool_3x3), (3, _conv_1x1)),
)
REDUCTION_JOINS = (4, 5, 6)


class _Cell(nn.Module):
    """From the outputs of the cell before and of the one before that to this cell's, and the first of them again."""

    def __init__(self, before: int, last: int, channels: int, *, reduces: bool, last_reduces: bool) -> None:
        super().__init__()
        pairs = REDUCTION if reduces else NORMAL
        self.joins = REDUCTION_JOINS if reduces else NORMAL_JOINS
        self.last = _conv(last, channels)
        self.before = _fitted(before, channels, halve=last_reduces)
        self.sources = [source for pair in pairs for source, _ in pair]
        # Only the cell's own two inputs still have the larger map.
        self.operations = nn.ModuleList(
            make(channels, 2 if reduces and source < 2 else 1) for pair in pairs for source, make in pair
        )
        self.outputs = channels * len(self.joins)

    def forward(self, states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        last, before = states
        hidden = [self.last(last), self.before(before)]
        for first in range(0, len(self.sources), 2):
            left, right = (self.operations[i](hidden[self.sources[i]]) for i in (first, first + 1))
            hidden.append(left + right)
        return torch.cat([hidden[i] for i in self.joins], dim=1), last


def _fitted(inputs: int, outputs: int, *, halve: bool) -> nn.Module:
    if halve:
        return _Halving(inputs, outputs)
    return nn.Identity() if inputs == outputs else _conv(inputs, outputs)


class AmoebaNetD(nn.Module):
    """AmoebaNet-D (layers, filters): images [B, 3, H, W] to logits [B, num_labels], sides multiples of 32.

    A stem that divides sides by 8, then three groups of ``layers / 3`` normal cells with a reduction cell between them;
    each reduction doubles the channels, which start at a quarter of ``filters``.

    >>> AmoebaNetD(3, 32, num_labels=10)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])

    Raises:
        ConfigError: the layers are no multiple of 3, or the filters none of 16.
    """

    def __init__(self, layers: int, filters: int, num_labels: int = IMAGENET_CLASSES) -> None:
        super().__init__()
        if layers < 3 or layers % 3 or filters < 16 or filters % 16:
            raise ConfigError(f"AmoebaNet-D needs layers in threes and filters in sixteens, not ({layers}, {filters})")
        normal = [False] * (layers // 3)
        reduces = [True, True, *normal, True, *normal, True, *normal]
        channels = filters // 4
        self.stem = _conv(3, channels, (3, 3), (2, 2))
        outputs, cells = [channels, channels], []
        for last_reduces, this in pairwise([False, *reduces]):
            channels *= 2 if this else 1
            cells.append(_Cell(outputs[-2], outputs[-1], channels, reduces=this, last_reduces=last_reduces))
            outputs.append(cells[-1].outputs)
        self.cells = nn.Sequential(*cells)
        self.classifier = nn.Linear(outputs[-1], num_labels)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        x = self.stem(images)
        last, _ = self.cells((x, x))
        return self.classifier(last.mean((2, 3)))


def amoebanet_d(num_labels: int = IMAGENET_CLASSES) -> AmoebaNetD:
    """Return AmoebaNet-D at a size that has 004's number of parameters."""
    return AmoebaNetD(AMOEBANET_LAYERS, AMOEBANET_FILTERS, num_labels)
