"""The user's own data with labels: ``folder:DIR?size=N&labels=folders`` and ``numpy:FILE.npz``. Torch-free."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import numpy as np
from numpy.typing import NDArray

from flowzoo.data.api import SPLITS, Dataset, Split
from flowzoo.data.layout import array_layout
from flowzoo.data.own import parse_own
from flowzoo.data.paths import is_folder, is_regular
from flowzoo.data.readers.npz import npz_names, open_npz_array
from flowzoo.data.splitting import DESCRIPTIONS
from flowzoo.errors import DataUnavailable, InputError

__all__ = ["ITEMS", "LABELS", "NAMES", "load_npz", "parse_labelled"]

ITEMS = ("images", "x", "data", "arr_0")
"""Names under which an ``.npz`` archive may hold its images or vectors."""

LABELS = ("labels", "y", "arr_1")
"""Names under which it may hold their labels."""

NAMES = "label_names"
"""Name under which it may hold the names of the classes."""


def parse_labelled(name: str) -> Dataset | None:
    """Returns the data set with labels that a name describes; None if it asks for none.

    Args:
        name: ``folder:DIR?size=N&labels=folders[&...]``, where the folders in DIR (or in DIR/train, DIR/valid and
            DIR/test) are the classes, or ``numpy:FILE.npz[?layout=nhwc|nchw][&split=all]``.

    Raises:
        InputError: if the name is malformed, or the archive holds no images or vectors.
        DataUnavailable: if there is no such file or folder.
    """
    kind, _, rest = name.partition(":")
    place, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    path = Path(place).expanduser().absolute()
    if kind == "folder" and "labels" in options:
        return _folder(name, place, path, options)
    return _npz(name, path, options) if kind == "numpy" and path.suffix == ".npz" else None


def _folder(name: str, place: str, path: Path, options: dict[str, str]) -> Dataset:
    if options.pop("labels") != "folders":
        raise InputError(
            f"{name!r}: the only value of labels is 'folders' (the folders' names are the classes)."
        )
    plain = parse_own(f"folder:{place}?{urlencode(options)}")
    top = path / "train" if is_folder(path / "train") else path
    if not is_folder(top):
        raise DataUnavailable(f"There is no folder {top}. Put a folder of images for each class there.")
    classes = sorted(item.name for item in top.iterdir() if item.is_dir() and not item.name.startswith("."))
    if not classes:
        raise InputError(f"{top} holds no folders, expected one for each class; leave out labels=folders.")
    return dataclasses.replace(
        plain,
        id=name,
        preprocessing_note=f"{plain.preprocessing_note} Class by class, in the order of the folders' names.",
        label_names=tuple(classes),
        reader="flowzoo.data.readers.classes:read_folder",
    )


def load_npz(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None, tuple[str, ...]]:
    """Reads an ``.npz`` archive of images or vectors.

    Returns:
        The items, their labels or None, and the names of the classes.

    Raises:
        DataUnavailable: if there is no such file.
        IntegrityError: if it is not a complete archive of numbers, or holds several arrays and none is named as one of
            :data:`ITEMS`.
    """
    if not is_regular(path):
        raise DataUnavailable(f"There is no file {path}. Save it with numpy.savez(path, x=..., labels=...).")
    held = npz_names(path)
    labels = _whole(path, LABELS) if any(name in held for name in LABELS) else None
    names = tuple(map(str, _whole(path, (NAMES,)))) if NAMES in held else ()
    return _whole(path, ITEMS), labels, names


def _whole(path: Path, names: tuple[str, ...]) -> NDArray[Any]:
    array = open_npz_array(path, names)
    found: NDArray[Any] = array[np.arange(len(array))]
    return found


def _npz(name: str, path: Path, options: dict[str, str]) -> Dataset:
    if unknown := sorted(set(options) - {"layout", "split"}):
        raise InputError(f"{name!r} has the unknown option {unknown[0]!r}; known: layout, split.")
    if options.get("split", "all") != "all":
        raise InputError(f"{name!r}: the only value of split is 'all' (every split holds all of it).")
    items, _, names = load_npz(path)
    vectors = items.dtype.kind == "f" and items.ndim == 2
    if not vectors and items.dtype != np.uint8:
        raise InputError(
            f"{path} holds {items.dtype} of shape {items.shape}; expected uint8 images, or vectors of floats (N, D)."
        )
    layout, image_shape = (
        (None, None) if vectors else array_layout(items.shape, str(path), options.get("layout"))
    )
    whole = "split" in options
    return Dataset(
        id=name,
        title=f"The archive {path}",
        release="as found",
        preprocessing="npz-as-is-v1",
        preprocessing_note=(
            "The arrays as they are. Each item is in the split that the SHA-256 of its bytes, (C, H, W) of an image, "
            "says; equal items are never on both sides."
        ),
        kind="vectors" if vectors else "images",
        image_shape=image_shape,
        dims=items.shape[1] if vectors else None,
        label_names=names,
        splits={
            split: Split(
                description="all items" if whole else DESCRIPTIONS[split].replace("images", "items"),
                alternatives=((str(path),),),
            )
            for split in SPLITS
        },
        reader="flowzoo.data.readers.classes:read_npz",
        terms="the user's own data: whatever terms they are under",
        attribution="whoever made the data",
        how_to_get=f"save uint8 images or float vectors with numpy.savez({str(path)!r}, x=..., labels=...).",
        options={"layout": layout, "all": whole},
    )
