"""The user's own images as data sets: ``folder:DIR?size=64`` and ``numpy:FILE.npy``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl

from flowzoo.data.api import SPLITS, Dataset, Split
from flowzoo.data.layout import CHANNELS_FIRST, CHANNELS_LAST, npy_layout
from flowzoo.data.splitting import DESCRIPTIONS
from flowzoo.errors import InputError

__all__ = ["PREFIXES", "parse_own"]

PREFIXES = ("folder:", "numpy:", "csv:")

_TERMS = "the user's own images: whatever terms they are under"


def parse_own(name: str) -> Dataset:
    """Returns the data set that a ``folder:`` or ``numpy:`` name describes.

    Args:
        name: ``folder:DIR?size=N[&channels=1|3][&split=all]`` or
            ``numpy:FILE.npy[?layout=nhwc|nchw][&split=all]``.

    Raises:
        InputError: if the name is malformed, or the array is not one of images.
        DataUnavailable: if the file of a ``numpy:`` name does not exist.
    """
    kind, _, rest = name.partition(":")
    place, _, query = rest.partition("?")
    if not place:
        raise InputError(f"{name!r} names no place: expected folder:DIR?size=N or numpy:FILE.npy.")
    options = dict(parse_qsl(query, keep_blank_values=True))
    path = Path(place).expanduser().absolute()
    return _folder(name, path, options) if kind == "folder" else _numpy(name, path, options)


def _folder(name: str, path: Path, options: Mapping[str, str]) -> Dataset:
    _check_options(name, options, {"size", "channels", "split"})
    if "size" not in options:
        raise InputError(
            f"{name!r} does not say to what size images are brought: write {name}?size=64, for example."
        )
    size = _number(name, "size", options["size"])
    channels = _number(name, "channels", options.get("channels", "3"))
    if channels not in (1, 3):
        raise InputError(f"{name!r}: channels must be 1 (grey) or 3 (RGB), found {channels}.")
    whole = _wants_all(name, options)
    return Dataset(
        id=name,
        title=f"The images under {path}",
        release="as found",
        preprocessing=f"folder-square-bilinear{size}-{'grey' if channels == 1 else 'rgb'}-v2",
        preprocessing_note=(
            "All images below the folder, sorted by relative path; each converted to "
            f"{'L' if channels == 1 else 'RGB'}, cropped to the central square, resized to {size}x{size} by "
            "PIL's antialiased bilinear filter, which rounds to uint8. EXIF rotation is not applied. Without "
            "subfolders train, valid and test, each image is in the split that the SHA-256 of its file says (v1: "
            "its position)."
        ),
        image_shape=(channels, size, size),
        splits=_splits(whole, ((str(path),),) if whole else None, path),
        reader="flowzoo.data.readers.folder:read_own",
        terms=_TERMS,
        attribution="whoever made the images",
        how_to_get=f"put images into {path}, or into its subfolders train, valid and test.",
        options={"crop": "square", "size": size, "channels": channels, "folder": str(path), "all": whole},
    )


def _numpy(name: str, path: Path, options: Mapping[str, str]) -> Dataset:
    _check_options(name, options, {"layout", "split"})
    wanted = options.get("layout")
    if wanted not in (None, CHANNELS_FIRST, CHANNELS_LAST):
        raise InputError(f"{name!r}: layout must be {CHANNELS_LAST} or {CHANNELS_FIRST}, found {wanted!r}.")
    layout, image_shape = npy_layout(path, wanted)
    whole = _wants_all(name, options)
    return Dataset(
        id=name,
        title=f"The array {path}",
        release="as found",
        preprocessing="numpy-as-is-v2",
        preprocessing_note=(
            "The array's uint8 values as they are. Each image is in the split that the SHA-256 of its pixels, "
            "(C, H, W), says (v1: its position)."
        ),
        image_shape=image_shape,
        splits=_splits(whole, ((str(path),),), path),
        reader="flowzoo.data.readers.npy:read_own",
        terms=_TERMS,
        attribution="whoever made the images",
        how_to_get=f"save a uint8 array of shape (N, H, W), (N, H, W, C) or (N, C, H, W) as {path}.",
        options={"layout": layout, "all": whole},
    )


def _splits(whole: bool, alternatives: tuple[tuple[str, ...], ...] | None, path: Path) -> dict[str, Split]:
    return {
        split: Split(
            description="all images" if whole else DESCRIPTIONS[split],
            alternatives=alternatives or ((str(path / split),), (str(path),)),
        )
        for split in SPLITS
    }


def _wants_all(name: str, options: Mapping[str, str]) -> bool:
    if options.get("split", "all") != "all":
        raise InputError(f"{name!r}: the only value of split is 'all' (every split holds all images).")
    return "split" in options


def _check_options(name: str, options: Mapping[str, str], known: set[str]) -> None:
    if unknown := sorted(set(options) - known):
        raise InputError(
            f"{name!r} has the unknown option {unknown[0]!r}; known: {', '.join(sorted(known))}."
        )


def _number(name: str, option: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{name!r}: {option} must be a positive whole number, found {text!r}.")
    return int(text)
