"""Running a coupling's network in reduced precision while everything around it stays exact."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowzoo.nets.tape import noted

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
"""torch's layers that draw random numbers in training."""


class RunsNetwork:
    """Mixin of modules that call a network.

    Attributes:
        network_dtype: Autocast dtype of the networks (bfloat16), or None for the dtype of the data.
    """

    network_dtype: torch.dtype | None = None

    def run_network(
        self, net: nn.Module, x: Tensor, context: Tensor | None, *, keep_dtype: bool = False
    ) -> Tensor:
        """Calls ``net(x, context)``, under autocast if :attr:`network_dtype` is set.

        The result has the dtype of ``x``, or that of the network if it may keep it.
        """
        if has_dropout(net):
            _repeat_randomness(net, x.device)
        if self.network_dtype is None or x.dtype == torch.float64:
            out: Tensor = net(x, context)
        else:
            with torch.autocast(x.device.type, dtype=self.network_dtype):
                out = net(x, context)
        return out if keep_dtype else out.to(x.dtype)


def has_dropout(module: nn.Module) -> bool:
    """True if some dropout inside is active."""
    return module.training and any(
        isinstance(m, DROPOUTS) and m.training and m.p > 0 for m in module.modules()
    )


def _repeat_randomness(net: nn.Module, device: torch.device) -> None:
    """Notes the generator's state on the current tape, or sets it to the noted one."""
    cuda = device.type == "cuda"
    state, replayed = noted(net, lambda: torch.cuda.get_rng_state(device) if cuda else torch.get_rng_state())
    if replayed and state is not None:
        torch.cuda.set_rng_state(state, device) if cuda else torch.set_rng_state(state)
