"""Standardisation of vectors by the mean and standard deviation of the training data, kept in the model."""

from __future__ import annotations

import torch
from torch import Tensor

from flowzoo.bijectors.base import Bijector, require_shape
from flowzoo.errors import InputError
from flowzoo.nets.initialization import DataDependentInit


class Standardize(Bijector, DataDependentInit):
    """z = (x - m) / s with fixed m and s, log|det| = -sum log s.

    m and s are the mean and standard deviation of the batch that initialises the flow, or what :meth:`set` is given;
    they are buffers, so that a model's weights hold the units of its data.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dims: int) -> None:
        """Makes the identity.

        Args:
            dims: D of vectors ``(B, D)``.
        """
        super().__init__()
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("std", torch.ones(dims))

    @torch.no_grad()
    def set(self, mean: Tensor, std: Tensor) -> None:
        """Sets mean and standard deviation ``(D,)``.

        Raises:
            InputError: A standard deviation is not above 0, or a number is not finite.
        """
        if not bool(torch.isfinite(mean).all()) or not bool((torch.isfinite(std) & (std > 0)).all()):
            raise InputError(
                "Standardize needs finite means and standard deviations above 0; drop columns that do not vary."
            )
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.mark_initialized()

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_shape(self, x, tuple(self.mean.shape))
        if self.wants_init():
            std, mean = torch.std_mean(x.double(), dim=0, correction=0)
            self.set(mean, std)
        return (x - self.mean) / self.std, -self.std.log().sum().expand(x.shape[0])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_shape(self, z, tuple(self.mean.shape))
        return z * self.std + self.mean, self.std.log().sum().expand(z.shape[0])
