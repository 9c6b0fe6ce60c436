"""An affine map of the channels of every pixel as one step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowzoo.bijectors.layout import channel_rows, from_channel_rows
from flowzoo.bijectors.rows import Incoming, Mapped, RecordedStep


class PixelMap(NamedTuple):
    """x -> matrix x + bias at every pixel, and the log-determinant of one pixel, a float64 scalar."""

    log_det: Tensor
    matrix: Tensor
    bias: Tensor | None

    def apply(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mapped x, ``(B, C, ...)``, and the log-determinant ``(B,)``."""
        log_det = (self.log_det * math.prod(x.shape[2:])).to(x.dtype)
        return mixed(x, self.matrix, self.bias), log_det.expand(x.shape[0])


class MixingStep(RecordedStep):
    """A map of pixels."""

    def __init__(self, pixel: PixelMap) -> None:
        self.tensors = [t for t in pixel if t is not None]
        self.log_det, self.matrix, bias = pixel
        self.column = None if bias is None else bias[:, None]

    def map(self, x: Tensor, free: bool) -> Mapped:
        """See :class:`RecordedStep`."""
        return Mapped(_product(self.matrix, x, self.column), None, [x, self.matrix], free=True)

    def pull(
        self, saved: Sequence[Tensor], rest: Any, incoming: Incoming
    ) -> tuple[Tensor | None, Sequence[Tensor | None]]:
        """See :class:`RecordedStep`."""
        x, matrix = saved
        grad_x = matrix.t() @ incoming.z if incoming.wanted else None
        return grad_x, [incoming.log_det, *pull_rows(x, incoming.z, biased=self.column is not None)]


def mixed(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """The pixels of ``(B, C, ...)`` multiplied by the matrix, and the bias added."""
    product = _product(matrix, channel_rows(x), None if bias is None else bias[:, None])
    return from_channel_rows(product, like=x)


def pull_rows(x: Tensor, grad_z: Tensor, biased: bool) -> list[Tensor]:
    """The gradients at the matrix, and at the bias if there is one, of a map of pixels ``(C, N)``."""
    grad_matrix = grad_z @ x.t()
    return [grad_matrix, grad_z.sum(1)] if biased else [grad_matrix]


def _product(matrix: Tensor, rows: Tensor, column: Tensor | None) -> Tensor:
    return matrix @ rows if column is None else torch.addmm(column, matrix, rows)
