"""The configuration of an integer discrete flow. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowzoo.config import extension
from flowzoo.errors import ConfigError

__all__ = ["IDFConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IDFConfig:
    """Everything that decides the shape of an integer discrete flow.

    Each level is a squeeze and then splits. A split is couplings between the channels that stay and those that leave,
    after which the latter leave for the latent under a mixture of discretised logistics given the former.

    Attributes:
        image_shape: (C, H, W).
        n_bits: Bits of each value.
        levels: Number of squeezes.
        split: ``"half"``: one split a level, of half the channels (the paper); ``"quarter"``: three splits a level, of
            one pixel of every 2x2 block each, so that what stays is the image at half the size.
        couplings: Couplings before each split: the first translates what stays, the next what leaves, and so on.
        features: Width of the networks.
        depth: Hidden 3x3 convolutions after the first in the networks of the distributions.
        coupling_depth: The same in the networks of the couplings.
        mixtures: Logistics in each mixture.
        top_gain: Factor on the parameters of the last distribution, which are learned as they are: a network's output
            is a sum of many and moves faster.
        means: ``"absolute"``, or ``"relative"`` (quarter splits only): to the average of the four nearest pixels that
            stay; and each channel of a pixel shifts the means of those after it, by coefficients that are given with
            the means (Salimans et al. 2017, section 2.2).
    """

    image_shape: tuple[int, int, int]
    n_bits: int = 8
    levels: int = 3
    split: Literal["half", "quarter"] = "half"
    couplings: int = 2
    features: int = 32
    depth: int = 2
    coupling_depth: int = 2
    mixtures: int = 5
    top_gain: int = extension(16)
    means: Literal["absolute", "relative"] = extension("absolute")

    def __post_init__(self) -> None:
        """Refuses values that no model can have."""
        bad = [name for name in ("levels", "features", "mixtures", "top_gain") if getattr(self, name) < 1]
        bad += [name for name in ("couplings", "depth", "coupling_depth") if getattr(self, name) < 0]
        if min(self.image_shape) < 1:
            bad.append("image_shape")
        if bad:
            raise ConfigError(
                f"{', '.join(bad)} out of range; give at least 1, couplings and depths at least 0."
            )
        if self.means == "relative" and self.split != "quarter":
            raise ConfigError('relative means need single pixels that leave; set split to "quarter".')
        if not 1 <= self.n_bits <= 8:
            raise ConfigError(f"n_bits is {self.n_bits}; images have 1 to 8 bits.")
        _, height, width = self.image_shape
        if height % 2**self.levels or width % 2**self.levels:
            raise ConfigError(
                f"image_shape {self.image_shape} cannot be squeezed {self.levels} times; height and width must "
                f"be multiples of {2**self.levels}. Lower levels."
            )
