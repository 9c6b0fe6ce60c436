"""Hyper-parameters of continuous flows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowzoo.config import extension
from flowzoo.errors import ConfigError

MOST_EXACT_DIMS = 64
"""The most dimensions of which the trace is computed exactly."""


@dataclass(frozen=True, kw_only=True)
class FFJORDConfig:
    """The parts of a continuous flow.

    Attributes:
        image_shape: ``(C, H, W)`` of images, or None.
        dims: Length of vectors, or None.
        n_bits: Bits per grey level of images.
        scales: Scales of a stack of images; half of the channels leave after each but the last.
        squeeze_first: Whether 2x2 blocks of pixels become channels before the first scale.
        blocks: Flows in a row: for images before and after the squeeze of each scale.
        hidden: Hidden channels, or units, of the network f(z, t).
        activation: ``softplus`` or ``tanh``.
        steps: Runge-Kutta steps of each flow, four evaluations each.
        eval_steps: Steps in eval mode, of densities and samples; 0 for those of training. Training learns to profit
            from its own grid's error, which more steps take away.
        learn_time: Whether each flow's end time is learned.
        trace: ``hutchinson`` for the unbiased estimate by one probe a flow, or ``exact``, of at most 64 dimensions.
        probe: Distribution of the probe.
        alpha: Images become logit(alpha + (1 - 2 alpha) x).
        marginals: ``histogram`` puts the distribution function of each grey level's histogram, counted on the
            initialisation batch, and the quantiles of the logistic distribution in place of the logit, and a logistic
            base under the whole, which then begins near independent pixels. Not in the paper.
    """

    image_shape: tuple[int, int, int] | None = None
    dims: int | None = None
    n_bits: int = 8
    scales: int = 3
    squeeze_first: bool = False
    blocks: int = 2
    hidden: tuple[int, ...] = (64, 64, 64)
    activation: Literal["softplus", "tanh"] = "softplus"
    steps: int = 4
    eval_steps: int = 0
    learn_time: bool = True
    trace: Literal["hutchinson", "exact"] = "hutchinson"
    probe: Literal["rademacher", "normal"] = "rademacher"
    alpha: float = 0.05
    marginals: Literal["none", "histogram"] = extension("none")

    def __post_init__(self) -> None:
        """Refuses what cannot be built.

        Raises:
            ConfigError: Fields contradict each other, or a number is out of range.
        """
        if min((self.scales, self.blocks, self.steps, *self.hidden)) < 1 or not self.hidden:
            raise ConfigError(
                "ffjord: scales, blocks, steps and the units of a hidden layer must be 1 or more."
            )
        if self.eval_steps < 0:
            raise ConfigError(f"ffjord: eval_steps is {self.eval_steps}; expected 0 or more.")
        if not 0 < self.alpha < 0.5:
            raise ConfigError("ffjord: alpha must be between 0 and 0.5.")
        if self.marginals == "histogram" and self.image_shape is None:
            raise ConfigError("ffjord: marginals = 'histogram' is of grey levels; vectors have none.")
        if self.trace == "exact" and (self.image_shape is not None or (self.dims or 0) > MOST_EXACT_DIMS):
            raise ConfigError(f"ffjord: trace = exact is for vectors of at most {MOST_EXACT_DIMS} numbers.")
        halvings = 2 ** (self.scales - 1 + self.squeeze_first)
        if self.image_shape is not None and (
            self.image_shape[1] % halvings or self.image_shape[2] % halvings
        ):
            raise ConfigError(
                f"ffjord: images of {self.image_shape[1]}x{self.image_shape[2]} cannot be halved for {self.scales} "
                "scales."
            )
