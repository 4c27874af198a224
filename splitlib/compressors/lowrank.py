"""Power iteration (000 §2.2, 002 §2): each sample's matrix as the product of two thin ones.

A sample [C, H, W] is the matrix [C, HW], a sample [L, D] the matrix [L, D]. Channels and features mean the same in
every sample, so their side has a basis of r vectors worth keeping: subspace iteration starts from the bases of the
tensor before. The other factor is the projection onto the basis, the best there is for it. Only the basis is
orthogonalised, never the long side HW.

The tensor before holds other samples, so how good a start its bases are depends on what samples share. The default is
one round for each tensor; the original ran two or three. Measured on micro-batches in the order of training, each new
to the codec (section *Power iteration's rounds* of ``benchmarks/README.md``):

* At MobileNetV2's first gradient (224 px, rank 3) one warm round errs 0.92 times as much as two from random vectors,
  and three warm ones find no more. There one round is enough. At its activations it errs 1.07 to 1.20 times as much.
* On CoLA's sentences it is not: with 8 and 16 ranks, one warm round errs 1.07 to 1.36 times as much as two from random
  vectors, and 1.12 to 1.46 times as much as three warm ones. ``iterations=3`` comes close to the best of the rank.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from splitlib.compressors.base import Compressor, Header, as_bytes, from_bytes
from splitlib.errors import ConfigError, PayloadError
from splitlib.options import described

MAX_RANK = 2**16 - 1
# Squares of what lies between, summed over any tensor, neither overflow nor vanish in float32.
_TAME = (1e-12, 1e12)
# A share of noise in every start: a basis at right angles to the next tensor could not turn towards it otherwise.
_NOISE = 1e-3
# What a row of length 1 must have left beside the rows before it. Above this, float32 keeps right angles to about 1e-5.
_NEARLY = 0.1


@dataclass(kw_only=True)
class PowerIteration(Compressor):
    """Sends each sample as two factors of rank ``rank``, in the tensor's dtype; all computation is in float32.

    [B, C, ...] becomes [B, C, r] and [B, r, ...], [B, L, D] becomes [B, L, r] and [B, r, D], [N, D] is one matrix, and
    fewer dimensions are one row. A matrix has no more than min(rows, columns) ranks: a larger ``rank`` means that many.
    A rank near that number sends more than the tensor itself, as in 002 §2.2.

    The state is the last tensor's bases. Use one compressor for each cut and direction, so that tensors of one kind
    follow each other. Samples of a batch of another size start from those of the last one in turn.
    """

    code: ClassVar[int] = 5
    learns: ClassVar[bool] = True
    rank: int = described(16, "columns of the factors: a sample sends rank * (rows + columns) values")
    iterations: int = described(
        1, "rounds for each tensor, one more where there is nothing to start from; text needs two or three"
    )
    state: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    """Bases [B, r, C or D] of orthonormal rows, from which the next tensor starts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.rank <= MAX_RANK:
            raise ConfigError(f"power_iteration: rank must be from 1 to {MAX_RANK}, not {self.rank}")
        if self.iterations < 1:
            raise ConfigError(f"power_iteration: iterations must be at least 1, not {self.iterations}")

    @property
    def parameters(self) -> tuple[int, int, int, int]:
        """The rank asked for."""
        return (self.rank, 0, 0, 0)

    def encode_body(self, x: Tensor, low: float, high: float, body: Tensor) -> None:
        """Write the basis, then the projection.

        Both are scaled by the square root of the basis's length, in opposite directions: by Cauchy and Schwarz no value
        of the projection then exceeds the tensor's largest, so half precision does not overflow. What rounding adds to
        the largest value a dtype has stays there.
        """
        matrices = _matrices(x).float()
        largest = max(-low, high)
        scale = 1.0 if _TAME[0] < largest < _TAME[1] or not largest else largest
        with torch.autocast(x.device.type, enabled=False):
            basis = self._iterate(matrices if scale == 1.0 else matrices / scale)
            root = math.sqrt(basis.shape[2])
            projection = (basis / root) @ matrices
        factors = torch.cat([(basis * root).reshape(-1), projection.reshape(-1)])
        limit = torch.finfo(x.dtype).max
        body.copy_(as_bytes(factors.clamp_(-limit, limit).to(x.dtype)))

    def _iterate(self, matrices: Tensor) -> Tensor:
        """Return bases [B, r, rows] of matrices [B, rows, columns], and keep them for the next call.

        Thin factors lie as rows: products of a long row with the matrix are many times faster than those with columns.
        """
        count, rows, columns = matrices.shape
        noise = _noise(min(self.rank, rows, columns), rows).to(matrices.device)
        if self.state is None or self.state.shape[1:] != noise.shape:
            basis, rounds = noise.expand(count, -1, -1), self.iterations + 1
        else:
            turn = torch.arange(count, device=matrices.device) % len(self.state)
            basis, rounds = self.state.to(matrices.device)[turn] + _NOISE * noise, self.iterations
        for _ in range(rounds):
            basis = _orthonormal(basis @ matrices @ matrices.mT)
        self.state = basis
        return basis

    @classmethod
    def body_nbytes(cls, header: Header) -> int:
        """Return the bytes of both factors."""
        count, rows, columns = _matrix_shape(header.shape)
        if not header.parameters[0]:
            raise PayloadError("payload's header is corrupted: factors of rank 0")
        return count * min(header.parameters[0], rows, columns) * (rows + columns) * header.dtype.itemsize

    @classmethod
    def decode_body(cls, body: Tensor, header: Header) -> Tensor:
        """Return the products of the factors; what rounding takes beyond the dtype's largest value stays there."""
        count, rows, columns = _matrix_shape(header.shape)
        rank = min(header.parameters[0], rows, columns)
        factors = from_bytes(body, header.dtype).float()
        basis, projection = factors.split([count * rows * rank, count * rank * columns])
        basis, projection = basis.reshape(count, rank, rows), projection.reshape(count, rank, columns)
        largest, limit = float(projection.abs().amax()), torch.finfo(header.dtype).max
        # A column of the basis is at most sqrt(rows) long, one of the projection sqrt(rank) * largest.
        scale = 1.0 if largest * math.sqrt(rows * rank) < limit / 2 else largest
        projection = projection if scale == 1.0 else projection / scale
        with torch.autocast(body.device.type, enabled=False):
            product = basis.mT @ projection if len(header.shape) > 3 else projection.mT @ basis
        return product if scale == 1.0 else (product * scale).clamp(-limit, limit)


