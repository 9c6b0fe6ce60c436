"""Train, valid and test of images that nobody has split: each image goes by its own content. Torch-free.

The tenth of an image is a function of its bytes alone, so that adding, removing, renaming or reordering images moves
no other one, and copies of one image never stand on both sides.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from flowzoo.data.api import SPLITS
from flowzoo.errors import InputError, IntegrityError

__all__ = ["DESCRIPTIONS", "EmptySplit", "choose", "file_split", "split_of"]

_VALID, _TEST = 8, 9

DESCRIPTIONS = {
    "train": "images of which the SHA-256, modulo 10, is 0 to 7 (about 80 %)",
    "valid": "images of which the SHA-256, modulo 10, is 8 (about 10 %)",
    "test": "images of which the SHA-256, modulo 10, is 9 (about 10 %)",
}


class EmptySplit(InputError):
    """The data are sound, and none of them falls into the split."""


def split_of(content: bytes | memoryview) -> str:
    """The split of an image: its SHA-256, as one big-endian number, modulo 10."""
    return _of_digest(hashlib.sha256(content).digest())


def file_split(path: Path) -> str:
    """The split of an image file, by all its bytes.

    Raises:
        IntegrityError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _of_digest(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror}. Replace or remove it.") from error


def _of_digest(digest: bytes) -> str:
    tenth = int.from_bytes(digest, "big") % 10
    return "valid" if tenth == _VALID else "test" if tenth == _TEST else "train"


def choose(splits: Sequence[str], wanted: str, dataset: str, advice: str) -> list[int]:
    """Positions of the images of one split.

    Args:
        splits: The split of every image.
        wanted: The split.
        dataset: The data set's id, for the error.
        advice: Ends the error: what else can be done, a clause.

    Raises:
        EmptySplit: if there are none.
    """
    chosen = [position for position, split in enumerate(splits) if split == wanted]
    if not chosen:
        count = Counter(splits)
        shares = ", ".join(f"{split} {count[split]}" for split in SPLITS)
        raise EmptySplit(
            f"The {wanted} split of {dataset!r} is empty: its {len(splits)} images are split by their content, "
            f"copies of one together, and fall unevenly where they are few ({shares}). Give some more, {advice}"
        )
    return chosen
