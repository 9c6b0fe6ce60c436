"""An affine map of the channels of every pixel as one step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.bijectors.layout import channel_rows
from flowzoo.bijectors.rows import Incoming, Mapped, RecordedStep, Step


class PixelMap(NamedTuple):
    """x -> matrix x + bias at every pixel, and the log-determinant of one pixel, a float64 scalar."""

    log_det: Tensor
    matrix: Tensor
    bias: Tensor | None

    def over(self, pixels: int, dtype: torch.dtype) -> PixelMap:
        """The same with the log-determinant of so many pixels, in this dtype."""
        return self._replace(log_det=(self.log_det * pixels).to(dtype))

    def apply(self, x: Tensor) -> Tensor:
        """The mapped x, ``(B, C, ...)``."""
        return mixed(x, self.matrix, self.bias)


class MixingStep(RecordedStep):
    """A map of the pixels of ``(B, C, ...)``."""

    def __init__(self, pixel: PixelMap, like: Tensor) -> None:
        """Makes the step of a map with gradients, for batches like this one."""
        with torch.no_grad():
            self.whole = pixel.over(pixels_of(like), like.dtype)
        self.tensors = [t for t in pixel if t is not None]

    def map(self, x: Tensor, free: bool) -> Mapped:
        """See :class:`RecordedStep`."""
        whole = self.whole
        return Mapped(whole.apply(x), whole.log_det.expand(x.shape[0]), [x, whole.matrix], free=True)

    def pull(
        self, saved: Sequence[Tensor], rest: Any, incoming: Incoming
    ) -> tuple[Tensor | None, Sequence[Tensor | None]]:
        """See :class:`RecordedStep`."""
        x, matrix = saved
        grad_x = mixed(incoming.z, matrix.t()) if incoming.wanted else None
        dtype, biased = self.tensors[0].dtype, self.whole.bias is not None
        return grad_x, pull_mixed(x, biased, dtype, incoming.z, incoming.log_det)


class SettledMixingStep(Step):
    """The same without gradients and with all that can be done beforehand done."""

    def __init__(self, whole: PixelMap, like: Tensor) -> None:
        """Makes the step of a map with the log-determinant of all pixels, for batches like this one."""
        self.log_det, self.matrix, self.bias = whole
        self.column = None if self.bias is None else self.bias[:, None]
        self.shape = (like.shape[1], -1, *like.shape[2:])

    def apply(self, x: Tensor, free: bool) -> tuple[Tensor, Tensor]:
        """See :class:`Step`."""
        log_det = self.log_det.expand(x.shape[0])
        if self.column is None or x.ndim == 2:
            return mixed(x, self.matrix, self.bias), log_det
        # As mixed() does it, with less to do: between convolutions every call costs a multiple of itself.
        product = torch.addmm(self.column, self.matrix, channel_rows(x))
        return product.view(self.shape).transpose(0, 1), log_det


def mixed(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """The pixels of ``(B, C, ...)`` multiplied by the matrix, and the bias added."""
    if x.ndim == 2:
        return F.linear(x, matrix, bias)
    rows = channel_rows(x)
    product = matrix @ rows if bias is None else torch.addmm(bias[:, None], matrix, rows)
    return product.view(x.transpose(0, 1).shape).transpose(0, 1)


def pull_mixed(
    x: Tensor, biased: bool, dtype: torch.dtype, grad_z: Tensor, grad_log_det: Tensor
) -> list[Tensor]:
    """The gradients at a pixel's log-determinant (of this dtype), the matrix, and the bias if there is one."""
    if x.ndim == 2:
        rows, grad_rows = x.t(), grad_z.t()
    else:
        rows, grad_rows = channel_rows(x), channel_rows(grad_z)
    gradients = [grad_log_det.sum().to(dtype) * pixels_of(x), grad_rows @ rows.t()]
    return [*gradients, grad_rows.sum(1)] if biased else gradients


def pixels_of(x: Tensor) -> int:
    """Pixels of an item of ``(B, C, ...)``."""
    return math.prod(x.shape[2:])
