"""TarFlow's conditioner: a causal transformer over tokens, whole or token after token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.nets.transformer import KeyValueCache, TransformerLayer


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
        self.layers = nn.ModuleList(
            TransformerLayer(channels, channels // head_channels, causal=True, expansion=expansion)
            for _ in range(layers)
        )
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

    def caches(self, n: int) -> list[KeyValueCache]:
        """Empty caches for :meth:`next`."""
        tokens, channels = self.position.shape
        size = self.head_channels
        return [KeyValueCache(n, channels // size, tokens, size, self.position) for _ in self.layers]

    def next(self, x: Tensor, first: int, context: Tensor | None, caches: list[KeyValueCache]) -> Tensor:
        """The parameters ``(B, t, P)`` of tokens first + 1 to first + t, given tokens first to first + t - 1."""
        return self._run(x, context, first, caches)

    def _run(
        self, x: Tensor, context: Tensor | None, first: int, caches: list[KeyValueCache] | list[None]
    ) -> Tensor:
        hidden = self.proj_in(x) + self.position[first : first + x.shape[1]]
        if self.class_embedding is not None and context is not None:
            hidden = hidden + (context.to(hidden.dtype) @ self.class_embedding)[:, None]
        for layer, cache in zip(self.layers, caches, strict=True):
            hidden = layer(hidden, first, cache)
        return self.proj_out(hidden)  # type: ignore[no-any-return]
