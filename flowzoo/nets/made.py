"""MADE: a network whose outputs for a value see only the values before it (Germain et al., 2015)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["relu", "tanh", "elu"]

FUNCTIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh, "elu": F.elu}


class MaskedLinear(nn.Linear):
    """A linear layer of which some connections are missing; rows and columns have degrees."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        """Makes the layer.

        Args:
            mask: ``(out, in)``, true where there is a connection.
        """
        outputs, inputs = mask.shape
        super().__init__(inputs, outputs)
        # In the weight's dtype: a product with another one would copy it first, at the cost of the layer itself.
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)
        nn.init.normal_(self.weight, std=1 / math.sqrt(inputs))
        # With no biases all units of a function of one value would have their bend in the same place.
        nn.init.uniform_(self.bias, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))

    def masked_weight(self) -> Tensor:
        """The weight, zero where there is no connection."""
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in)`` to ``(B, out)``."""
        return F.linear(x, self.masked_weight(), self.bias)


class MADE(nn.Module):
    """Masked hidden layers and one masked output layer with P parameters for each of D values.

    The value of degree i (1 to D) sees those of lower degree. Hidden units have degrees 1 to D - 1, as evenly as they
    go, in ascending order; with masks as in equations 8 and 9 of the paper the product of all masks is strictly lower
    triangular in the order of degrees.

    Attributes:
        degrees: Degree of each value, ``(D,)``, from 1.
        order: Values by degree: ``degrees[order[i]] == i + 1``.
    """

    degrees: Tensor
    order: Tensor
    band: nn.Parameter | None

    def __init__(
        self,
        degrees: Tensor,
        hidden: Sequence[int],
        parameters: int,
        activation: Activation = "relu",
        *,
        direct: int = 0,
        input_bound: float | None = None,
    ) -> None:
        """Makes the network; all outputs are zero at first.

        Args:
            degrees: A permutation of 1 to D.
            hidden: Units of each hidden layer.
            parameters: P.
            activation: Of the hidden layers.
            direct: How many values just before a value it is connected with directly (the paper's direct connections,
                kept to a band). With fewer hidden units than values these are the ones that no unit passes on.
            input_bound: The network sees x clamped to [-bound, bound]. Off the data values may be of any size, and
                what is computed from them grows from one value to the next.
        """
        super().__init__()
        dims = len(degrees)
        self.register_buffer("degrees", degrees, persistent=False)
        self.register_buffer("order", degrees.argsort(), persistent=False)
        self.parameters_per_value = parameters
        self.activation = activation
        self.input_bound = input_bound
        before = degrees
        layers = []
        for units in hidden:
            own = hidden_degrees(units, dims)
            layers.append(MaskedLinear(own[:, None] >= before[None, :]))
            before = own
        self.hidden = nn.ModuleList(layers)
        last = degrees[:, None] > before[None, :]
        self.out = MaskedLinear(last.repeat_interleave(parameters, dim=0))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        band = nn.Parameter(torch.zeros(dims, direct, parameters)) if direct else None
        self.register_parameter("band", band)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, D)`` to ``(B, D, P)``; ``context`` is ignored."""
        function = FUNCTIONS[self.activation]
        seen = x = self.clamped(x)
        for layer in self.hidden:
            x = function(layer(x))
        out: Tensor = self.out(x).unflatten(1, (-1, self.parameters_per_value))
        return out if self.band is None else out + self._direct(seen, self.band)

    def clamped(self, x: Tensor) -> Tensor:
        """``x`` as the network sees it."""
        return x if self.input_bound is None else x.clamp(-self.input_bound, self.input_bound)

    def _direct(self, x: Tensor, band: Tensor) -> Tensor:
        """The part ``(B, D, P)`` of the values just before each, by weights ``(D, N, P)`` in the order of degrees."""
        dims, reach, _ = band.shape
        windows = F.pad(x.T[self.order], (0, 0, reach, 0)).unfold(0, reach, 1)[:dims]
        return torch.bmm(windows, band)[self.degrees - 1].transpose(0, 1)


def hidden_degrees(units: int, dims: int, device: str | None = None) -> Tensor:
    """Degrees of hidden units, ascending: 1 to D - 1 as evenly as they go, 1 if D is 1."""
    if dims == 1:
        return torch.ones(units, dtype=torch.int64, device=device)
    return torch.arange(units, device=device).mul(dims - 1).div(units, rounding_mode="floor") + 1


class Incremental:
    """A MADE evaluated value by value: each hidden unit is computed once, when all that it sees is known.

    A pass over all values costs what one evaluation of the network costs, in D small steps; calling the network D
    times costs D times that. Weights are taken as they are when it is made, without gradients.

    Args:
        made: The network.
        n: Items in the batch.
    """

    def __init__(self, made: MADE, n: int) -> None:
        self.made, self.function = made, FUNCTIONS[made.activation]
        dims = len(made.degrees)
        like = made.out.weight
        order = made.order
        self.x = like.new_zeros(n, dims)  # values in the order of degrees, as the network sees them
        self.layers = []
        previous = [int(d) for d in range(dims + 1)]  # how many inputs have a degree of at most d
        for i, layer in enumerate(made.hidden):
            assert isinstance(layer, MaskedLinear)
            weight = layer.masked_weight().detach()
            weight = weight[:, order] if i == 0 else weight
            own = hidden_degrees(weight.shape[0], dims, device="cpu")
            ends = own.bincount(minlength=dims + 1).cumsum(0).tolist()
            self.layers.append((weight.contiguous(), layer.bias.detach(), previous, ends))
            previous = ends
        self.values = [like.new_zeros(n, weight.shape[0]) for weight, *_ in self.layers]
        each = (dims, made.parameters_per_value)
        self.out = made.out.masked_weight().detach().unflatten(0, each)[order]  # (D, P, H)
        self.out_bias = made.out.bias.detach().unflatten(0, each)[order]
        self.previous = previous
        self.band = None if made.band is None else made.band.detach()

    def parameters(self, place: int) -> Tensor:
        """The parameters ``(B, P)`` of the value at this place of the order, all before it being known."""
        known = self.previous[place]
        hidden = self.values[-1][:, :known]
        found = torch.addmm(self.out_bias[place], hidden, self.out[place][:, :known].T)
        if self.band is None:
            return found
        reach = min(place, self.band.shape[1])
        return found.addmm_(self.x[:, place - reach : place], self.band[place, self.band.shape[1] - reach :])

    def add(self, place: int, value: Tensor) -> None:
        """Takes the value ``(B,)`` at this place, and computes the hidden units that wait for it alone."""
        self.x[:, place] = self.made.clamped(value)
        degree, before = place + 1, self.x
        for (weight, bias, seen, ends), values in zip(self.layers, self.values, strict=True):
            first, last = ends[degree - 1], ends[degree]
            if first < last:
                known = seen[degree]
                part = torch.addmm(bias[first:last], before[:, :known], weight[first:last, :known].T)
                values[:, first:last] = self.function(part)
            before = values
