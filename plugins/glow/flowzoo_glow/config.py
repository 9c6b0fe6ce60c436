"""Glow's hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowzoo.config import extension
from flowzoo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class GlowConfig:
    """The parts of a Glow; the defaults are those of OpenAI's code.

    Attributes:
        image_shape: ``(C, H, W)``; H and W divisible by 2 once per level.
        n_bits: Bits per grey level.
        levels: L; each begins with a squeeze, and all but the last end with factoring out half the channels.
        depth: K, steps of flow per level.
        hidden_channels: Width of the networks inside the couplings.
        coupling: Affine or additive.
        scale_map: Raw network output to log-scale; ``sigmoid2`` is log sigmoid(raw + 2),
            ``bounded-sigmoid`` the same with scales of at least 0.1.
        order: (x + t) s or x s + t.
        layout: How shift and log-scale share the network's channels.
        permutation: Between couplings: invertible 1x1 convolution (``dense`` or ``lu``), ``reverse`` or ``shuffle``.
        actnorm: Whether a step begins with ActNorm.
        net_normalization: ActNorm or nothing inside the networks.
        edge_bias: Whether the 3x3 convolutions see where the zero padding is.
        learn_prior: Whether the factored-out half has a prior learned from the kept one.
        learn_top: The last level's prior: standard, or a learned mean and scale per ``channel`` or ``element``.
        squeeze_order: Channel order of the squeeze.
        preprocessing: ``centre`` is x - 1/2; ``logit`` is logit(alpha + (1 - 2 alpha) x).
        alpha: Of the logit.
        dequantization: ``uniform``, or ``variational`` with a small conditional flow (Flow++).
        dequantization_depth: Couplings of that flow.
        dequantization_channels: Width of its networks.
        transformed_half: The half of the channels that a coupling transforms, given the other.
        depths: Steps of flow of each level, from the first; empty for ``depth`` in all of them.
        network_input: ``rectified`` puts a learned scale and shift and a ReLU before a network's first
            convolution, as in networks that normalize before they convolve; ``clamped`` clamps what networks see to
            [-5, 5], so that activations off the data cannot drive each other to infinity when a sample is drawn.
        classes: Number of labels that the last level's prior is conditioned on, as in OpenAI's code; 0 for none.
        label_dropout: Whether an item without a label has the likelihood that training with
            ``train.label_dropout`` gave it (the mean of the classes' priors), instead of the average over all labels.
    """

    image_shape: tuple[int, int, int]
    n_bits: int = 8
    levels: int
    depth: int
    hidden_channels: int = 512
    coupling: Literal["affine", "additive"] = "affine"
    scale_map: Literal["exp", "tanh", "soft-tanh", "sigmoid2", "bounded-sigmoid", "clamp2"] = "sigmoid2"
    order: Literal["shift-scale", "scale-shift"] = "shift-scale"
    layout: Literal["halves", "interleaved"] = "interleaved"
    permutation: Literal["dense", "lu", "reverse", "shuffle"] = "dense"
    actnorm: bool = True
    net_normalization: Literal["actnorm", "none"] = "actnorm"
    edge_bias: bool = True
    learn_prior: bool = True
    learn_top: Literal["none", "channel", "element"] = "channel"
    squeeze_order: Literal["channel", "offset", "checkerboard"] = "channel"
    preprocessing: Literal["centre", "logit"] = "centre"
    alpha: float = 0.05
    dequantization: Literal["uniform", "variational"] = "uniform"
    dequantization_depth: int = 4
    dequantization_channels: int = 32
    transformed_half: Literal["second", "first"] = extension("second")
    network_input: Literal["plain", "rectified", "clamped"] = extension("plain")
    depths: tuple[int, ...] = extension(())
    classes: int = extension(0)
    label_dropout: bool = extension(False)

    def __post_init__(self) -> None:
        """Refuses what cannot be built.

        Raises:
            ConfigError: A number is out of range, or the image does not halve ``levels`` times.
        """
        for name in ("levels", "depth", "hidden_channels", "dequantization_depth", "dequantization_channels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"glow: {name} is {getattr(self, name)}; expected at least 1.")
        if self.classes < 0 or self.classes == 1:
            raise ConfigError(f"glow: classes is {self.classes}; expected 0 for none, or at least 2.")
        if self.classes and self.learn_top == "none":
            raise ConfigError(
                "glow: classes condition the learned top; choose learn_top = channel or element."
            )
        if self.label_dropout and not self.classes:
            raise ConfigError(
                "glow: label_dropout leaves labels out, and there are none; set classes, such as 10."
            )
        if self.depths and (len(self.depths) != self.levels or min(self.depths) < 1):
            raise ConfigError(
                f"glow: depths is {list(self.depths)}; expected {self.levels} numbers of at least 1, one per level, or "
                "none for the same depth in all."
            )
        for size in self.image_shape[1:]:
            if size % 2 ** min(self.levels, 32):  # no image is larger
                raise ConfigError(
                    f"glow: an image of {self.image_shape[1]}x{self.image_shape[2]} cannot be halved "
                    f"{self.levels} times; use fewer levels or another image size."
                )

    def steps(self, level: int) -> int:
        """Steps of flow of a level, counted from 1."""
        return self.depths[level - 1] if self.depths else self.depth
