"""Hyper-parameters of elementwise flows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from flowzoo.errors import ConfigError

MAX_FULL_DIMS = 4096
"""Values above which a full matrix is refused: it would have more than 16 million entries."""


@dataclass(frozen=True, kw_only=True)
class CDFConfig:
    """The parts of an elementwise flow.

    Attributes:
        image_shape: ``(C, H, W)`` of images, or None.
        dims: Length of vectors, or None.
        n_bits: Bits per grey level of images.
        elementwise: The map of each value: the distribution function of a ``histogram`` on [0, 1] (images only), of a
            mixture of normals (``normals``) or logistics (``logistics``), or none but scale and shift (``affine``).
        bins: Of the histogram.
        components: Of the mixture.
        shared: Whether all values have one map, instead of one each.
        full_affine: Whether a full affine map z = A x + b comes first.
        alpha: Images become logit(alpha + (1 - 2 alpha) x) before mixtures and affine maps; 0 leaves them in [-2, 2].
        base: Base density: ``uniform``, ``normal``, ``logistic``, or ``beta``.
        beta: Shapes of the beta density, whole numbers.
    """

    image_shape: tuple[int, int, int] | None = None
    dims: int | None = None
    n_bits: int = 8
    elementwise: Literal["histogram", "normals", "logistics", "affine"] = "histogram"
    bins: int = 256
    components: int = 5
    shared: bool = False
    full_affine: bool = False
    alpha: float = 0.0
    base: Literal["uniform", "normal", "logistic", "beta"] = "uniform"
    beta: tuple[int, int] = (5, 5)

    def __post_init__(self) -> None:
        """Refuses what cannot be built.

        Raises:
            ConfigError: Fields contradict each other, or a number is out of range.
        """
        if min(self.bins, self.components, *self.beta) < 1:
            raise ConfigError("cdf: bins, components and the shapes of beta must be at least 1.")
        if not 0 <= self.alpha < 0.5:
            raise ConfigError(f"cdf: alpha is {self.alpha}; expected 0 or more and less than 0.5.")
        if self.elementwise == "histogram" and (self.image_shape is None or self.full_affine or self.alpha):
            raise ConfigError(
                "cdf: a histogram is on [0, 1], where images are before any other map; choose elementwise = normals "
                "or logistics for vectors, and with full_affine or alpha."
            )
        if self.elementwise == "histogram" and self.base in ("normal", "logistic"):
            raise ConfigError("cdf: a histogram leads into [0, 1]; choose base = uniform or beta.")
        if self.elementwise == "affine" and self.base in ("uniform", "beta"):
            raise ConfigError(
                "cdf: an affine map does not lead into [0, 1]; choose base = normal or logistic."
            )
        if self.full_affine and self.size > MAX_FULL_DIMS:
            raise ConfigError(f"cdf: full_affine of {self.size} values; allowed {MAX_FULL_DIMS}.")

    @property
    def size(self) -> int:
        """D, the number of values in an item."""
        return math.prod(self.image_shape) if self.image_shape is not None else self.dims or 0
