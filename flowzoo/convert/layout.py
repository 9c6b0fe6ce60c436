"""Layouts, and the options that a person adds to what a file can tell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from flowzoo.convert.tensors import Tensors
from flowzoo.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Facts about a model that its checkpoint does not hold; None for what was not given.

    Attributes:
        image_shape: (C, H, W) of the images.
        n_bits: Bits of each value.
        label: The class whose conditional density is wanted, of a class-conditional model.
        permutation: What stands between the couplings if no tensor tells.
    """

    image_shape: tuple[int, int, int] | None = None
    n_bits: int | None = None
    label: int | None = None
    permutation: str | None = None


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A model in flowzoo's terms.

    Attributes:
        architecture: Name of the architecture.
        config: Its config as JSON values, only what differs from the defaults or has none.
        state: The state dict of the model that the config builds.
    """

    architecture: str
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The tensor names of one implementation.

    Attributes:
        name: Its repository, owner/name.
        example: The name of a tensor that every such checkpoint has.
        signature: Regular expression of names that only this layout has.
        options: Names of the :class:`Options` that mean something here, ``image_shape`` aside.
        convert: From tensors and options to a model.
        notes: What the user should know of a conversion that succeeded: assumptions and choices.
        prepare: Applied to all tensors before anything else: leaves out what is no part of the model.
    """

    name: str
    example: str
    signature: str
    convert: Callable[[Tensors, Options], Converted]
    options: frozenset[str] = frozenset()
    notes: Callable[[Mapping[str, Tensor], Options], Iterable[str]] = field(
        default=lambda tensors, options: ()
    )
    prepare: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = field(default=lambda tensors: tensors)

    def recognizes(self, tensors: Mapping[str, Tensor]) -> bool:
        """True if a checkpoint looks like this layout."""
        return any(re.match(self.signature, name) for name in self.prepare(tensors))


def image_shape_of(source: Tensors, options: Options, channels: int) -> tuple[int, int, int]:
    """The image shape that the user gave, which the file does not tell.

    Args:
        source: For the layout's name.
        options: What the user gave.
        channels: Channels of the image, from the file.

    Raises:
        InputError: It was not given, or does not have these channels.
    """
    shape = options.image_shape
    if shape is None:
        raise InputError(
            f"a checkpoint of {source.layout} does not say how large the images are; "
            f"give --image-shape {channels},H,W."
        )
    if shape[0] != channels:
        raise InputError(
            f"--image-shape has {shape[0]} channels, and the tensors (layout {source.layout}) are for "
            f"{channels}; give --image-shape {channels},{shape[1]},{shape[2]}."
        )
    return shape


def n_bits_of(source: Tensors, options: Options) -> int:
    """The bits that the user gave, which decide the model's density and stand in no file.

    Raises:
        InputError: They were not given, or cannot be.
    """
    if options.n_bits is None:
        raise InputError(
            f"a checkpoint of {source.layout} does not say with how many bits per value it was trained, and "
            "its density depends on that; give --n-bits (8, or 5 for most face models)."
        )
    return options.n_bits
