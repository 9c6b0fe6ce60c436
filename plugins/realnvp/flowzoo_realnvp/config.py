"""The configuration of a RealNVP model. Torch-free.

A model is a sequence of scales. Each but the last is: couplings between the colours of a checkerboard, a
squeeze, couplings between the halves of the channels, and half of the channels leave for the latent. The last
scale is couplings between the colours of a checkerboard alone (Dinh et al. 2017, sections 3.4 to 3.6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowzoo.config import extension
from flowzoo.errors import ConfigError

__all__ = ["RealNVPConfig", "Scale"]


@dataclass(frozen=True, slots=True)
class Scale:
    """One scale of a model.

    Attributes:
        shape: (C, H, W) of what enters.
        features: Width of the networks of its checkerboard couplings.
        channel_features: Width of the networks of its channel couplings, which follow a squeeze.
        last: Whether nothing is squeezed or factored out any more.
    """

    shape: tuple[int, int, int]
    features: int
    channel_features: int
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RealNVPConfig:
    """Everything that decides the shape of a RealNVP model.

    Attributes:
        image_shape: (C, H, W).
        n_bits: Bits of each value; the model sees ``2**n_bits`` levels.
        logit_alpha: Margin of the logit: data in [0, 1] is mapped to [alpha, 1 - alpha] first. The released
            code has 0.05; the paper's formula, alpha + (1 - alpha) x, would send white to infinity.
        initial_squeezes: Squeezes before the first scale; 0 in the paper. Each quarters the pixels, which
            makes a model cheap.
        scales: Number of scales, the last one included.
        checkerboard_couplings: Checkerboard couplings of each scale but the last.
        channel_couplings: Channel couplings of each scale but the last.
        final_couplings: Checkerboard couplings of the last scale.
        checkerboard: ``"masked"``: networks see the full resolution with the other colour zeroed, and which
            colour that is (the paper); ``"packed"``: each row keeps its own pixels of the colour, at half the
            width and half the cost.
        network: ``"resnet"``: the paper's residual networks; ``"conv"``: plain conv3x3-conv1x1-conv3x3 with
            ReLU, the most likelihood per second on a CPU.
        features: Width of the networks of the first scale's checkerboard couplings.
        feature_growth: Factor on the width at every squeeze after ``initial_squeezes``: 2 in the paper.
        residual_blocks: Residual blocks in each network (unused by ``"conv"``).
        bottleneck: Whether those are 1x1, 3x3, 1x1 (unused by ``"conv"``).
        network_batch_norm: Whether the networks have batch norm.
        normalization: What follows each coupling: ``"batch"``: batch norm of the transformed half with
            running averages (the paper); ``"actnorm"``: a learned scale and shift for each channel,
            initialised from data; ``"none"``.
        scale_map: From a network's output to log-scales; see :class:`flowzoo.bijectors.ScaleMap`.
        affine_order: ``"shift-scale"``: (x + t) s as in the released code; ``"scale-shift"``: x s + t as in
            the paper.
        squeeze: Order of the channels that the channel couplings see.
        factor_squeeze: Order of the channels of which the second half is factored out: ``"checkerboard"``
            (the released code: the kept half is a checkerboard's colour), ``"channel"`` or ``"offset"``.
        dequantization: ``"uniform"``, or ``"variational"`` with a flow of its own.
        dequantization_couplings: Couplings of that flow.
        dequantization_features: Width of its networks and of the context that they see.
        first_conditioner: The half that conditions the first coupling of each kind in each scale: ``"first"``
            is the even pixels of a checkerboard and the first half of the channels.
        network_scales: Whether the batch norms of residual networks have a learned scale and all their
            convolutions a length of their own; the released code leaves most of them out.
    """

    image_shape: tuple[int, int, int]
    n_bits: int = 8
    logit_alpha: float = 0.05
    initial_squeezes: int = 0
    scales: int = 2
    checkerboard_couplings: int = 3
    channel_couplings: int = 3
    final_couplings: int = 4
    checkerboard: Literal["masked", "packed"] = "masked"
    network: Literal["resnet", "conv"] = "resnet"
    features: int = 32
    feature_growth: Literal[1, 2] = 2
    residual_blocks: int = 4
    bottleneck: bool = False
    network_batch_norm: bool = True
    normalization: Literal["batch", "actnorm", "none"] = "batch"
    scale_map: Literal["exp", "tanh", "soft-tanh", "sigmoid2", "clamp2"] = "tanh"
    affine_order: Literal["shift-scale", "scale-shift"] = "shift-scale"
    squeeze: Literal["channel", "offset", "checkerboard"] = "channel"
    factor_squeeze: Literal["channel", "offset", "checkerboard"] = "checkerboard"
    dequantization: Literal["uniform", "variational"] = "uniform"
    dequantization_couplings: int = 4
    dequantization_features: int = 32
    first_conditioner: Literal["first", "second"] = extension("first")
    network_scales: bool = extension(False)

    def __post_init__(self) -> None:
        """Refuses values that no model can have."""
        self._check_ranges()
        self._check_shapes()

    def stack(self) -> tuple[Scale, ...]:
        """The scales with the shape that enters each and the widths of their networks."""
        channels, height, width = self.image_shape
        squeezed = 2**self.initial_squeezes
        channels, height, width = channels * squeezed**2, height // squeezed, width // squeezed
        features = self.features
        scales = []
        for index in range(self.scales):
            grown = features * self.feature_growth
            last = index == self.scales - 1
            scales.append(Scale((channels, height, width), features, grown, last))
            channels, height, width, features = 2 * channels, height // 2, width // 2, grown
        return tuple(scales)

    def _check_ranges(self) -> None:
        positive = (
            "scales",
            "final_couplings",
            "features",
            "residual_blocks",
            "dequantization_couplings",
            "dequantization_features",
        )
        bad = [name for name in positive if getattr(self, name) < 1]
        natural = ("initial_squeezes", "checkerboard_couplings", "channel_couplings")
        bad += [name for name in natural if getattr(self, name) < 0]
        if min(self.image_shape) < 1:
            bad.append("image_shape")
        if bad:
            raise ConfigError(
                f"{', '.join(bad)} out of range; give at least 1, or 0 for any of {', '.join(natural)}."
            )
        if not 1 <= self.n_bits <= 8:
            raise ConfigError(f"n_bits is {self.n_bits}; images have 1 to 8 bits.")
        if not 0 < self.logit_alpha < 0.5:
            raise ConfigError(f"logit_alpha is {self.logit_alpha}; the logit needs 0 < alpha < 0.5.")

    def _check_shapes(self) -> None:
        _, height, width = self.image_shape
        halvings = min(self.initial_squeezes + self.scales - 1, 32)  # no image is larger
        if height % 2**halvings or width % 2**halvings:
            raise ConfigError(
                f"image_shape {self.image_shape} cannot be squeezed {halvings} times; height and width must "
                f"be multiples of {2**halvings}. Lower scales or initial_squeezes."
            )
        smallest = width // 2**halvings
        if self.checkerboard == "packed" and smallest % 2:
            raise ConfigError(
                f"the last scale is {smallest} pixels wide, and packed checkerboards need even widths; "
                "lower scales, or set checkerboard to 'masked'."
            )
        if self.dequantization == "variational" and (height % 2 or width % 2):
            raise ConfigError(
                f"variational dequantization works on 2x2 blocks, and the image is {height} by {width}; "
                "it needs even numbers. Set dequantization to 'uniform'."
            )
