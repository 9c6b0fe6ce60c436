"""A small vision transformer: the conditioner of Jet's couplings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowzoo.nets.transformer import TransformerLayer


def _layer(channels: int, heads: int) -> TransformerLayer:
    """A layer with the authors' initial values: Glorot's uniform weights, biases of zero or nearly so."""
    layer = TransformerLayer(channels, heads, causal=False)
    attention = layer.attention
    for weight in (*attention.qkv.weight.chunk(3), attention.out.weight, layer.up.weight, layer.down.weight):
        nn.init.xavier_uniform_(weight)
    for bias in (attention.qkv.bias, attention.out.bias):
        nn.init.zeros_(bias)
    for bias in (layer.up.bias, layer.down.bias):
        nn.init.normal_(bias, std=1e-6)
    return layer


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
        self.layers = nn.ModuleList(_layer(channels, heads) for _ in range(layers))
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
