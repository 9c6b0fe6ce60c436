"""A causal transformer over tokens, whole or token after token with cached keys and values."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Cache:
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


class Attention(nn.Module):
    """Multi-head attention in which a token sees itself and those before it."""

    def __init__(self, channels: int, head_channels: int) -> None:
        """Makes the layer.

        Args:
            channels: C.
            head_channels: Channels of a head.
        """
        super().__init__()
        self.size = head_channels
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, first: int = 0, cache: Cache | None = None) -> Tensor:
        """Maps tokens ``(B, t, C)``, of which the first is number ``first`` of its sequence, to the same shape."""
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, -1, self.size)).permute(2, 0, 3, 1, 4)
        if cache is not None:
            k, v = cache.put(first, k, v)
        scores = q @ k.transpose(-1, -2) / math.sqrt(self.size)
        own = torch.arange(first, first + x.shape[1], device=x.device)
        seen = torch.arange(k.shape[2], device=x.device)
        scores = scores.masked_fill(seen[None, :] > own[:, None], -math.inf)
        out = torch.softmax(scores, dim=-1) @ v
        return self.proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Attention, then an MLP, each with a normalisation before it and a residual around it."""

    def __init__(self, channels: int, head_channels: int, expansion: int) -> None:
        """Makes the layer.

        Args:
            channels: C.
            head_channels: Channels of a head.
            expansion: Width of the MLP over C.
        """
        super().__init__()
        self.attention = Attention(channels, head_channels)
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, expansion * channels)
        self.down = nn.Linear(expansion * channels, channels)

    def forward(self, x: Tensor, first: int = 0, cache: Cache | None = None) -> Tensor:
        """Maps ``(B, t, C)`` to the same shape; see :class:`Attention`."""
        x = x + self.attention(x, first, cache)
        return x + self.down(F.gelu(self.up(self.norm(x))))  # type: ignore[no-any-return]


class CausalTransformer(nn.Module):
    """From tokens to P parameters for each *next* token.

    Row t of the result belongs to token t and depends on the tokens before it alone; that of token 0 is zero, as it
    is in the paper, so that the first token goes through a block unchanged.
    """

    def __init__(
        self,
        tokens: int,
        token_size: int,
        parameters: int,
        *,
        channels: int,
        head_channels: int,
        layers: int,
        expansion: int,
        classes: int,
    ) -> None:
        """Makes the network; all outputs are zero at first.

        Args:
            tokens: T.
            token_size: D.
            parameters: P.
            channels: Width.
            head_channels: Channels of a head.
            layers: Attention and MLP layers.
            expansion: Width of the MLPs over that of the network.
            classes: Labels whose embedding is added to every token; 0 for none.
        """
        super().__init__()
        self.head_channels = head_channels
        self.proj_in = nn.Linear(token_size, channels)
        self.position = nn.Parameter(1e-2 * torch.randn(tokens, channels))
        self.class_embedding = nn.Parameter(1e-2 * torch.randn(classes, channels)) if classes else None
        self.layers = nn.ModuleList(Layer(channels, head_channels, expansion) for _ in range(layers))
        self.proj_out = nn.Linear(channels, parameters)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Parameters of all tokens.

        Args:
            x: ``(B, T, D)``.
            context: Weights of the classes ``(B, K)``.

        Returns:
            ``(B, T, P)``.
        """
        # The last token has none after it.
        found = self._run(x[:, :-1], context, 0, [None] * len(self.layers))
        return F.pad(found, (0, 0, 1, 0))

    def caches(self, n: int) -> list[Cache]:
        """Empty caches for :meth:`next`."""
        tokens, channels = self.position.shape
        size = self.head_channels
        return [Cache(n, channels // size, tokens, size, self.position) for _ in self.layers]

    def next(self, x: Tensor, first: int, context: Tensor | None, caches: list[Cache]) -> Tensor:
        """The parameters ``(B, t, P)`` of tokens first + 1 to first + t, given tokens first to first + t - 1."""
        return self._run(x, context, first, caches)

    def _run(self, x: Tensor, context: Tensor | None, first: int, caches: list[Cache] | list[None]) -> Tensor:
        hidden = self.proj_in(x) + self.position[first : first + x.shape[1]]
        if self.class_embedding is not None and context is not None:
            hidden = hidden + (context.to(hidden.dtype) @ self.class_embedding)[:, None]
        for layer, cache in zip(self.layers, caches, strict=True):
            hidden = layer(hidden, first, cache)
        return self.proj_out(hidden)  # type: ignore[no-any-return]
