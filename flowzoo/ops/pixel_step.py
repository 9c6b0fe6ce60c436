"""An affine map of the channels of every pixel, such as a 1x1 convolution, as one step of a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowzoo.ops.rows import Incoming, Mapped, RecordedStep


class PixelMap(NamedTuple):
    """x -> matrix x + bias at every pixel, and the log-determinant of one pixel, a float64 scalar."""

    log_det: Tensor
    matrix: Tensor
    bias: Tensor | None


class PixelStep(RecordedStep):
    """A map of pixels."""

    def __init__(self, pixel: PixelMap, inverse: Callable[[], PixelMap] | None = None) -> None:
        """Makes the step; its inverse is asked for by :meth:`reverse` alone."""
        self.tensors = [t for t in pixel if t is not None]
        self.log_det, self.matrix, self.bias = pixel
        self.inverse = inverse

    def apply(self, x: Tensor, donated: bool) -> tuple[Tensor, Tensor | None]:
        """See :class:`flowzoo.ops.rows.Step`."""
        return _product(self.matrix, x, self.bias), None

    def forward(self, x: Tensor, donated: bool) -> Mapped:
        """See :class:`flowzoo.ops.rows.RecordedStep`."""
        return Mapped(_product(self.matrix, x, self.bias), None, [x, self.matrix], donated=True)

    def backward(
        self, saved: Sequence[Tensor], rest: Any, incoming: Incoming
    ) -> tuple[Tensor | None, Sequence[Tensor | None]]:
        """See :class:`flowzoo.ops.rows.RecordedStep`."""
        x, matrix = saved
        grad_x = matrix.t() @ incoming.z if incoming.wanted else None
        return grad_x, self._gradients(x, incoming)

    def reverse(self, z: Tensor, incoming: Incoming) -> tuple[Tensor, Tensor, Sequence[Tensor | None]]:
        """X = M^-1 (z - b), and the gradients at x, M and b of z = M x + b."""
        assert self.inverse is not None
        _, matrix, bias = self.inverse()
        x = _product(matrix, z, bias)
        return x, self.matrix.t() @ incoming.z, self._gradients(x, incoming)

    def plain(self, x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`flowzoo.ops.rows.RecordedStep`."""
        log_det, matrix, *bias = tensors
        z = torch.einsum("oc,bc...->bo...", matrix, x)
        z = z + bias[0].view(-1, *(1,) * (x.ndim - 2)) if bias else z
        return z, (log_det * math.prod(x.shape[2:])).to(x.dtype).expand(x.shape[0])

    def _gradients(self, x: Tensor, incoming: Incoming) -> list[Tensor]:
        found = [incoming.log_det, incoming.z @ x.t()]
        return found if self.bias is None else [*found, incoming.z.sum(1)]


def _product(matrix: Tensor, rows: Tensor, bias: Tensor | None) -> Tensor:
    return matrix @ rows if bias is None else torch.addmm(bias[:, None], matrix, rows)
