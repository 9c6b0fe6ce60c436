"""The stack."""

from __future__ import annotations

import torch
from torch import nn

from flowzoo.bijectors import (
    ActNorm,
    AffineCoupling,
    Bijector,
    Chain,
    ChannelHalves,
    Flatten,
    Logit,
    ScaleMap,
    Squeeze,
    sum_per_item,
)
from flowzoo.densities import StandardLogistic
from flowzoo.flow import Flow


class Asinh(Bijector):
    """z = asinh(x), with the two methods that version 1 asked for."""

    def _forward(self, x, context):
        return torch.asinh(x), -0.5 * sum_per_item(torch.log1p(x * x))

    def _inverse(self, z, context):
        x = torch.sinh(z)
        return x, 0.5 * sum_per_item(torch.log1p(x * x))


class Net(nn.Sequential):
    """A network that takes the context and looks at it no further."""

    def forward(self, x, context=None):
        return super().forward(x)


def build(config):
    """Builds an untrained Fossil."""
    channels, height, width = config.image_shape
    half = 2 * channels
    stack: list[Bijector] = [Logit(0.05), Asinh(), Squeeze()]
    for index in range(config.steps):
        net = Net(
            nn.Conv2d(half, config.hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(config.hidden, 2 * half, 3, padding=1),
        )
        stack += [
            ActNorm((2 * half,)),
            AffineCoupling(ChannelHalves(swap=index % 2 == 1), net, ScaleMap("clamp2", half)),
        ]
    return Flow(
        image_shape=config.image_shape,
        n_bits=config.n_bits,
        bijector=Chain(*stack, Flatten((2 * half, height // 2, width // 2))),
        base=StandardLogistic(),
    )
