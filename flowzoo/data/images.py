"""A split of a data set as images, with their labels: in memory where they fit, else read batch by batch."""

from __future__ import annotations

import hashlib
import math
import operator
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from flowzoo.data.labels import checked_labels, missing_labels
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
        labels: The class of every image, int64 (N,) on the CPU, or None where the set has none.
        label_names: Names of the classes; label k is the k-th. Empty where they are not known.

    Args:
        images: uint8 tensor (N, C, H, W) on the CPU, or an :class:`ImageSource`.
        id: Id of the data set.
        split: The split's name.
        preprocessing: Id of the preprocessing.
        terms: Terms of use.
        sha256: The recorded digest of the pixels, if there is one.
        labels: Whole numbers from 0, (N,).
        label_names: Names of the classes.

    Raises:
        InputError: if the images are not uint8 (N, C, H, W), or a label is not one of the classes.
    """

    kind = "images"

    def __init__(
        self,
        images: Tensor | ImageSource,
        *,
        id: str = "custom",  # noqa: A002 - the field's own name, keyword only
        split: str = "train",
        preprocessing: str = "custom",
        terms: str = "unknown",
        sha256: str | None = None,
        labels: Any = None,
        label_names: tuple[str, ...] = (),
    ) -> None:
        self._check_items(images, id)
        self._images = images
        self.id, self.split, self.preprocessing, self.terms = id, split, preprocessing, terms
        self._expected = sha256
        self.label_names = tuple(label_names)
        self.labels: Tensor | None = None
        if labels is not None:
            self.labels = checked_labels(labels, len(self), self.label_names, f"the {split} split of {id!r}")

    @staticmethod
    def _check_items(images: Tensor | ImageSource, id: str) -> None:  # noqa: A002 - as in __init__
        if len(images.shape) != 4 or (isinstance(images, Tensor) and images.dtype != torch.uint8):
            found = f"{getattr(images, 'dtype', type(images).__name__)} {tuple(images.shape)}"
            raise InputError(f"Images of {id!r} must be uint8 of shape (N, C, H, W), found {found}.")

    @property
    def images(self) -> Tensor | ImageSource:
        """The uint8 tensor (N, C, H, W), or the source of images that are not in memory."""
        return self._images

    @property
    def in_memory(self) -> bool:
        """Whether :attr:`images` is a tensor."""
        return isinstance(self._images, Tensor)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return tuple(int(size) for size in self._images.shape)

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Shape of one item: (C, H, W) of images, (D,) of vectors."""
        return self.shape[1:]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.shape
        return channels, height, width

    @property
    def num_bytes(self) -> int:
        """Size of all pixels in bytes."""
        return math.prod(self.shape)

    @property
    def num_classes(self) -> int:
        """Number of classes: of the names, else one more than the greatest label; 0 without labels."""
        if self.labels is None:
            return 0
        return len(self.label_names) or int(self.labels.max()) + 1

    def needed_labels(self) -> Tensor:
        """Returns :attr:`labels` to whoever cannot do without.

        Raises:
            InputError: if the split has none.
        """
        if self.labels is None:
            raise InputError(missing_labels(self.id, self.split, bool(self.label_names)))
        return self.labels

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
        return ImageSet(images, **self._facts(indices))

    def _facts(self, indices: Tensor) -> dict[str, Any]:
        """The arguments of the set of some items beside the items."""
        return {
            "id": self.id,
            "split": self.split,
            "preprocessing": self.preprocessing,
            "terms": self.terms,
            "labels": None if self.labels is None else self.labels[indices],
            "label_names": self.label_names,
        }

    def take(self, limit: int) -> ImageSet:
        """Returns the set of the first ``limit`` images."""
        return self.subset(torch.arange(min(operator.index(limit), len(self))))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (64 hexadecimal digits) of the uint8 pixels: images in order, each (C, H, W) in C order.

        Of vectors, of their little-endian float32, row by row. Labels do not enter.
        """
        digest = hashlib.sha256()
        for start in range(0, len(self), _DIGEST_BATCH):
            block = self[start : start + _DIGEST_BATCH].numpy()
            digest.update(np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("<")).data)
        return digest.hexdigest()

    def check(self, data_shape: tuple[int, ...], size: int | None) -> None:
        """Compares the images with what the data set promises.

        Args:
            data_shape: Expected (C, H, W), or (D,) of vectors.
            size: Expected number of images, or None if any number is right.

        Raises:
            IntegrityError: if the shape, the number or the digest differs.
        """
        found: dict[str, Any] = {"shape": self.data_shape}
        expected: dict[str, Any] = {"shape": tuple(data_shape)}
        if size is not None:
            found[f"number of {self.kind}"], expected[f"number of {self.kind}"] = len(self), size
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
        return f"{type(self).__name__}({self.id!r}, {self.split!r}, shape={self.shape}, {where})"
