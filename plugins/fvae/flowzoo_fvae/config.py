"""f-VAE's hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowzoo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FVAEConfig:
    """The parts of an f-VAE; the defaults are those of the authors' code.

    Attributes:
        image_shape: ``(C, H, W)``; H and W divisible by 2 once per encoder level.
        n_bits: Bits per grey level.
        encoder_levels: Squeezes of the encoder, each followed by residual blocks; the decoder mirrors them.
        blocks: Residual blocks of each encoder level.
        widths: Their channels, level by level; empty for as many as the squeezes make.
        latent_channels: Channels of the latent e; 0 for as many as the last encoder level has.
        normalization: Batch norm or nothing inside the residual blocks.
        encoder_scale: The standard deviation of q(e|x): one learned number, or one for each ``element``, of x.
        rounds: How often the image is decoded; before each time but the first e is encoded anew, given what is left of
            the image (augmented normalizing flows). One is the paper's.
        decoder: p(x|e): a normal distribution with one learned ``shared`` standard deviation, or with one of e for
            each ``element``, or a ``mixture`` of logistics for each element.
        components: Of the mixture.
        output: Whether the decoder's means end in a ``tanh``, or are ``linear``.
        levels: L of the prior; all but the last end with factoring out half the channels, and all but the first begin
            with a squeeze.
        depth: K, steps of flow per level of the prior.
        hidden_channels: Width of the networks inside the prior's couplings.
        coupling: ``additive`` (the authors' code) or ``affine``.
        permutation: Between couplings: fixed random ones (``shuffle``), or learned 1x1 convolutions (``dense``).
        preprocessing: ``centre`` is 2 x - 1; ``logit`` is logit(alpha + (1 - 2 alpha) x). The encoder sees 2 x - 1.
        alpha: Of the logit.
        dequantization: ``uniform``, or ``variational`` with a small conditional flow (Flow++).
        dequantization_depth: Couplings of that flow.
        dequantization_channels: Width of its networks.
    """

    image_shape: tuple[int, int, int]
    n_bits: int = 8
    encoder_levels: int = 3
    blocks: int = 12
    widths: tuple[int, ...] = ()
    latent_channels: int = 0
    normalization: Literal["batch", "none"] = "batch"
    encoder_scale: Literal["shared", "element"] = "shared"
    rounds: int = 1
    decoder: Literal["shared", "element", "mixture"] = "shared"
    components: int = 4
    output: Literal["tanh", "linear"] = "tanh"
    levels: int = 4
    depth: int = 12
    hidden_channels: int = 256
    coupling: Literal["additive", "affine"] = "additive"
    permutation: Literal["shuffle", "dense"] = "shuffle"
    preprocessing: Literal["centre", "logit"] = "centre"
    alpha: float = 1e-5
    dequantization: Literal["uniform", "variational"] = "uniform"
    dequantization_depth: int = 4
    dequantization_channels: int = 32

    def __post_init__(self) -> None:
        """Refuses what cannot be built.

        Raises:
            ConfigError: A number is out of range, or the image or its latent does not halve as often as asked.
        """
        names = ("encoder_levels", "rounds", "components", "levels", "depth", "hidden_channels")
        for name in (*names, "dequantization_depth", "dequantization_channels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"fvae: {name} is {getattr(self, name)}; expected at least 1.")
        if self.blocks < 0 or self.latent_channels < 0:
            raise ConfigError("fvae: blocks and latent_channels must not be negative.")
        if self.widths and (len(self.widths) != self.encoder_levels or min(self.widths) < 1):
            raise ConfigError(
                f"fvae: widths is {list(self.widths)}; expected {self.encoder_levels} numbers of at least 1, one per "
                "encoder level, or none."
            )
        for size in self.image_shape[1:]:
            if size % 2 ** min(self.encoder_levels, 32):  # no image is larger
                raise ConfigError(
                    f"fvae: an image of {self.image_shape[1]}x{self.image_shape[2]} cannot be halved "
                    f"{self.encoder_levels} times; use fewer encoder_levels or another image size."
                )
        channels, height, width = self.latent_shape
        if channels % 2:
            raise ConfigError(
                f"fvae: a latent of {channels} channels cannot be parted; choose an even number."
            )
        if height % 2 ** min(self.levels - 1, 32) or width % 2 ** min(self.levels - 1, 32):
            raise ConfigError(
                f"fvae: a latent of {height}x{width} cannot be halved {self.levels - 1} times; use fewer levels."
            )

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        """Channels of the residual blocks, level by level."""
        if self.widths:
            return self.widths
        return tuple(self.image_shape[0] * 4**level for level in range(1, self.encoder_levels + 1))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the latent e."""
        side = 2**self.encoder_levels
        _, height, width = self.image_shape
        return self.latent_channels or self.encoder_widths[-1], height // side, width // side
