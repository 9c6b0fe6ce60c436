"""Hyper-parameters of residual flows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowzoo.config import extension
from flowzoo.errors import ConfigError

MOST_EXACT_DIMS = 64
"""The most dimensions of which a whole Jacobian is computed."""


@dataclass(frozen=True, kw_only=True)
class ResidualConfig:
    """The parts of an invertible residual network (i-ResNet) or a Residual Flow.

    Attributes:
        image_shape: ``(C, H, W)`` of images, or None.
        dims: Length of vectors, or None.
        n_bits: Bits per grey level of images.
        blocks: Residual blocks of each scale; of vectors one number.
        channels: Hidden channels of each block, or hidden units for vectors.
        kernels: Kernel sizes of the convolutions of a block, odd.
        fc_blocks: Fully connected blocks at the end of a stack of images.
        fc_hidden: Their hidden units.
        fc_layers: Linear layers of a fully connected block, also of one for vectors.
        activation: ``lipswish``, x sigmoid(b x) / 1.1 with b learned, or ``elu``.
        coefficient: The largest spectral norm of every layer, below 1.
        estimator: The log-determinant: ``roulette`` for the unbiased estimate by a random number of terms,
            ``truncated`` for the biased one by ``exact_terms`` terms, ``exact`` for the determinant itself, of at
            most 64 dimensions.
        exact_terms: Terms of the power series that are always computed in training; and in eval mode, if truncated.
        eval_terms: The same in eval mode.
        roulette: Distribution of the number of terms after those: ``poisson`` or ``geometric``.
        rate: Mean of the Poisson distribution, or the chance to stop after each term of the geometric one.
        probe: Distribution of the probe of Hutchinson's trace estimate.
        gradient: In training, ``neumann`` for the gradient by a Neumann series, which needs no more memory than a block
            without log-determinant, or ``series`` for that of the estimate itself.
        normalization: ``before`` or ``after`` each block an ActNorm, or ``none``.
        initial_squeeze: Whether 2x2 blocks of pixels become channels before the first scale.
        factor_out: Whether half of the channels leave after each scale but the last.
        preprocessing: Of images: ``logit`` or ``center`` (x - 1/2).
        alpha: Images become logit(alpha + (1 - 2 alpha) x).
        learned_base: Whether the base has a learned mean and scale for each dimension.
        marginals: ``histogram`` puts the distribution function of each grey level's histogram, counted on the
            initialisation batch, and the quantiles of the logistic distribution in place of the preprocessing: the
            whole then begins near independent pixels. Not in the paper.
    """

    image_shape: tuple[int, int, int] | None = None
    dims: int | None = None
    n_bits: int = 8
    blocks: tuple[int, ...] = (16, 16, 16)
    channels: int = 512
    kernels: tuple[int, ...] = (3, 1, 3)
    fc_blocks: int = 4
    fc_hidden: int = 128
    fc_layers: int = 3
    activation: Literal["lipswish", "elu"] = "lipswish"
    coefficient: float = 0.98
    estimator: Literal["roulette", "truncated", "exact"] = "roulette"
    exact_terms: int = 2
    eval_terms: int = 20
    roulette: Literal["poisson", "geometric"] = "poisson"
    rate: float = 2.0
    probe: Literal["normal", "rademacher"] = "normal"
    gradient: Literal["neumann", "series"] = "neumann"
    normalization: Literal["before", "after", "none"] = "after"
    initial_squeeze: bool = False
    factor_out: bool = False
    preprocessing: Literal["logit", "center"] = "logit"
    alpha: float = 0.05
    learned_base: bool = False
    marginals: Literal["none", "histogram"] = extension("none")

    def __post_init__(self) -> None:
        """Refuses what cannot be built.

        Raises:
            ConfigError: Fields contradict each other, or a number is out of range.
        """
        if not self.blocks or min((*self.blocks, self.channels, self.fc_hidden, self.fc_layers)) < 1:
            raise ConfigError("residual: blocks, channels, fc_hidden and fc_layers must be 1 or more.")
        if not self.kernels or any(k < 1 or k % 2 == 0 for k in self.kernels):
            raise ConfigError(f"residual: kernels are {self.kernels}; expected odd sizes.")
        if not 0 < self.coefficient < 1:
            raise ConfigError(
                f"residual: coefficient is {self.coefficient}; a block x + g(x) is invertible if g contracts, so "
                "choose one between 0 and 1."
            )
        if (
            self.exact_terms < 0
            or self.eval_terms < 0
            or (self.estimator == "truncated" and self.exact_terms < 1)
        ):
            raise ConfigError(
                "residual: exact_terms and eval_terms must not be negative, or truncated to nothing."
            )
        if not 0 < self.rate < (1 if self.roulette == "geometric" else 20):
            raise ConfigError(
                f"residual: rate is {self.rate}; expected a chance between 0 and 1 (geometric) or a mean below 20 "
                "(poisson)."
            )
        if not 0 < self.alpha < 0.5 or self.fc_blocks < 0:
            raise ConfigError("residual: alpha must be between 0 and 0.5, and fc_blocks not negative.")
        self._check_shapes()

    def _check_shapes(self) -> None:
        if self.image_shape is None:
            if self.marginals == "histogram":
                raise ConfigError("residual: marginals = 'histogram' is of grey levels; vectors have none.")
            if len(self.blocks) != 1:
                raise ConfigError(
                    f"residual: blocks is {self.blocks}; of vectors it is one number, such as (10,)."
                )
            if self.estimator == "exact" and (self.dims or 0) > MOST_EXACT_DIMS:
                raise ConfigError(f"residual: estimator = exact is for at most {MOST_EXACT_DIMS} dimensions.")
            return
        if self.estimator == "exact":
            raise ConfigError("residual: estimator = exact is for vectors; images have too many dimensions.")
        squeezes = 2 ** (len(self.blocks) - 1 + self.initial_squeeze)
        if self.factor_out and len(self.blocks) > 1 and self.image_shape[0] % 2 and not self.initial_squeeze:
            raise ConfigError(
                f"residual: {self.image_shape[0]} channels have no halves to factor out; set initial_squeeze = true."
            )
        if self.image_shape[1] % squeezes or self.image_shape[2] % squeezes:
            raise ConfigError(
                f"residual: images of {self.image_shape[1]}x{self.image_shape[2]} cannot be halved for each of "
                f"{len(self.blocks)} scales."
            )
