"""ActNorm, batch normalization inside the flow, and NICE's diagonal scaling."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flowzoo.bijectors.base import Bijector, require_shape, sum_per_item
from flowzoo.bijectors.partitions import Partition
from flowzoo.errors import ConfigError, InputError
from flowzoo.nets.initialization import DataDependentInit
from flowzoo.nets.tape import noted


class ActNorm(Bijector, DataDependentInit):
    """z = (x + b) exp(f s), log|det| = f sum s over the item's elements (Glow, section 3.1).

    Initialised so that the first batch comes out with zero mean and unit (population) variance.
    """

    def __init__(self, shape: tuple[int, ...], log_scale_factor: float = 1.0) -> None:
        """Makes an uninitialised ActNorm, which is the identity.

        Args:
            shape: ``(C,)`` for one scale and bias per channel of ``(B, C, H, W)`` or ``(B, C)``; ``(C, H, W)`` for
                one per element.
            log_scale_factor: f; OpenAI's Glow stores its log-scales divided by 3, which triples their learning rate.
        """
        super().__init__()
        if len(shape) not in (1, 3):
            raise ConfigError(f"ActNorm shape is {shape}; expected (C,) or (C, H, W).")
        self.log_scale_factor = log_scale_factor
        self.bias = nn.Parameter(torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self._check(x)
        if self.wants_init():
            self.initialize_from(x)
        bias, log_scale = self._broadcast(x)
        return (x + bias) * log_scale.exp(), self.log_det(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self._check(z)
        bias, log_scale = self._broadcast(z)
        return z * torch.exp(-log_scale) - bias, -self.log_det(z)

    def log_det(self, x: Tensor) -> Tensor:
        """The log-determinant ``(B,)`` for a batch of this shape; it does not depend on the values."""
        repeats = math.prod(x.shape[1:]) // self.log_scale.numel()
        return (self.log_scale.sum() * (repeats * self.log_scale_factor)).to(x.dtype).expand(x.shape[0])

    @torch.no_grad()
    def initialize_from(self, x: Tensor) -> None:
        """Sets bias and scale from a batch ``(B, ...)``."""
        dims = (0,) if self.bias.ndim == 3 else tuple(d for d in range(x.ndim) if d != 1)
        var, mean = torch.var_mean(x.double(), dim=dims, correction=0)
        self.bias.copy_(-mean)
        self.log_scale.copy_(-torch.log(var.sqrt() + 1e-6) / self.log_scale_factor)
        self.mark_initialized()

    def _broadcast(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_scale = self.log_scale * self.log_scale_factor
        if self.bias.ndim == 3:
            return self.bias, log_scale
        shape = (-1, *(1,) * (x.ndim - 2))
        return self.bias.view(shape), log_scale.view(shape)

    def _check(self, x: Tensor) -> None:
        expected = tuple(self.bias.shape)
        require_shape(self, x, expected if len(expected) == 3 else (expected[0], *(-1,) * (x.ndim - 2)))


class FlowBatchNorm(Bijector):
    """z = (x - mean) / sqrt(var + eps), log|det| = -1/2 sum log(var + eps) (RealNVP, section 3.7 and appendix E).

    In training mode mean and variance are the batch's, mixed into the running averages; in eval mode they are the
    running averages, so that an item's density does not depend on its companions. Only eval mode has an inverse.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, channels: int, partition: Partition | None = None, momentum: float = 0.1, eps: float = 1e-4
    ) -> None:
        """Makes the layer with mean 0 and variance 1.

        Args:
            channels: Channels of ``(B, C, H, W)`` or features of ``(B, C)``.
            partition: If given, only its transformed half is normalised.
            momentum: Share of the new batch in the running averages.
            eps: Added to the variance.
        """
        super().__init__()
        self.partition = partition
        self.momentum = momentum
        self.eps = eps
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        conditioner, b, weight = self._part(x)
        mean, var = (
            self._batch_statistics(b, weight) if self.training else (self.running_mean, self.running_var)
        )
        log_scale = self._view(-0.5 * torch.log(var + self.eps), b)
        z = (b - self._view(mean, b)) * log_scale.exp()
        return self._merge(conditioner, z), sum_per_item((log_scale * weight).expand_as(b))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        known, _ = (
            noted(self, lambda: None) if self.training else ((self.running_mean, self.running_var), True)
        )
        if known is None:
            raise InputError(
                "FlowBatchNorm has no inverse in training mode, where its statistics are the batch's own; "
                "call flow.eval() before sampling or decoding."
            )
        conditioner, b, weight = self._part(z)
        mean, var = known
        log_scale = self._view(0.5 * torch.log(var + self.eps), b)
        x = b * log_scale.exp() + self._view(mean, b)
        return self._merge(conditioner, x), sum_per_item((log_scale * weight).expand_as(b))

    def _part(self, x: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        if self.partition is None:
            return None, x, x.new_ones((1,) * x.ndim)
        conditioner, b = self.partition.split(x)
        return conditioner, b, self.partition.select(torch.ones_like(b[:1, :1]))

    def _merge(self, conditioner: Tensor | None, b: Tensor) -> Tensor:
        return b if self.partition is None or conditioner is None else self.partition.merge(conditioner, b)

    def _batch_statistics(self, b: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        dims = tuple(d for d in range(b.ndim) if d != 1)
        share = weight.expand(1, 1, *b.shape[2:]).mean()
        mean = (b * weight).mean(dim=dims) / share
        var = ((b - self._view(mean, b)).square() * weight).mean(dim=dims) / share
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(var.to(self.running_var.dtype), self.momentum)
        noted(self, lambda: (mean.detach(), var.detach()))
        return mean, var

    @staticmethod
    def _view(values: Tensor, x: Tensor) -> Tensor:
        return values.view(-1, *(1,) * (x.ndim - 2))


class DiagonalScaling(Bijector, DataDependentInit):
    """z = x exp(s), one learned s per element, log|det| = sum s (NICE, section 3.3).

    Initialised so that the first batch comes out with unit variance: from s = 0, Adam needs thousands of steps to
    reach the scale of pixels that hardly vary.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Makes the identity for items of this shape."""
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_shape(self, x, tuple(self.log_scale.shape))
        if self.wants_init():
            self._initialize_from(x)
        return x * self.log_scale.exp(), self.log_scale.sum().expand(x.shape[0])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_shape(self, z, tuple(self.log_scale.shape))
        return z * torch.exp(-self.log_scale), -self.log_scale.sum().expand(z.shape[0])

    @torch.no_grad()
    def _initialize_from(self, x: Tensor) -> None:
        self.log_scale.copy_(-torch.log(x.double().std(dim=0, correction=0) + 1e-6))
        self.mark_initialized()
