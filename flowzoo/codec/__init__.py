"""Lossless compression: images as files whose size is a model's bits per dimension, and which decode on any machine.

A float network gives other last bits on another machine, and one wrong bit is enough to lose a stream. Everything here
that decides a bit of a file is therefore integer arithmetic: networks (:mod:`flowzoo.codec.networks`), distributions
(:mod:`flowzoo.codec.mixtures`), coder and container.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowzoo.codec.files import compress_images, decompress_images, read_header
    from flowzoo.codec.mixtures import IntegerMixture
    from flowzoo.codec.model import IntegerModel, integer_model
    from flowzoo.codec.networks import IntegerConv, IntegerNetwork

_HOMES = {
    "IntegerConv": "networks",
    "IntegerMixture": "mixtures",
    "IntegerModel": "model",
    "IntegerNetwork": "networks",
    "compress_images": "files",
    "decompress_images": "files",
    "integer_model": "model",
    "read_header": "files",
}

__all__ = [
    "IntegerConv",
    "IntegerMixture",
    "IntegerModel",
    "IntegerNetwork",
    "compress_images",
    "decompress_images",
    "integer_model",
    "read_header",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"flowzoo.codec.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
