"""Jet's hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowzoo.config import extension
from flowzoo.errors import ConfigError

Kind = Literal["channels", "spatial"]


@dataclass(frozen=True, kw_only=True)
class JetConfig:
    """The parts of a Jet; the defaults are those of the authors' code.

    Attributes:
        image_shape: ``(C, H, W)``.
        n_bits: Bits per grey level.
        patch: Side of a patch, which is one token.
        couplings: Number of couplings.
        kinds: What couplings part, in turn: ``channels`` of every token after a random permutation that is fixed, or
            ``spatial``: tokens by checkerboards, columns and rows.
        layers: Transformer layers of each conditioner.
        channels: Width of the conditioners.
        heads: Attention heads.
        scale_bound: s; scales are s sigmoid(raw), between 0 and s. Their start is s / 2.
        permutation_seed: Of the fixed permutations.
        classes: Number of labels that every conditioner sees; 0 for none.
        marginals: ``histogram`` puts the distribution function of each grey level's histogram, counted on the
            initialisation batch, and the quantiles of the logistic distribution before the couplings, which then begin
            at independent pixels, with a logistic base. Not in the paper.
    """

    image_shape: tuple[int, int, int]
    n_bits: int = 8
    patch: int = 4
    couplings: int = 32
    kinds: tuple[Kind, ...] = ("channels", "channels", "channels", "channels", "spatial")
    layers: int = 2
    channels: int = 512
    heads: int = 8
    scale_bound: float = 2.0
    permutation_seed: int = 0
    classes: int = 0
    marginals: Literal["none", "histogram"] = extension("none")

    def __post_init__(self) -> None:
        """Refuses what cannot be built.

        Raises:
            ConfigError: A number is out of range, or patches, tokens or channels cannot be halved.
        """
        for name in ("patch", "couplings", "layers", "channels", "heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"jet: {name} is {getattr(self, name)}; expected at least 1.")
        if not self.kinds:
            raise ConfigError("jet: kinds is empty; expected some of channels and spatial.")
        if self.channels % self.heads:
            raise ConfigError(
                f"jet: channels is {self.channels}; expected a multiple of heads, {self.heads}."
            )
        if any(size % self.patch for size in self.image_shape[1:]):
            raise ConfigError(
                f"jet: an image of {self.image_shape[1]}x{self.image_shape[2]} has no whole number of patches of "
                f"{self.patch}x{self.patch}; choose another patch."
            )
        if self.token_size % 2:
            raise ConfigError(
                f"jet: a patch has {self.token_size} values, which cannot be halved; choose another patch."
            )
        if "spatial" in self.kinds[: self.couplings] and self.tokens % 2:
            raise ConfigError(
                f"jet: {self.tokens} tokens cannot be halved; choose another patch, or kinds = [channels]."
            )
        if self.scale_bound <= 0 or self.classes < 0 or self.classes == 1:
            raise ConfigError("jet: scale_bound must be positive, and classes 0 or at least 2.")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_shape[1] // self.patch, self.image_shape[2] // self.patch

    @property
    def tokens(self) -> int:
        """T, the number of patches."""
        return self.grid[0] * self.grid[1]

    @property
    def token_size(self) -> int:
        """D, the number of values of a patch."""
        return self.image_shape[0] * self.patch**2
