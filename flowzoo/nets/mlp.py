"""The rectifier network inside NICE's couplings."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.nets.caching import watched
from flowzoo.nets.derivatives import is_transformed
from flowzoo.nets.rectified_linear import multiply, rectified_linears


class MLP(nn.Module):
    """Linear layers with ReLU between them and a linear output (NICE, section 5.1)."""

    def __init__(
        self, in_features: int, hidden: tuple[int, ...], out_features: int, init_range: float
    ) -> None:
        """Makes the network, all weights uniform in ``[-init_range, init_range]`` and biases zero.

        With ``init_range`` 0 the hidden layers start as torch's default and the last at zero: an identity coupling.
        """
        super().__init__()
        widths = (in_features, *hidden, out_features)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        if init_range > 0:
            for layer in self.layers:
                assert isinstance(layer, nn.Linear)
                nn.init.uniform_(layer.weight, -init_range, init_range)
                nn.init.zeros_(layer.bias)
        else:
            for parameter in self.layers[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, in_features)``, and a context ``(B, K)`` concatenated to it, to ``(B, out_features)``."""
        if context is not None:
            x = torch.cat((x, context), dim=1)
        if self._is_plain(x):
            return self._multiplied(x)
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x), inplace=True)
        out: Tensor = last(x)
        return out

    def _is_plain(self, x: Tensor) -> bool:
        """Whether this comes to products on a CPU, and nobody wants the layers to be called."""
        if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or x.ndim != 2:
            return False
        if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or is_transformed():
            return False
        return (
            not torch.is_autocast_enabled("cpu")
            and all(map(_is_linear, self.layers))
            and not watched(self.layers)
        )

    def _multiplied(self, x: Tensor) -> Tensor:
        weights: list[Tensor] = [layer.weight for layer in self.layers]  # type: ignore[misc]
        biases: list[Tensor] = [layer.bias for layer in self.layers]  # type: ignore[misc]
        return (rectified_linears if torch.is_grad_enabled() else multiply)(x, weights, biases)


def _is_linear(layer: nn.Module) -> bool:
    """Whether this is torch's own linear layer, with a bias, as it comes."""
    patched = "forward" in layer.__dict__ or "_compiled_call_impl" in layer.__dict__
    return type(layer) is nn.Linear and layer._parameters.get("bias") is not None and not patched
