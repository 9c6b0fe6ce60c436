"""Gated self-attention over the positions of an image.

Source: Ho et al. 2019, *Flow++* (arXiv 1902.00275), appendix A, after Vaswani et al. 2017 (arXiv 1706.03762).
"""

from __future__ import annotations

from torch import Tensor, nn

from flowzoo.errors import ConfigError
from flowzoo.nets.gated import ScaledConv2d, gate
from flowzoo.nets.parameters import drawn_normal
from flowzoo.ops.attention import attention

__all__ = ["GatedAttention", "PositionEmbedding"]


class PositionEmbedding(nn.Module):
    """A learned vector for each position.

    Args:
        channels: Length C of each vector.
        height: Rows H.
        width: Columns W.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.weight = drawn_normal((channels, height, width), std=0.01)

    def forward(self) -> Tensor:
        """Returns the embedding, ``(1, C, H, W)``."""
        return self.weight.unsqueeze(0)


class GatedAttention(nn.Module):
    """A gated residual block of multi-head self-attention: ``x + gate(proj(attention(x + position)))``.

    Every pixel attends to every pixel. Without ``position`` the block does not know where a pixel is: it
    commutes with any permutation of the pixels.

    Args:
        channels: Channels C of input and output.
        heads: Number of heads; divides ``channels``.
        dropout: Probability of dropping a value of the attention's output while training.
        weight_norm: Whether the projections are weight-normalized.

    Raises:
        ConfigError: ``heads`` does not divide ``channels``.
    """

    def __init__(self, channels: int, heads: int, *, dropout: float = 0.0, weight_norm: bool = False) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ConfigError(
                f"GatedAttention: {channels} channels cannot be shared among {heads} heads; "
                "choose a number of heads that divides the channels."
            )
        self.heads = heads
        self.project_in = ScaledConv2d(channels, 3 * channels, 1, weight_norm=weight_norm)
        self.dropout = nn.Dropout(dropout)
        self.project_out = ScaledConv2d(channels, 2 * channels, 1, weight_norm=weight_norm, init_scale=0.1)

    def forward(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        """Maps ``(B, C, H, W)`` to the same shape; ``position`` is ``(1, C, H, W)``."""
        batch, channels, height, width = x.shape
        projected = self.project_in(x if position is None else x + position)
        # (B, 3C, H, W) -> three of (B, heads, HW, C / heads)
        pixels = projected.permute(0, 2, 3, 1).reshape(
            batch, height * width, 3, self.heads, channels // self.heads
        )
        query, key, value = pixels.permute(2, 0, 3, 1, 4).unbind(0)
        attended = attention(query, key, value)
        merged = attended.transpose(1, 2).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        return x + gate(self.project_out(self.dropout(merged)))
