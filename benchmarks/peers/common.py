"""The parts that every peer's model is built with: one interface, and the networks inside the couplings.

The networks have flowzoo's shapes and are written as anyone would write them for these libraries: plain torch,
contiguous.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.workloads import Workload


class Peer(nn.Module):
    """A peer's model behind two methods, of images in grey levels, or of vectors, as flowzoo's are.

    Attributes:
        model: The library's own object.
        after_step: What has to be done after each update of the weights.
    """

    def __init__(
        self,
        model: Any,
        log_prob: Callable[[Tensor], Any],
        sample: Callable[[int], Tensor],
        after_step: Callable[[], None] | None = None,
        *,
        images: bool = True,
    ) -> None:
        """Makes it.

        Args:
            model: The library's object.
            log_prob: How it gives log-densities of images in [0, 1], or of vectors.
            sample: How it draws them.
            after_step: What has to be done after each update of the weights, if anything.
            images: Whether they are images.
        """
        super().__init__()
        self.model, self._log_prob, self._sample = model, log_prob, sample
        self.after_step, self.images = after_step, images

    def forward(self, x: Tensor) -> Tensor:
        """Log-density ``(B,)`` of vectors, or of ``uint8 (B, C, H, W)`` with uniform noise within each grey level."""
        out: Tensor = self._log_prob((x + torch.rand(x.shape, device=x.device)) / 256 if self.images else x)
        return out

    def sample(self, n: int) -> Tensor:
        """Draws ``n`` images, uint8, or vectors."""
        drawn = self._sample(n)
        return (drawn * 256).clamp(0, 255).to(torch.uint8) if self.images else drawn


Builders = dict[str, Callable[[Workload], Peer]]
"""By library."""


class ConvNet(nn.Sequential):
    """conv 3x3, ReLU, conv 1x1, ReLU, conv 3x3; a context, which some libraries pass, is ignored."""

    def __init__(self, in_channels: int, out_channels: int, hidden: int) -> None:
        """Makes it; in a loop of plain layers, since a context cannot pass through ``nn.Sequential``."""
        super().__init__(
            nn.Conv2d(in_channels, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, out_channels, 3, padding=1),
        )

    def forward(self, x: Tensor, context: object = None) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, H, W)``."""
        for layer in self:
            x = layer(x)
        return x


class MaskedConvNet(nn.Module):
    """A :class:`ConvNet` on pixels of one colour of a checkerboard, which also sees where they are."""

    mask: Tensor

    def __init__(self, shape: tuple[int, int, int], hidden: int, mask: Tensor) -> None:
        """Makes it for ``shape`` (C, H, W); ``mask`` ``(H, W)`` is one where pixels are given."""
        super().__init__()
        self.register_buffer("mask", mask[None, None])
        self.net = ConvNet(shape[0] + 1, 2 * shape[0], hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)``, zero where the mask is, to ``(B, 2 C, H, W)``."""
        mask = self.mask.expand(x.shape[0], -1, -1, -1)
        out: Tensor = self.net(torch.cat((x, mask), dim=1))
        return out


class MLP(nn.Sequential):
    """Linear layers with ReLU between them; a context is ignored."""

    def __init__(self, in_features: int, out_features: int, hidden: tuple[int, ...]) -> None:
        """Makes it."""
        widths = (in_features, *hidden, out_features)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU(inplace=True)]
        super().__init__(*layers[:-1])

    def forward(self, x: Tensor, context: object = None) -> Tensor:
        """``(B, D)`` to ``(B, O)``."""
        for layer in self:
            x = layer(x)
        return x


def checkerboard(height: int, width: int, *, odd: bool) -> Tensor:
    """``(H, W)``: one where row + column is even, or odd; zero elsewhere."""
    colour = torch.arange(height)[:, None] + torch.arange(width)[None, :] + int(odd)
    return (colour + 1) % 2 * 1.0
