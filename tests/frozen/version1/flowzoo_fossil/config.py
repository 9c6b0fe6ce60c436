"""The config."""

from dataclasses import dataclass

from flowzoo.config import extension
from flowzoo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FossilConfig:
    """The parts of a Fossil.

    Attributes:
        image_shape: (C, H, W), H and W even.
        n_bits: Bits per grey level.
        steps: Couplings, halves exchanged between them.
        hidden: Width of their networks.
        dims: A name that later versions of the contract use, and that meant something else here.
    """

    image_shape: tuple[int, int, int]
    n_bits: int = 8
    steps: int = 2
    hidden: int = 8
    dims: int = extension(0)

    def __post_init__(self) -> None:
        if self.image_shape[1] % 2 or self.image_shape[2] % 2:
            raise ConfigError(f"fossil: image_shape is {self.image_shape}; height and width have to be even.")
