"""Hyper-parameters of spline flows. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowzoo.errors import ConfigError

SplineKind = Literal["linear", "quadratic", "rational-quadratic"]
Space = Literal["cube", "line"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplinesConfig:
    """Everything that decides the shape of a spline flow.

    Attributes:
        image_shape: (C, H, W) of images, or None.
        dims: Length of vectors, or None.
        n_bits: Bits of each value of images.
        spline: The elementwise map of the couplings.
        bins: K, its pieces.
        minimum: Smallest width, height and slope of a piece, in units of its interval.
        space: ``"cube"``: all values stay in [0, 1] from the data to a uniform base (neural importance sampling);
            images are there from the beginning, vectors come by a sigmoid. ``"line"``: real values and a normal base,
            splines on [-tail_bound, tail_bound] with linear tails (neural spline flows).
        tail_bound: Half the interval of the splines on the line.
        features: Width of the networks.
        levels: Levels of images, each with a squeeze.
        steps: Couplings of a level of images, after its squeeze; couplings of vectors.
        pixel_couplings: Couplings between the colours of a checkerboard before the squeeze of each level, in the cube.
        factor_out: Whether half of the channels leave after each level but the last.
        logit_alpha: On the line, images become logit(alpha + (1 - 2 alpha) x); with 0 they become x - 1/2.
        histogram: In the cube, whether images first go through the distribution function of all their grey levels,
            whose histogram is counted on the first batch and learned from there.
        network: Of images. ``"resnet"``: residual blocks with batch norm (NSF); ``"conv"``: convolutions of 3x3, 1x1
            and 3x3, the most likelihood per second on a CPU.
        residual_blocks: Of ``"resnet"``.
        dropout: Of ``"resnet"``, in training.
        vector_network: Of vectors. ``"mlp"``, or ``"unet"``: widths halve on the way in and double on the way out.
        hidden_layers: Hidden layers of ``"mlp"``, halvings of ``"unet"``.
        one_blob: Bins of the one-blob encoding of what networks of vectors see, in the cube; 0 for none.
    """

    image_shape: tuple[int, int, int] | None = None
    dims: int | None = None
    n_bits: int = 8
    spline: SplineKind = "rational-quadratic"
    bins: int = 8
    minimum: float = 1e-3
    space: Space = "line"
    tail_bound: float = 3.0
    features: int = 64
    levels: int = 2
    steps: int = 4
    pixel_couplings: int = 4
    factor_out: bool = True
    logit_alpha: float = 0.0
    histogram: bool = False
    network: Literal["resnet", "conv"] = "conv"
    residual_blocks: int = 2
    dropout: float = 0.0
    vector_network: Literal["mlp", "unet"] = "mlp"
    hidden_layers: int = 2
    one_blob: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be built.

        Raises:
            ConfigError: Fields contradict each other, or a number is out of range.
        """
        self._check_ranges()
        if self.image_shape is not None:
            self._check_images(self.image_shape)
        elif self.dims is not None and self.dims < 2:
            raise ConfigError(f"splines: dims is {self.dims}; a coupling needs at least 2 values.")
        if self.space == "line" and (self.histogram or self.one_blob):
            raise ConfigError("splines: histogram and one_blob are of values in [0, 1]; set space = cube.")
        if self.space == "cube" and self.logit_alpha:
            raise ConfigError(
                "splines: in the cube images are as they come; set logit_alpha = 0 or space = line."
            )

    def _check_ranges(self) -> None:
        positive = ("features", "levels", "steps", "residual_blocks", "hidden_layers")
        bad = [name for name in positive if getattr(self, name) < 1]
        bad += [name for name in ("pixel_couplings", "one_blob") if getattr(self, name) < 0]
        bad += ["bins"] if self.bins < 2 else []
        bad += ["minimum"] if not 0 < self.minimum * self.bins < 1 else []
        bad += ["tail_bound"] if not 0 < self.tail_bound < float("inf") else []
        bad += ["logit_alpha"] if not 0 <= self.logit_alpha < 0.5 else []
        bad += ["dropout"] if not 0 <= self.dropout < 1 else []
        if bad:
            raise ConfigError(
                f"splines: {', '.join(bad)} out of range: numbers are at least 1 (bins 2, pixel_couplings and one_blob "
                "0), 0 < minimum * bins < 1, tail_bound > 0, 0 <= logit_alpha < 0.5, 0 <= dropout < 1."
            )
        if self.vector_network == "unet" and self.features % 2**self.hidden_layers:
            raise ConfigError(
                f"splines: a unet halves its width {self.hidden_layers} times, and {self.features} is no multiple of "
                f"{2**self.hidden_layers}; change features or hidden_layers."
            )

    def _check_images(self, image_shape: tuple[int, int, int]) -> None:
        _, height, width = image_shape
        times = min(self.levels, 32)  # No image is larger.
        if min(image_shape) < 1 or height % 2**times or width % 2**times:
            raise ConfigError(
                f"splines: image_shape {image_shape} cannot be squeezed {times} times; height and width must be "
                f"multiples of {2**times}. Lower levels."
            )
