"""Hyper-parameters of PixelCNN flows. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowzoo.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelCNNConfig:
    """The parts of a PixelCNN flow.

    Attributes:
        image_shape: ``(C, H, W)``; rows from top to bottom, pixels from left to right, then channels.
        n_bits: Bits per grey level.
        features: Channels of the network.
        dilations: Distance of the taps of each block, one number a block.
        conditional: The distribution of a value given those before it. ``"histogram"``: a probability for each grey
            level, for images of one channel. ``"logistics"``: a mixture of logistic distributions cut into levels.
        components: Of ``"logistics"``.
        floor: Share of a uniform distribution over all grey levels in every conditional one; keeps the rarest level
            apart from its neighbours in float32.
        dropout: In the blocks, in training.
    """

    image_shape: tuple[int, int, int]
    n_bits: int = 8
    features: int = 64
    dilations: tuple[int, ...] = (1, 1, 2, 1, 4, 1, 2, 1)
    conditional: Literal["histogram", "logistics"] = "histogram"
    components: int = 10
    floor: float = 3e-4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what cannot be built.

        Raises:
            ConfigError: A number is out of range.
        """
        if self.features < 1 or self.components < 1 or not self.dilations or min(self.dilations) < 1:
            raise ConfigError(
                f"pixelcnn: features is {self.features}, components {self.components}, dilations "
                f"{list(self.dilations)}; expected 1 or more each, and at least one dilation."
            )
        if not 0 < self.floor < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"pixelcnn: floor is {self.floor} and dropout {self.dropout}; expected 0 < floor < 1 and "
                "0 <= dropout < 1."
            )
        if self.conditional == "histogram" and self.image_shape[0] != 1:
            raise ConfigError(
                f"pixelcnn: histograms are for images of one channel and image_shape is {self.image_shape}; "
                "set conditional = logistics."
            )
