"""Hyper-parameters of neural autoregressive flows. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowzoo.config import extension
from flowzoo.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class NAFConfig:
    """Everything that decides the shape of a model.

    Attributes:
        image_shape: (C, H, W) of images, or None.
        dims: Length of vectors, or None.
        n_bits: Bits of each value of images.
        conditioner: ``"coupling"``: half of the values condition the others, one pass in each direction;
            ``"autoregressive"`` (vectors only): each value is conditioned on all before it, a sample takes a pass for
            each.
        units: Sigmoids in a layer of the elementwise map.
        sigmoid_layers: Layers of that map.
        steps: Couplings of a level of images; couplings or autoregressive maps of vectors.
        levels: Levels of images; half of the channels leave after each but the last.
        features: Width of the networks.
        hidden_layers: Hidden layers of the networks of vectors.
        logit_alpha: Images become logit(alpha + (1 - 2 alpha) x).
        init_range: Bound of the first weights of each network's last layer: the maps begin near the identity.
        init_spread: The offsets b_k of a map's sigmoids begin between minus and plus this, so that its units differ;
            0 in the released code.
        marginals: ``histogram`` puts the distribution function of each grey level's histogram, counted on the
            initialisation batch, and the quantiles of the logistic distribution in place of the logit: the whole
            then begins near independent pixels. Not in the paper.
    """

    image_shape: tuple[int, int, int] | None = None
    dims: int | None = None
    n_bits: int = 8
    conditioner: Literal["coupling", "autoregressive"] = "coupling"
    units: int = 16
    sigmoid_layers: int = 1
    steps: int = 4
    levels: int = 2
    features: int = 64
    hidden_layers: int = 1
    logit_alpha: float = 1e-5
    init_range: float = 1e-3
    init_spread: float = 1.0
    marginals: Literal["none", "histogram"] = extension("none")

    def __post_init__(self) -> None:
        """Refuses what cannot be built.

        Raises:
            ConfigError: Fields contradict each other, or a number is out of range.
        """
        positive = ("units", "sigmoid_layers", "steps", "levels", "features", "hidden_layers")
        bad = [name for name in positive if getattr(self, name) < 1]
        bad += ["logit_alpha"] if not 0 < self.logit_alpha < 0.5 else []
        bad += ["init_range"] if not 0 < self.init_range < 1 else []
        bad += ["init_spread"] if not 0 <= self.init_spread < 10 else []
        if bad:
            raise ConfigError(
                f"naf: {', '.join(bad)} out of range: numbers are at least 1, 0 < logit_alpha < 0.5, "
                "0 < init_range < 1, 0 <= init_spread < 10."
            )
        if self.image_shape is None:
            if self.marginals == "histogram":
                raise ConfigError("naf: marginals = 'histogram' is of grey levels; vectors have none.")
            if self.dims is not None and self.dims < 2:
                raise ConfigError(
                    f"naf: dims is {self.dims}; one value conditions on another, give 2 or more."
                )
            return
        if self.conditioner == "autoregressive":
            raise ConfigError(
                "naf: autoregressive maps are for vectors; a sample of an image would take a pass for each pixel. Set "
                "conditioner = coupling."
            )
        _, height, width = self.image_shape
        times = min(self.levels, 32)  # No image is larger.
        if min(self.image_shape) < 1 or height % 2**times or width % 2**times:
            raise ConfigError(
                f"naf: image_shape {self.image_shape} cannot be squeezed {times} times; height and width must be "
                f"multiples of {2**times}. Lower levels."
            )
