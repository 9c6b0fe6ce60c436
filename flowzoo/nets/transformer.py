"""Layers of transformers over tokens, causal or not, whole or with cached keys and values."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.errors import ConfigError


class KeyValueCache:
    """Keys and values of one attention layer for the tokens seen so far, in memory that is taken once.

    Args:
        n: Items.
        heads: Heads.
        tokens: T.
        size: Channels of a head.
        like: For dtype and device.
    """

    def __init__(self, n: int, heads: int, tokens: int, size: int, like: Tensor) -> None:
        self.keys = like.new_empty(n, heads, tokens, size)
        self.values = like.new_empty(n, heads, tokens, size)

    def put(self, first: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes the keys and values ``(B, heads, t, size)`` of tokens from ``first`` on; returns all up to them."""
        last = first + keys.shape[2]
        self.keys[:, :, first:last] = keys
        self.values[:, :, first:last] = values
        return self.keys[:, :, :last], self.values[:, :, :last]


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al., 2017, section 3.2).

    A causal one lets a token see itself and those before it. It is written out rather than torch's fused one, which
    has no second derivatives on a CPU.
    """

    def __init__(self, channels: int, heads: int, *, causal: bool) -> None:
        """Makes the layer.

        Args:
            channels: C.
            heads: Heads of C / heads channels each.
            causal: Whether a token sees no later one.

        Raises:
            ConfigError: ``heads`` does not divide ``channels``.
        """
        super().__init__()
        if heads < 1 or channels % heads:
            raise ConfigError(f"{channels} channels cannot be shared among {heads} heads.")
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, first: int = 0, cache: KeyValueCache | None = None) -> Tensor:
        """Maps tokens ``(B, t, C)``, of which the first is number ``first`` of its sequence, to the same shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if cache is not None:
            k, v = cache.put(first, k, v)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if self.causal:
            own = torch.arange(first, first + x.shape[1], device=x.device)
            seen = torch.arange(k.shape[2], device=x.device)
            scores = scores.masked_fill(seen[None, :] > own[:, None], -math.inf)
        out = torch.softmax(scores, dim=-1) @ v
        return self.out(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class TransformerLayer(nn.Module):
    """Self-attention, then an MLP with GELU, each with a normalisation before it and a residual around it."""

    def __init__(self, channels: int, heads: int, *, causal: bool, expansion: int = 4) -> None:
        """Makes the layer.

        Args:
            channels: C.
            heads: Attention heads.
            causal: Whether a token sees no later one.
            expansion: Width of the MLP over C.
        """
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = SelfAttention(channels, heads, causal=causal)
        self.up = nn.Linear(channels, expansion * channels)
        self.down = nn.Linear(expansion * channels, channels)

    def forward(self, x: Tensor, first: int = 0, cache: KeyValueCache | None = None) -> Tensor:
        """Maps ``(B, t, C)`` to the same shape; see :class:`SelfAttention`."""
        x = x + self.attention(self.norm1(x), first, cache)
        return x + self.down(F.gelu(self.up(self.norm2(x))))  # type: ignore[no-any-return]
