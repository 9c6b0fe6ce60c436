"""TarFlow's hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowzoo.config import extension
from flowzoo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TarFlowConfig:
    """The parts of a TarFlow.

    Attributes:
        image_shape: ``(C, H, W)``.
        n_bits: Bits per grey level.
        patch: Side of a patch, which is one token.
        channels: Width of the transformers, a multiple of ``head_channels``.
        head_channels: Width of an attention head.
        blocks: Autoregressive blocks; every second one goes through the tokens backwards.
        layers: Attention and MLP layers of each block.
        expansion: Width of the MLPs over that of the transformers.
        scale: Log-scales: ``unbounded`` as in the paper, ``soft-clip`` is c tanh(a / c), ``softplus`` has scales
            softplus(a + 0.5413), both after STARFlow.
        clip: c of the soft clip.
        noise: ``uniform`` within a grey level's bin, which gives bits per dimension; or ``gaussian``, wider, for
            pictures: a density of noisy images, which has none.
        noise_std: Of Gaussian noise, where grey levels span [-1, 1].
        classes: Number of labels; 0 for none.
        sampler: ``sequential``, token after token with cached keys and values, or ``jacobi``: blocks of tokens at
            once until nothing changes.
        jacobi_block: Tokens of a Jacobi block.
        marginals: ``histogram`` puts the distribution function of each grey level's histogram, counted on the
            initialisation batch, and the quantiles of the logistic distribution before the blocks, which then begin
            at independent pixels, with a logistic base. Not in the paper.
    """

    image_shape: tuple[int, int, int]
    n_bits: int = 8
    patch: int = 4
    channels: int = 128
    head_channels: int = 64
    blocks: int = 4
    layers: int = 4
    expansion: int = 4
    scale: Literal["unbounded", "soft-clip", "softplus"] = "unbounded"
    clip: float = 4.0
    noise: Literal["uniform", "gaussian"] = "uniform"
    noise_std: float = 0.05
    classes: int = 0
    sampler: Literal["sequential", "jacobi"] = "sequential"
    jacobi_block: int = 16
    marginals: Literal["none", "histogram"] = extension("none")

    def __post_init__(self) -> None:
        """Refuses what cannot be built.

        Raises:
            ConfigError: A number is out of range, or the image has no whole number of patches.
        """
        names = ("patch", "channels", "head_channels", "blocks", "layers", "expansion", "jacobi_block")
        for name in names:
            if getattr(self, name) < 1:
                raise ConfigError(f"tarflow: {name} is {getattr(self, name)}; expected at least 1.")
        if self.channels % self.head_channels:
            raise ConfigError(
                f"tarflow: channels is {self.channels}; expected a multiple of head_channels, {self.head_channels}."
            )
        if any(size % self.patch for size in self.image_shape[1:]):
            raise ConfigError(
                f"tarflow: an image of {self.image_shape[1]}x{self.image_shape[2]} has no whole number of patches of "
                f"{self.patch}x{self.patch}; choose another patch."
            )
        if self.classes < 0 or self.classes == 1 or self.clip <= 0 or self.noise_std <= 0:
            raise ConfigError("tarflow: classes must be 0 or at least 2, clip and noise_std positive.")
        if self.marginals == "histogram" and self.noise != "uniform":
            raise ConfigError(
                "tarflow: marginals = 'histogram' is of grey levels, and Gaussian noise leaves their bins; choose "
                "noise = 'uniform', or leave marginals out."
            )

    @property
    def tokens(self) -> int:
        """T, the number of patches."""
        return (self.image_shape[1] // self.patch) * (self.image_shape[2] // self.patch)

    @property
    def token_size(self) -> int:
        """D, the number of values of a patch."""
        return self.image_shape[0] * self.patch**2
