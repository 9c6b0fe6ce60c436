"""Images through the distribution functions of their own grey levels."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from flowzoo.bijectors import Bijector, MapKind, log_det_wanted, sum_per_item, unknown_log_det
from flowzoo.nets.initialization import DataDependentInit
from flowzoo.nets.precision import RunsNetwork
from flowzoo_pixelcnn.levels import GreyLevels, HistogramLevels, LogisticLevels
from flowzoo_pixelcnn.networks import Incremental, PixelCNN

Conditional = Literal["histogram", "logistics"]


class GreyLevelCDF(Bijector, RunsNetwork, DataDependentInit):
    """z_i = F_i(x_i), the distribution function of the grey level of x_i given the levels before, linear in each level.

    With K levels, k = floor(K x) and p_i(k) of a network that sees the levels before: z = P_i(below k) + (K x - k)
    p_i(k), log|det| = sum log K p_i(k). Quantized images therefore have exactly the probabilities of the discrete
    model, with whatever noise. The network sees levels alone, so that noise cannot change what it says.

    Histograms begin with the shares of the levels in the initialisation batch. The inverse finds one pixel after the
    other, and computes each hidden unit once.
    """

    def __init__(
        self,
        net: PixelCNN,
        image_shape: tuple[int, int, int],
        count: int,
        conditional: Conditional,
        floor: float,
    ) -> None:
        """Makes the bijector.

        Args:
            net: Gives the raw parameters of the conditional distributions for each pixel.
            image_shape: ``(C, H, W)``.
            count: K.
            conditional: Kind of the distributions.
            floor: Share of the uniform distribution in each.
        """
        super().__init__()
        self.net, self.conditional = net, conditional
        self.image_shape = image_shape
        self.count, self.floor = count, floor
        self.own_kind = MapKind(inverse="sequential", inverse_passes=math.prod(image_shape[1:]))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        level = self._level(x)
        if self.wants_init():
            self._initialize_from(level)
        raw = self.run_network(self.net, self._seen(level), None)
        log_p, below = self._levels(raw.movedim(1, -1)).of(level.movedim(1, -1))
        log_p, below = log_p.movedim(-1, 1), below.movedim(-1, 1)
        z = below + (x * self.count - level) * log_p.exp()
        # Rounding must not carry a value over the end of [0, 1], where a uniform base has no density.
        return z.clamp(0, 1), sum_per_item(log_p + math.log(self.count))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self._with_gradients(z) if torch.is_grad_enabled() else self._one_by_one(z)
        return x, -self._forward(x, context)[1] if log_det_wanted() else unknown_log_det(z)

    def _one_by_one(self, z: Tensor) -> Tensor:
        """Each pixel once, each hidden unit once."""
        n, channels, height, width = z.shape
        state = Incremental(self.net, (n, channels, height, width))
        x = torch.empty_like(z)
        for row in range(height):
            for column in range(width):
                levels = self._levels(state.parameters(row, column).to(z.dtype))
                level, pixel = self._pixel(levels, z[:, :, row, column])
                x[:, :, row, column] = pixel
                state.add(row, column, self._seen(level))
        return x

    def _with_gradients(self, z: Tensor) -> Tensor:
        """Each pixel from a whole evaluation of the network, recorded: as many as there are pixels."""
        height, width = z.shape[2:]
        x = torch.zeros_like(z).flatten(2)
        for place in range(height * width):
            raw = self.run_network(self.net, self._seen(self._level(x)).unflatten(2, (height, width)), None)
            _, pixel = self._pixel(self._levels(raw.flatten(2)[..., place]), z.flatten(2)[..., place])
            x = torch.cat((x[..., :place], pixel.unsqueeze(-1), x[..., place + 1 :]), dim=-1)
        image: Tensor = x.unflatten(2, (height, width))
        return image

    def _pixel(self, levels: GreyLevels, z: Tensor) -> tuple[Tensor, Tensor]:
        """Level and value ``(B, C)`` of a pixel whose latents are ``(B, C)``."""
        level = levels.find(z)
        log_p, below = levels.of(level)
        # A value at the end of its level must not be rounded into the next one.
        last = 1 - 32 * self.count * torch.finfo(z.dtype).eps
        within = ((z - below) * torch.exp(-log_p)).clamp(0, last)
        return level, (level + within) / self.count

    def _levels(self, raw: Tensor) -> GreyLevels:
        if self.conditional == "histogram":
            return HistogramLevels(raw, self.floor)
        return LogisticLevels(raw, self.image_shape[0], self.count, self.floor)

    def _level(self, x: Tensor) -> Tensor:
        """Levels of values in [0, 1], as whole numbers in their dtype."""
        level: Tensor = (x.detach() * self.count).floor().clamp(0, self.count - 1)
        return level

    def _seen(self, level: Tensor) -> Tensor:
        """Levels as the network sees them, in [-1, 1]."""
        return level * (2 / (self.count - 1)) - 1

    @torch.no_grad()
    def _initialize_from(self, level: Tensor) -> None:
        if self.conditional == "histogram":
            counts = torch.bincount(level.flatten().long(), minlength=self.count) + 1.0
            bias = self.net.out.bias
            assert bias is not None
            bias.copy_((counts / counts.sum()).log())
        self.mark_initialized()
