"""Builds an integer discrete flow from its config."""

from __future__ import annotations

import torch
from torch import Tensor

from flowzoo.densities import Dequantization, NoiseKind, StandardLogistic
from flowzoo.flow import Flow
from flowzoo_idf.config import IDFConfig
from flowzoo_idf.layers import IntegerDiscreteFlow, IntegerSplit, IntegerTop

__all__ = ["Midpoint", "build"]


class Midpoint(Dequantization):
    """u = 1/2: the density is the same in all of a bin, so that one point of it tells the probability."""

    noise: NoiseKind = "none"

    def forward(self, x: Tensor, noise: Tensor, run: object = None) -> tuple[Tensor, Tensor]:
        """Returns halves in the shape of ``x`` and zeros ``(B,)``, whatever the noise."""
        return torch.full_like(x, 0.5), x.new_zeros(x.shape[0])

    def central(self, x: Tensor, run: object = None) -> Tensor:
        """Halves."""
        return torch.full_like(x, 0.5)


def build(config: IDFConfig) -> Flow:
    """Builds the flow: its levels from the image down, and the distribution of what is left."""
    window = 2**config.n_bits
    channels, height, width = config.image_shape
    levels = []
    for _ in range(config.levels):
        here = 4 * channels
        leaves = [2 * channels] if config.split == "half" else [channels] * 3
        splits = []
        for out in leaves:
            here -= out
            splits.append(IntegerSplit(here, out, config))
        levels.append(splits)
        channels, height, width = here, height // 2, width // 2
    top = IntegerTop((channels, height, width), window, config.mixtures, config.top_gain)
    return Flow(
        image_shape=config.image_shape,
        n_bits=config.n_bits,
        bijector=IntegerDiscreteFlow(levels, top, config.image_shape, config.n_bits),
        dequantization=Midpoint(),
        base=StandardLogistic(),
    )
