"""Count multiply-accumulates (MACs): by torch's own counter, and as the documents' table was counted.

The two agree on convolutions without bias and on linear layers, and differ in what else they charge:

* A transposed convolution: torch counts input elements x weights each of them meets; the document output elements x
  weights, which is stride² times as much.
* A convolution's bias: the document counts one for each output element.
* Batch norm: the document counts two for each element.
* Products outside layers, such as attention's: torch counts them, the document has none.

Neither counts activations, pooling, sums or a linear layer's bias. No document states its convention. This one is
inferred: it gives the first row of 002 §3.2 to every printed digit, and the other rows with the inserted layers that
``tests/test_metering.py`` names. Releases of the ``thop`` package up to 2021 count this way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from splitlib.errors import SplitlibError

GLOBAL = "Global"  # FlopCounterMode's key for everything that ran


@dataclass(frozen=True)
class MacCount:
    """The MACs of one forward pass, and where they are spent."""

    by_kind: Mapping[str, int]
    """By operator (torch's counter) or by class of layer (the document's convention)."""
    by_module: Mapping[str, int]
    """By dotted name below the counted module, each with its submodules; what costs nothing may be left out."""

    @property
    def total(self) -> int:
        """All MACs."""
        return sum(self.by_kind.values())

    def by_layer(self, module: nn.Module) -> dict[str, int]:
        """Return the MACs by class of layer of the counted ``module``; what a container computes itself is its own.

        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 6 * 6, 10))
        >>> count_macs(net, torch.zeros(1, 3, 6, 6)).by_layer(net)
        {'Conv2d': 432, 'Linear': 1440}
        """
        own = Counter({"": self.total, **self.by_module})
        for name, macs in self.by_module.items():
            _, *above = _with_parents(name)
            # Not simply the parent: a ModuleList is never called, so it has no count.
            own[next((parent for parent in above if parent in self.by_module), "")] -= macs
        layers: Counter[str] = Counter()
        for name, macs in own.items():
            layers[type(module.get_submodule(name)).__name__] += macs
        return {layer: macs for layer, macs in layers.items() if macs}


def count_macs(module: nn.Module, *inputs: Any) -> MacCount:
    """Count the MACs of ``module(*inputs)`` in evaluation mode by ``torch.utils.flop_counter``, at half its FLOPs.

    The counter knows convolutions (also grouped and transposed), ``mm``, ``addmm``, ``bmm``, ``baddbmm`` and fused
    scaled-dot-product attention, each at exactly two FLOPs a MAC. Padding counts as data and masked positions count in
    full. Biases, norms, activations, pooling, sums and products with a vector count as nothing.

    On the meta device nothing is computed or allocated: MobileNetV2 on 64 images of 224 px takes well under a second.
    A model that looks at values, as transformers' attention masks do, needs a real device; there one sample is enough.
    Weights, running statistics, modes and torch's random state stay as they are.

    >>> count_macs(nn.Linear(8, 4), torch.zeros(2, 8)).by_kind
    {'addmm': 64}
    >>> count_macs(nn.Conv2d(3, 20, 4, stride=4, device="meta"), torch.zeros(64, 3, 224, 224, device="meta")).total
    192675840

    Raises:
        SplitlibError: a layer runs that the counter would take for free: a fused one, or a bilinear one.
    """
    with evaluating(module), FlopCounterMode(display=False, custom_mapping=_REFUSED) as counter:
        module(*inputs)
    flops = counter.get_flop_counts()
    kinds = {operator.__name__: count // 2 for operator, count in flops.get(GLOBAL, {}).items()}
    macs = {name: sum(counts.values()) // 2 for name, counts in flops.items() if name != GLOBAL}
    # Names start with the class of the counted module.
    return MacCount(kinds, {name.partition(".")[2]: count for name, count in macs.items() if "." in name})


def count_document_convention(module: nn.Module, *inputs: Any) -> MacCount:
    """Count ``module(*inputs)`` in evaluation mode as the table of 002 §3.2 was counted (see above).

    >>> stem = nn.Sequential(nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32)).to("meta")
    >>> count = count_document_convention(stem, torch.zeros(64, 3, 224, 224, device="meta"))
    >>> count.by_kind, f"{count.total:.2e}"
    ({'Conv2d': 693633024, 'BatchNorm2d': 51380224}, '7.45e+08')
    """
    kinds: Counter[str] = Counter()
    names: Counter[str] = Counter()

    def hook(name: str, layer: nn.Module, output: Any) -> None:
        cost = _document_cost(layer, output)
        if cost:
            kinds[type(layer).__name__] += cost
            names.update({above: cost for above in _with_parents(name)})

    handles = [
        layer.register_forward_hook(lambda layer, _, output, name=name: hook(name, layer, output))
        for name, layer in module.named_modules()
    ]
    try:
        with evaluating(module):
            module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return MacCount(dict(kinds), dict(names))


def _document_cost(layer: nn.Module, output: Tensor) -> int:
    if isinstance(layer, _ConvNd):
        per_output = layer.in_channels // layer.groups * prod(layer.kernel_size) + (layer.bias is not None)
        return output.numel() * per_output
    if isinstance(layer, _BatchNorm):
        return 2 * output.numel()
    if isinstance(layer, nn.Linear):
        return output.numel() * layer.in_features
    return 0


def _with_parents(name: str) -> Iterator[str]:
    """``"a.b.c"`` gives ``"a.b.c"``, ``"a.b"``, ``"a"``; the root has no name."""
    while name:
        yield name
        name = name.rpartition(".")[0]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Run without gradients in evaluation mode, then give every submodule its own mode back."""
    modes = {layer: layer.training for layer in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer, training in modes.items():
            layer.training = training


def _refuse_fused(*_: Any, **__: Any) -> NoReturn:
    raise SplitlibError(
        "torch's counter would take a fused attention, transformer or LSTM layer for free; "
        "count it on the meta device, where it is not fused"
    )


def _refuse_bilinear(*_: Any, **__: Any) -> NoReturn:
    raise SplitlibError(
        "torch's counter would take a bilinear layer for free; write it as torch.einsum, whose products are counted"
    )


_REFUSED = {
    torch.ops.aten._native_multi_head_attention: _refuse_fused,
    torch.ops.aten._transformer_encoder_layer_fwd: _refuse_fused,
    torch.ops.aten.mkldnn_rnn_layer: _refuse_fused,
    torch.ops.aten._trilinear: _refuse_bilinear,
}