def _orthonormal(rows: Tensor) -> Tensor:
    """Return rows [B, r, n] that span the same, at right angles and of length 1.

    Started warm, rows come nearly at right angles. Then a Cholesky factor of their products serves, at a fraction of
    the cost of the QR decomposition that all others need.
    """
    scaled = rows / rows.norm(dim=2, keepdim=True)
    factor, failed = torch.linalg.cholesky_ex(scaled @ scaled.mT)
    least, most = torch.stack(torch.aminmax(factor.diagonal(dim1=1, dim2=2))).tolist()
    if bool(failed.any()) or not _NEARLY < least <= most < 1 + _NEARLY:  # above 1 where the lengths underflowed
        return torch.linalg.qr(rows.mT).Q.mT
    eye = torch.eye(rows.shape[1], device=rows.device).expand_as(factor)
    return torch.linalg.solve_triangular(factor, eye, upper=False) @ scaled


def _matrix_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (matrices, rows, columns) of a tensor's shape; the rows are what samples share: channels or features."""
    if len(shape) > 3:
        return shape[0], shape[1], math.prod(shape[2:])
    count, length, width = (1, 1, 1, *shape)[-3:]
    return count, width, length


def _matrices(x: Tensor) -> Tensor:
    """View a tensor as matrices [B, rows, columns]; features come last in fewer than four dimensions."""
    count, rows, columns = _matrix_shape(tuple(x.shape))
    return x.reshape(count, rows, columns) if x.ndim > 3 else x.reshape(count, columns, rows).mT


@functools.lru_cache(maxsize=16)
def _noise(rank: int, rows: int) -> Tensor:
    """Return the matrix that every first iteration starts from; its own generator disturbs nobody's random numbers."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rank, rows, generator=generator, dtype=torch.float32) / math.sqrt(rows)
