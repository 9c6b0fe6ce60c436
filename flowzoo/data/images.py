"""A split of a data set as pixels: in memory where they fit, read batch by batch where they do not."""

from __future__ import annotations

import hashlib
import operator
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from flowzoo.errors import InputError, IntegrityError

__all__ = ["ImageSet", "ImageSource", "Selected"]

_DIGEST_BATCH = 4096


@runtime_checkable
class ImageSource(Protocol):
    """Images that live elsewhere than in memory.

    Implementations must allow ``batch`` from several threads at once.
    """

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""

    def batch(self, indices: Tensor) -> Tensor:
        """Returns the images at ``indices``, int64 (B,), as uint8 (B, C, H, W), both on the CPU."""


class Selected:
    """Some images of another source, in a given order.

    Args:
        images: A uint8 tensor (N, C, H, W) or another source.
        indices: Positions in ``images``, int64 (M,).
    """

    def __init__(self, images: Tensor | ImageSource, indices: Tensor) -> None:
        self._images, self._indices = images, indices

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(M, C, H, W)."""
        _, channels, height, width = self._images.shape
        return len(self._indices), channels, height, width

    def batch(self, indices: Tensor) -> Tensor:
        """Returns the images at ``indices`` of the selection."""
        chosen = self._indices[indices]
        return self._images[chosen] if isinstance(self._images, Tensor) else self._images.batch(chosen)


class ImageSet:
    """Images of one split, with what is needed to know exactly which images they are.

    Attributes:
        id: Id of the data set.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        preprocessing: Id of the preprocessing.
        terms: Terms of use.

    Args:
        images: uint8 tensor (N, C, H, W) on the CPU, or an :class:`ImageSource`.
        id: Id of the data set.
        split: The split's name.
        preprocessing: Id of the preprocessing.
        terms: Terms of use.
        sha256: The recorded digest of the pixels, if there is one.

    Raises:
        InputError: if the images are not uint8 (N, C, H, W).
    """

    def __init__(
        self,
        images: Tensor | ImageSource,
        *,
        id: str = "custom",  # noqa: A002 - the field's own name, keyword only
        split: str = "train",
        preprocessing: str = "custom",
        terms: str = "unknown",
        sha256: str | None = None,
    ) -> None:
        if len(images.shape) != 4 or (isinstance(images, Tensor) and images.dtype != torch.uint8):
            found = f"{getattr(images, 'dtype', type(images).__name__)} {tuple(images.shape)}"
            raise InputError(f"Images of {id!r} must be uint8 of shape (N, C, H, W), found {found}.")
        self._images = images
        self.id, self.split, self.preprocessing, self.terms = id, split, preprocessing, terms
        self._expected = sha256

    labels: Tensor | None = None

    @property
    def images(self) -> Tensor | ImageSource:
        """The uint8 tensor (N, C, H, W), or the source of images that are not in memory."""
        return self._images

    @property
    def in_memory(self) -> bool:
        """Whether :attr:`images` is a tensor."""
        return isinstance(self._images, Tensor)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        count, channels, height, width = self._images.shape
        return int(count), int(channels), int(height), int(width)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.shape[1:]

    @property
    def num_bytes(self) -> int:
        """Size of all pixels in bytes."""
        count, channels, height, width = self.shape
        return count * channels * height * width

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Returns one image (C, H, W) for an integer, else images (B, C, H, W), always as a uint8 tensor."""
        positions = torch.arange(len(self))[index]
        return self.batch(positions) if positions.ndim else self.batch(positions[None])[0]

    def batch(self, indices: Tensor) -> Tensor:
        """Returns the images at ``indices``.

        Args:
            indices: Positions in the split, int64 (B,), on the CPU.

        Returns:
            uint8 (B, C, H, W), on the CPU.
        """
        return self._images[indices] if isinstance(self._images, Tensor) else self._images.batch(indices)

    def subset(self, indices: Tensor) -> ImageSet:
        """Returns the set of the images at ``indices``, in that order, without copying more than it must."""
        images = (
            self._images[indices] if isinstance(self._images, Tensor) else Selected(self._images, indices)
        )
        return ImageSet(
            images, id=self.id, split=self.split, preprocessing=self.preprocessing, terms=self.terms
        )

    def take(self, limit: int) -> ImageSet:
        """Returns the set of the first ``limit`` images."""
        return self.subset(torch.arange(min(operator.index(limit), len(self))))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (64 hexadecimal digits) of the uint8 pixels: images in order, each (C, H, W) in C order."""
        digest = hashlib.sha256()
        for start in range(0, len(self), _DIGEST_BATCH):
            block = self[start : start + _DIGEST_BATCH]
            digest.update(np.ascontiguousarray(block.numpy()).data)
        return digest.hexdigest()

    def check(self, image_shape: tuple[int, int, int], size: int | None) -> None:
        """Compares the images with what the data set promises.

        Args:
            image_shape: Expected (C, H, W).
            size: Expected number of images, or None if any number is right.

        Raises:
            IntegrityError: if the shape, the number or the digest differs.
        """
        found: dict[str, Any] = {"shape": self.image_shape}
        expected: dict[str, Any] = {"shape": tuple(image_shape)}
        if size is not None:
            found["number of images"], expected["number of images"] = len(self), size
        if self._expected is not None and found == expected:
            found["sha256"], expected["sha256"] = self.digest, self._expected
        for what, wanted in expected.items():
            if found[what] != wanted:
                raise IntegrityError(
                    f"The {self.split} split of {self.id!r} is not the one on record: its {what} is "
                    f"{found[what]}, expected {wanted}. The files are damaged or of another release: get "
                    "them again."
                )

    def __repr__(self) -> str:
        where = "in memory" if self.in_memory else "read batch by batch"
        return f"ImageSet({self.id!r}, {self.split!r}, shape={self.shape}, {where})"
