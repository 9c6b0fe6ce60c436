"""Running a coupling's network in reduced precision while everything around it stays exact."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowzoo.nets.rectified import computed_in


class RunsNetwork:
    """Mixin of modules that call a network.

    Attributes:
        network_dtype: Autocast dtype of the networks (bfloat16), or None for the dtype of the data.
        random_states: Set while a backward pass by inversion needs the same dropout again: the generator states
            that earlier calls began with, taken in order; an empty list asks for the next call to add its own.
    """

    network_dtype: torch.dtype | None = None
    random_states: list[Tensor] | None = None

    def run_network(self, net: nn.Module, x: Tensor, context: Tensor | None, narrow: bool = False) -> Tensor:
        """Calls ``net(x, context)``, under autocast if :attr:`network_dtype` is set.

        The result is in the dtype of ``x``; if it may be ``narrow``, in that of the network.
        """
        if self.random_states is not None:
            self._fix_randomness(x.device)
        if not self._is_narrowed(x):
            out: Tensor = net(x, context)
        else:
            with torch.autocast(x.device.type, dtype=self.network_dtype):
                out = net(x, context)
        return out if narrow else out.to(x.dtype)

    def computed_in(self, x: Tensor) -> torch.dtype:
        """The dtype in which a network convolves this."""
        narrowed = self._is_narrowed(x)
        return self.network_dtype if narrowed and self.network_dtype is not None else computed_in(x)

    def _is_narrowed(self, x: Tensor) -> bool:
        return self.network_dtype is not None and x.dtype != torch.float64

    def _fix_randomness(self, device: torch.device) -> None:
        assert self.random_states is not None
        cuda = device.type == "cuda"
        if self.random_states:
            state = self.random_states[0]
            torch.cuda.set_rng_state(state, device) if cuda else torch.set_rng_state(state)
        else:
            self.random_states.append(torch.cuda.get_rng_state(device) if cuda else torch.get_rng_state())
