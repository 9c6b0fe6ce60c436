"""Images in files that PIL reads: any folder, CelebA, LSUN."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flowzoo.data.api import SPLITS, Dataset
from flowzoo.data.images import ImageSource
from flowzoo.data.paths import is_folder
from flowzoo.data.readers.npy import in_memory_if_small
from flowzoo.data.splitting import choose, file_split
from flowzoo.data.survey import listed, survey
from flowzoo.errors import DataUnavailable, IntegrityError

__all__ = [
    "FileImages",
    "SkippedFiles",
    "eight_bits",
    "find_images",
    "read_celeba",
    "read_own",
    "read_split_folders",
    "square_box",
]

_LISTED = 20

Box = tuple[int, int, int, int]


def square_box(width: int, height: int) -> Box:
    """The central square with the image's shorter side; an odd pixel is cut off at the right or bottom."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _celeba_box(width: int, height: int) -> Box:
    """Rows 40 to 187 and columns 15 to 162 of an aligned CelebA image of 178x218 pixels."""
    if (width, height) != (178, 218):
        raise ValueError(f"it is {width}x{height}, an aligned CelebA image is 178x218")
    return 15, 40, 163, 188


_BOXES: dict[str, Callable[[int, int], Box]] = {"square": square_box, "celeba": _celeba_box}


class FileImages:
    """One image a file, decoded when asked for: converted, cropped, resized by PIL's bilinear filter, uint8.

    Args:
        paths: The files, in order.
        crop: ``"square"`` or ``"celeba"``.
        size: Side of the resulting square in pixels.
        channels: 1 for grey, 3 for RGB.
    """

    def __init__(self, paths: Sequence[Path], *, crop: str, size: int, channels: int) -> None:
        self._paths, self._box = list(paths), _BOXES[crop]
        self._mode = "L" if channels == 1 else "RGB"
        self.shape: tuple[int, int, int, int] = (len(self._paths), channels, size, size)

    def batch(self, indices: Tensor) -> Tensor:
        """Returns the images at ``indices``, uint8 (B, C, size, size).

        Raises:
            IntegrityError: if files cannot be decoded or have a size that the crop does not allow; it names them
                all, up to twenty.
        """
        _, channels, height, width = self.shape
        out = np.empty((len(indices), channels, height, width), dtype=np.uint8)
        bad: list[str] = []
        for row, index in enumerate(indices.tolist()):
            try:
                out[row] = self._decode(self._paths[index])
            except ValueError as error:
                bad.append(str(error))
        _refuse(bad, len(indices))
        return torch.from_numpy(out)

    def find_bad(self) -> None:
        """Decodes every image, keeping none.

        Raises:
            IntegrityError: as :meth:`batch`, over all files.
        """
        bad: list[str] = []
        for path in self._paths:
            try:
                self._decode(path)
            except ValueError as error:
                bad.append(str(error))
        _refuse(bad, len(self._paths))

    def _decode(self, path: Path) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
        """The pixels of one file; a ValueError that begins with its path says why there are none."""
        _, channels, height, width = self.shape
        try:
            with Image.open(path) as file:
                image = eight_bits(file).convert(self._mode)
            cropped = image.crop(self._box(*image.size))
        except MemoryError:
            raise
        except Exception as error:
            # PIL's decoders refuse damaged files by whatever Python raises on the way.
            raise ValueError(f"{path}: {str(error)[:200] or type(error).__name__}") from error
        pixels = np.asarray(cropped.resize((width, height), Image.Resampling.BILINEAR))
        return pixels.reshape(height, width, channels).transpose(2, 0, 1)


def _refuse(bad: list[str], count: int) -> None:
    if bad:
        raise IntegrityError(
            f"{len(bad):,} of {count:,} files cannot be used as images; replace or remove them:\n  "
            + listed(bad, _LISTED, "\n  ")
        )


