"""A small vision transformer: the conditioner of Jet's couplings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention of every token to every token."""

    def __init__(self, channels: int, heads: int) -> None:
        """Makes the layer.

        Args:
            channels: C.
            heads: Heads of C / heads channels each.
        """
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.out.weight)
        for part in self.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(part)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, T, C)`` to the same shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Attention, then an MLP four times as wide, each with a normalisation before it and a residual around it."""

    def __init__(self, channels: int, heads: int) -> None:
        """Makes the layer.

        Args:
            channels: C.
            heads: Attention heads.
        """
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = Attention(channels, heads)
        self.up, self.down = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        for linear in (self.up, self.down):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, T, C)`` to the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))  # type: ignore[no-any-return]


class Conditioner(nn.Module):
    """Tokens to a shift and a raw scale for each of their values; zero at first."""

    def __init__(
        self, tokens: int, token_size: int, *, channels: int, heads: int, layers: int, classes: int
    ) -> None:
        """Makes the network.

        Args:
            tokens: T.
            token_size: D of what it sees, and of what it gives shifts and scales for.
            channels: Width.
            heads: Attention heads.
            layers: Transformer layers.
            classes: Labels whose embedding is added to every token; 0 for none.
        """
        super().__init__()
        self.proj_in = nn.Linear(token_size, channels)
        nn.init.normal_(self.proj_in.weight, std=token_size**-0.5)
        nn.init.zeros_(self.proj_in.bias)
        self.position = nn.Parameter(channels**-0.5 * torch.randn(tokens, channels))
        self.class_embedding = (
            nn.Parameter(channels**-0.5 * torch.randn(classes, channels)) if classes else None
        )
        self.layers = nn.ModuleList(Layer(channels, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.proj_out = nn.Linear(channels, 2 * token_size)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, T, D)``, and class weights ``(B, K)``, to ``(B, T, 2 D)``: shifts, then raw scales."""
        hidden = self.proj_in(x) + self.position
        if self.class_embedding is not None and context is not None:
            hidden = hidden + (context.to(hidden.dtype) @ self.class_embedding)[:, None]
        for layer in self.layers:
            hidden = layer(hidden)
        return self.proj_out(self.norm(hidden))  # type: ignore[no-any-return]
