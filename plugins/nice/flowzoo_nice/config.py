"""NICE's hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowzoo.config import extension
from flowzoo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class NICEConfig:
    """The parts of a NICE.

    Attributes:
        image_shape: ``(C, H, W)``; flattened before anything else.
        n_bits: Bits per grey level.
        couplings: Number of additive couplings, the halves' roles alternating.
        hidden_layers: Hidden layers of each coupling's network; a list gives one number per coupling.
        hidden_units: Units of each hidden layer.
        base: Base density.
        input_range: ``unit`` is [0, 1], ``symmetric`` [-1, 1].
        whitening: ``zca`` fits and fixes a whitening on the initialisation batch (CIFAR-10 and SVHN in the paper).
        whitening_eps: Added to the eigenvalues of the covariance.
        marginals: ``histogram`` puts the distribution function of each grey level's histogram, counted on the
            initialisation batch, and the quantiles of the logistic distribution before the couplings, which then begin
            at independent pixels. Not in the paper.
        init_range: Weights start uniform in +-this (the official code's irange); 0 starts at the identity.
    """

    image_shape: tuple[int, int, int]
    n_bits: int = 8
    couplings: int = 4
    hidden_layers: int | tuple[int, ...] = 5
    hidden_units: int = 1000
    base: Literal["logistic", "normal"] = "logistic"
    input_range: Literal["unit", "symmetric"] = "unit"
    whitening: Literal["none", "zca"] = "none"
    whitening_eps: float = 1e-2
    marginals: Literal["none", "histogram"] = extension("none")
    init_range: float = 0.01

    def __post_init__(self) -> None:
        """Refuses what cannot be built.

        Raises:
            ConfigError: A number is out of range.
        """
        if self.couplings < 1 or self.hidden_units < 1 or min(self.layers_per_coupling()) < 1:
            raise ConfigError("nice: couplings, hidden_layers and hidden_units must be at least 1.")
        if len(self.layers_per_coupling()) != self.couplings:
            raise ConfigError(
                f"nice: hidden_layers lists {len(self.layers_per_coupling())} couplings; expected {self.couplings}."
            )
        if self.init_range < 0 or self.whitening_eps <= 0:
            raise ConfigError("nice: init_range must not be negative and whitening_eps must be positive.")

        others = (self.whitening, self.input_range, self.base)
        if self.marginals == "histogram" and others != ("none", "unit", "logistic"):
            raise ConfigError(
                "nice: marginals = 'histogram' makes the input of the couplings logistic; "
                "leave out whitening, input_range and base."
            )

    def layers_per_coupling(self) -> tuple[int, ...]:
        """Hidden layers of each coupling's network."""
        if isinstance(self.hidden_layers, int):
            return (self.hidden_layers,) * self.couplings
        return self.hidden_layers
