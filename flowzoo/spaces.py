"""The data that a flow is over: images of integers, or real vectors; their checks, units and way back from reals."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from flowzoo.arguments import few
from flowzoo.errors import ConfigError, InputError

DataKind = Literal["images", "vectors"]


class DataSpace(ABC):
    """The set that data come from.

    Attributes:
        kind: ``"images"`` or ``"vectors"``.
        shape: Of one item.
        dims: D, the number of values in an item.
        log_bins: Log-volume of an item's bin in nats: log(2^(n D)) for images, 0 for vectors.
    """

    kind: ClassVar[DataKind]
    shape: tuple[int, ...]
    log_bins: float

    @property
    def dims(self) -> int:
        """D, the number of values in an item."""
        return math.prod(self.shape)

    @abstractmethod
    def require(self, x: object) -> Tensor:
        """Returns data that are sound in type, dtype and shape.

        Raises:
            InputError: They are not.
        """

    @abstractmethod
    def values(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Data as floats of a batch of its own: grey levels 0 to 2^n - 1, or the vectors."""

    @abstractmethod
    def to_reals(self, values: Tensor) -> Tensor:
        """Values, dequantized, as the bijector takes them; written over the argument."""

    @abstractmethod
    def from_reals(self, v: Tensor) -> Tensor:
        """Data of what the bijector's inverse gives."""

    @abstractmethod
    def empty(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """A batch of no items."""


class Images(DataSpace):
    """``uint8 (B, C, H, W)``, a probability of integers."""

    kind: ClassVar[DataKind] = "images"

    def __init__(self, shape: tuple[int, ...], n_bits: int) -> None:
        """Describes the images.

        Args:
            shape: ``(C, H, W)``.
            n_bits: Bits per grey level, 1 to 8; the low bits of an image are dropped.
        """
        if not 1 <= n_bits <= 8:
            raise ConfigError(f"n_bits is {n_bits}; expected 1 to 8.")
        self.shape = tuple(shape)
        self.n_bits = n_bits
        self.log_bins = self.dims * n_bits * math.log(2)

    def require(self, x: object) -> Tensor:
        """Returns the images; see :meth:`DataSpace.require`."""
        if not isinstance(x, Tensor):
            raise InputError(
                f"images are {type(x).__name__}; expected a torch.Tensor of uint8 grey levels. "
                "From a numpy array: torch.from_numpy(x)."
            )
        if x.dtype != torch.uint8:
            hint = " Images in [0, 1]: (x * 255).round().to(torch.uint8)." if x.is_floating_point() else ""
            raise InputError(f"images are {x.dtype}; expected torch.uint8 grey levels 0 to 255.{hint}")
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise InputError(
                f"images have shape {tuple(x.shape)}; this model expects (B, {', '.join(map(str, self.shape))})."
            )
        if not x.shape[0]:  # len() would be one number for good in an exported program
            raise InputError(
                f"the batch is empty: images have shape {tuple(x.shape)}; expected at least one."
            )
        return x

    def values(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Grey levels 0 to 2^n - 1."""
        if self.n_bits < 8:
            x = x >> (8 - self.n_bits)
        return x.to(dtype).contiguous()

    def to_reals(self, values: Tensor) -> Tensor:
        """Levels over their number."""
        return values.mul_(2.0**-self.n_bits)

    def from_reals(self, v: Tensor) -> Tensor:
        """Grey levels of ``[0, 1]^D``; values outside are clipped."""
        # Of numbers that are not negative the conversion drops the fraction.
        scaled = torch.nan_to_num(v * 2**self.n_bits).clamp_(0, 2**self.n_bits - 1)
        levels: Tensor = scaled.to(torch.uint8)
        return (levels << (8 - self.n_bits) if self.n_bits < 8 else levels).contiguous()

    def empty(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """``uint8 (0, C, H, W)``."""
        return torch.empty((0, *self.shape), dtype=torch.uint8, device=device)


class Vectors(DataSpace):
    """Real ``(B, D)``, a density."""

    kind: ClassVar[DataKind] = "vectors"
    log_bins = 0.0

    def __init__(self, dims: int) -> None:
        """Describes the vectors.

        Args:
            dims: D, at least 1.
        """
        if dims < 1:
            raise ConfigError(f"dims is {dims!r}; expected a whole number of at least 1.")
        self.shape = (dims,)

    def require(self, x: object) -> Tensor:
        """Returns the vectors; see :meth:`DataSpace.require`."""
        if not isinstance(x, Tensor):
            raise InputError(
                f"vectors are {type(x).__name__}; expected a floating-point torch.Tensor (B, {self.dims}). "
                "From a numpy array: torch.from_numpy(x).float()."
            )
        if not x.is_floating_point():
            raise InputError(f"vectors are {x.dtype}; expected floating-point numbers: x.float().")
        if x.ndim != 2 or x.shape[1] != self.dims:
            raise InputError(f"vectors have shape {tuple(x.shape)}; this model expects (B, {self.dims}).")
        if not x.shape[0]:  # len() would be one number for good in an exported program
            raise InputError(f"the batch is empty: vectors of shape {tuple(x.shape)}; expected at least one.")
        return x

    def values(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The vectors themselves."""
        return x.to(dtype)

    def to_reals(self, values: Tensor) -> Tensor:
        """The vectors themselves."""
        return values

    def from_reals(self, v: Tensor) -> Tensor:
        """The vectors themselves."""
        return v

    def empty(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """``(0, D)``."""
        return torch.empty((0, *self.shape), dtype=dtype, device=device)


def require_finite(x: Tensor) -> None:
    """Raises an InputError that names the rows of vectors with NaN or infinity; asks the device once."""
    finite = torch.isfinite(x).all(dim=1)
    if not bool(finite.all()):
        wrong = (~finite).nonzero().flatten().tolist()
        raise InputError(
            f"{len(wrong)} of {len(x)} vectors hold NaN or infinity (rows {few(wrong)}); expected finite numbers. "
            "Drop or mend these rows."
        )
