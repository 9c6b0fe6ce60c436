"""File formats and compressors without loss: the bytes of real files, in bits per dimension."""

from __future__ import annotations

import importlib.util
import io
import lzma
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["FORMATS", "available", "file_bits", "stream_bits"]

FORMATS: Mapping[str, Mapping[str, object]] = {
    "PNG": {"format": "PNG", "optimize": True},
    "WebP": {"format": "WEBP", "lossless": True, "quality": 75, "method": 4, "exact": True},
    "JPEG XL": {"format": "JXL", "lossless": True, "effort": 7},
    "JPEG XL of greatest effort": {"format": "JXL", "lossless": True, "effort": 10},
}
"""Name to what Pillow is asked for. WebP's greatest effort makes larger files of images as small as these than its
ordinary one, and takes twenty times as long. JPEG XL's helps or harms by the data, so that both are measured."""


def available(name: str) -> bool:
    """Whether the format can be written here.

    JPEG XL needs the package pillow-jxl-plugin. It is a wheel of libjxl that only this comparison needs, and so no
    dependency.
    """
    if name.startswith("JPEG XL"):
        if importlib.util.find_spec("pillow_jxl") is None:
            return False
        importlib.import_module("pillow_jxl")
    Image.init()
    return str(FORMATS[name]["format"]) in Image.SAVE


def file_bits(name: str, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Bits per dimension of each image as a file of its own, headers included, (N,).

    Args:
        name: One of :data:`FORMATS`.
        images: uint8 (N, C, H, W) with one channel or three.
    """
    save = _saver(FORMATS[name])
    return np.array([8 * save(_picture(image)) / image.size for image in images])


def stream_bits(images: NDArray[np.uint8]) -> float:
    """Bits per dimension of all images as one xz file at its strongest setting, channels after each other."""
    return 8 * len(lzma.compress(images.tobytes(), preset=9 | lzma.PRESET_EXTREME)) / images.size


def _saver(options: Mapping[str, object]) -> Callable[[Image.Image], int]:
    def save(picture: Image.Image) -> int:
        buffer = io.BytesIO()
        picture.save(buffer, **options)  # type: ignore[arg-type]
        return len(buffer.getvalue())

    return save


def _picture(image: NDArray[np.uint8]) -> Image.Image:
    """A picture of (C, H, W)."""
    return Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
