"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381) as torchvision builds it, and a small one for embedded data."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights, MobileNetV2

from splitlib.data.hub import resolve_hub
from splitlib.errors import DataError

# expansion, channels, repeats, stride: a quarter of the depth, for 32-pixel images, still ending at stride 32.
TINY_BLOCKS = [[1, 8, 1, 1], [6, 12, 1, 2], [6, 16, 1, 2], [6, 32, 1, 2], [6, 48, 1, 2]]
IMAGENET_CLASSES = 1000


class FrozenStatistics(nn.BatchNorm2d):
    """Batch norm that normalises by its running statistics in training too, and leaves them as they are.

    Samples do not meet in it, so it makes no difference how a batch is divided. Scale and shift train, where
    torchvision's ``FrozenBatchNorm2d`` holds them too.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, H, W] as in evaluation, whatever the mode."""
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def mobilenet_v2(
    num_labels: int, *, weights: str, hub: Path | None = None, batch_norm: type[nn.BatchNorm2d] = nn.BatchNorm2d
) -> MobileNetV2:
    """Return torchvision's MobileNetV2 with a classifier for ``num_labels`` classes.

    Args:
        num_labels: classes of the task; the last linear layer always starts at random.
        weights: ``"pretrained"`` (ImageNet) or ``"random"``.
        hub: a local mirror; its ``models/mobilenet_v2/*.pth`` is used instead of torchvision's download.
        batch_norm: the class of its normalising layers.

    Raises:
        DataError: the weights are missing, unreadable or of another model.
    """
    classes = IMAGENET_CLASSES if weights == "pretrained" else num_labels
    model = MobileNetV2(num_classes=classes, norm_layer=batch_norm)
    if weights == "pretrained":
        _load(model, _imagenet_weights(hub))
        model.classifier[1] = nn.Linear(model.last_channel, num_labels)
    return model


def mobilenet_v2_tiny(num_labels: int) -> MobileNetV2:
    """Return MobileNetV2 with five narrow blocks: the same cuts and kinds of layers at a hundredth of the work."""
    return MobileNetV2(num_classes=num_labels, width_mult=1.0, inverted_residual_setting=TINY_BLOCKS, dropout=0.0)


def _imagenet_weights(hub: Path | None) -> dict[str, torch.Tensor]:
    mirror = resolve_hub(hub)
    if mirror is None:
        try:
            return MobileNet_V2_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
        except OSError as error:
            raise DataError(
                f"MobileNetV2's ImageNet weights could not be downloaded ({error}); connect to a network, name a "
                "mirror with --hub or SPLITLIB_HUB, or start from --weights random"
            ) from error
    files = sorted((mirror / "models" / "mobilenet_v2").glob("*.pth"))
    if not files:
        raise DataError(
            f"no models/mobilenet_v2/*.pth in the mirror {mirror}; save torchvision's MobileNetV2 weights there"
        )
    return _read(files[0])


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its zip reader or unpickler meets in a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} is not a readable file of weights ({reason}); fetch it again") from error
    named = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise DataError(f"{path} holds other things than tensors by name; save the model's state_dict() there, alone")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _load(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(f"the weights do not fit MobileNetV2: {str(error).splitlines()[-1].strip()}") from error