def eight_bits(image: Image.Image) -> Image.Image:
    """The image with 8 bits a channel and without transparency: scaled by its type's range, laid on white.

    Raises:
        ValueError: The range of its pixels is not known.
    """
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    if sixteen:
        return Image.fromarray((np.asarray(image).astype(np.uint32) + 128) // 257).convert("L")
    if image.mode in ("I", "F"):
        raise ValueError(
            f"its pixels (mode {image.mode}) have no known range; convert it to 8 or 16 bits a channel"
        )
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        shown = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    return image


class SkippedFiles(UserWarning):
    """Files below a folder of images are not used; the message counts them and names the first."""


def find_images(folder: Path) -> list[Path]:
    """Returns the image files below a folder, sorted by relative path with ``/`` between its parts.

    Names that begin with a dot are skipped. Each real file and folder counts once, whatever links lead to it. A
    warning counts and names what was skipped.

    Raises:
        DataUnavailable: if the folder cannot be looked through.
    """
    found = survey(folder)
    if found.num_skipped:
        warnings.warn(f"Not used below {folder}: {found.summary()}.", SkippedFiles, stacklevel=2)
    return list(found.files)


def read_own(dataset: Dataset, split: str, paths: tuple[Path, ...]) -> Tensor | ImageSource:
    """Reads ``folder:DIR``: its subfolder named like the split, or images of a folder without any by their bytes.

    Raises:
        DataUnavailable: if there are no images, or some of the subfolders train, valid, test but not this
            one.
        InputError: if no image falls into the split.
    """
    folder = Path(dataset.options["folder"])
    named = [name for name in SPLITS if is_folder(folder / name)]
    if paths[0] == folder and named and not dataset.options["all"]:
        raise DataUnavailable(
            f"{folder} has the subfolder {named[0]} but no subfolder {split}. Make one, or use "
            f"'{dataset.id}&split=all' for all images below the folder."
        )
    files = find_images(paths[0])
    if files and paths[0] == folder and not dataset.options["all"]:
        advice = (
            "sort them into subfolders train, valid and test, or try things out with all images in every split "
            "(&split=all)."
        )
        chosen = choose([file_split(path) for path in files], split, dataset.id, advice)
        files = [files[position] for position in chosen]
    return _files(dataset, split, files, paths[0])


def read_split_folders(dataset: Dataset, split: str, paths: tuple[Path, ...]) -> Tensor | ImageSource:
    """Reads a folder of training images, the last ``options["valid"]`` held out, or one of test images."""
    files = find_images(paths[0])
    held_out = int(dataset.options["valid"])
    if split != "test":
        files = files[-held_out:] if split == "valid" else files[:-held_out]
    return _files(dataset, split, files, paths[0])


def read_celeba(dataset: Dataset, split: str, paths: tuple[Path, ...]) -> Tensor | ImageSource:
    """Reads aligned CelebA by its official partition: 0 train, 1 valid, 2 test.

    Raises:
        IntegrityError: if the partition file cannot be read, or names an image that is not there.
    """
    folder, partition = paths
    wanted = str(SPLITS.index(split))
    files = []
    for number, line in enumerate(
        partition.read_text(encoding="ascii", errors="replace").splitlines(), start=1
    ):
        fields = line.split()
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise IntegrityError(
                f"{partition}, line {number}: expected 'NAME.jpg 0|1|2', found {line[:60]!r}."
            )
        if fields[1] == wanted:
            files.append(folder / Path(fields[0]).name)
    if missing := [path.name for path in files if not path.is_file()]:
        raise IntegrityError(
            f"{partition} lists {len(missing):,} files that are not in {folder} ({listed(missing, _LISTED)}): "
            "unpack the images again."
        )
    return _files(dataset, split, files, folder)


def _files(dataset: Dataset, split: str, files: Sequence[Path], folder: Path) -> Tensor | ImageSource:
    if not files:
        raise DataUnavailable(
            f"There are no images for the {split} split of {dataset.id!r} in {folder}. How to get them: "
            f"{dataset.hint()}"
        )
    options = dataset.options
    source = FileImages(files, crop=options["crop"], size=options["size"], channels=options["channels"])
    return in_memory_if_small(source)
