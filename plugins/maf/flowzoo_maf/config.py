"""Hyper-parameters of masked autoregressive flows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from flowzoo.config import extension
from flowzoo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class MAFConfig:
    """The parts of a masked autoregressive flow.

    Attributes:
        image_shape: ``(C, H, W)`` of images, which are flattened; or None.
        dims: Length of vectors, or None.
        n_bits: Bits per grey level of images.
        layers: Autoregressive layers (MADEs); each orders the values the other way round than the one before.
        hidden: Units of the hidden layers of each MADE.
        direct: How many values just before a value its MADEs connect it with directly; 0 for none, as in the paper.
        activation: ``relu`` or ``tanh``.
        order: The first layer's order of the values: ``sequential``, or ``random`` by ``order_seed``.
        order_seed: Seed of a random order.
        mixture: Components of a mixture of normals for each value; 0 for a single normal.
        mixture_layers: How many layers, counted from the base, have mixtures; 0 for all.
        normalization: Between layers: ``batch`` norm with running statistics, ``actnorm``, or ``none``.
        log_scale_clip: Log-scales become clip tanh(s / clip); 0 leaves them as they are, as the paper does.
        alpha: Images become logit(alpha + (1 - 2 alpha) x).
        inverse: Exchanges the directions: an inverse autoregressive flow, which samples in one pass and needs D passes
            for a density.
        sampler: How the slow direction is computed: ``sequential``, one value after the other, or ``jacobi``, all
            at once until nothing changes.
        base: Base density: ``normal``; ``uniform``, to which mixtures lead, but in whose upper end float32 cannot tell
            values apart, so that of 784 pixels one now and then has no way back; or ``logistic``, to which
            ``marginals`` do.
        input_bound: The networks see values clamped to plus or minus this; 0 for as they are, as in the paper. A sample
            that has left the range of the data then stays finite, where it would grow from one value to the next.
        marginals: ``histogram`` puts the distribution function of each grey level's histogram, counted on the
            initialisation batch, and the quantiles of the logistic distribution before the layers, in place of the
            logit. Not in the paper.
    """

    image_shape: tuple[int, int, int] | None = None
    dims: int | None = None
    n_bits: int = 8
    layers: int = 5
    hidden: tuple[int, ...] = (1024, 1024)
    direct: int = 0
    activation: Literal["relu", "tanh"] = "relu"
    order: Literal["sequential", "random"] = "sequential"
    order_seed: int = 0
    mixture: int = 0
    mixture_layers: int = 0
    normalization: Literal["batch", "actnorm", "none"] = "batch"
    log_scale_clip: float = 0.0
    alpha: float = 1e-6
    inverse: bool = False
    sampler: Literal["sequential", "jacobi"] = "sequential"
    base: Literal["normal", "uniform", "logistic"] = "normal"
    input_bound: float = extension(0.0)
    marginals: Literal["none", "histogram"] = extension("none")

    def __post_init__(self) -> None:
        """Refuses what cannot be built.

        Raises:
            ConfigError: Fields contradict each other, or a number is out of range.
        """
        if self.layers < 1 or not self.hidden or min(self.hidden) < 1:
            raise ConfigError("maf: layers and the units of at least one hidden layer must be 1 or more.")
        if not 0 <= self.direct < max(self.size, 1):
            raise ConfigError(
                f"maf: direct is {self.direct}; expected 0, or fewer than the {self.size} values of an item."
            )
        if self.mixture < 0 or not 0 <= self.mixture_layers <= self.layers:
            raise ConfigError(
                f"maf: mixture is {self.mixture} and mixture_layers {self.mixture_layers}; expected 0 or more "
                f"components, in at most {self.layers} layers."
            )
        if self.log_scale_clip < 0 or self.input_bound < 0 or not 0 < self.alpha < 0.5:
            raise ConfigError(
                "maf: log_scale_clip and input_bound must not be negative, and alpha between 0 and 0.5."
            )
        if self.inverse and self.mixture:
            raise ConfigError("maf: an inverse autoregressive flow has normal conditionals; set mixture = 0.")
        if self.base == "uniform" and self.mixture == 0:
            raise ConfigError("maf: affine layers do not lead into the unit cube; choose base = normal.")
        if self.base == "logistic" and self.mixture:
            raise ConfigError("maf: mixtures lead to a normal or uniform base, not to a logistic one.")
        if self.marginals == "histogram" and self.image_shape is None:
            raise ConfigError("maf: marginals = 'histogram' is of grey levels; vectors have none.")

    @property
    def size(self) -> int:
        """D, the number of values in an item."""
        return math.prod(self.image_shape) if self.image_shape is not None else self.dims or 0

    def is_mixture(self, layer: int) -> bool:
        """Whether a layer, counted from 0 at the data, has mixtures."""
        if self.mixture == 0:
            return False
        return self.mixture_layers == 0 or layer >= self.layers - self.mixture_layers
