"""Images named in one word: files, folders, arrays, places in data sets, samples of a model, plain grey, noise."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from flowzoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from flowzoo.data.images import ImageSet
    from flowzoo.flow import Flow

__all__ = ["GRAMMAR", "Chosen", "choose", "image_set"]

GRAMMAR = (
    "an image file, a folder of images, an array FILE.npy, DATASET:SPLIT, DATASET:SPLIT:12, DATASET:SPLIT:0-99, "
    "DATASET:SPLIT:3,5,8, DATASET:SPLIT:label=7, sample:SEED, sample:SEED:COUNT, grey:LEVEL, noise:SEED:COUNT"
)
"""The forms of a source of images."""

_IN_A_SET = re.compile(r"(?P<name>.+):(?P<split>train|valid|test)(?::(?P<which>[^:]+))?")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Images with their names.

    Attributes:
        images: uint8 ``(N, C, H, W)`` on the CPU.
        names: One for each, such as ``"mnist:test:12"`` or a file's path.
    """

    images: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def choose(
    source: str, flow: Flow, *, limit: int | None = None, temperature: float = 1.0, root: str | None = None
) -> Chosen:
    """Reads the images that a source names.

    Args:
        source: One of the forms of :data:`GRAMMAR`.
        flow: The model that the images are for; they must have its shape, and samples are its own.
        limit: The most images that are taken, the first ones.
        temperature: Of samples.
        root: Where data sets are looked for; see :func:`flowzoo.data.data_root`.

    Raises:
        InputError: The source is no such thing, an image cannot be read or has another shape than the model's,
            or there is no image of this index.
        UnknownDataset: No data set has this name.
        DataUnavailable: The data set is not here.
    """
    shape = flow.image_shape
    kind, _, rest = source.partition(":")
    made: dict[str, Callable[..., Chosen]] = {"sample": _samples, "grey": _grey, "noise": _noise}
    if kind in made and rest:
        chosen = made[kind](source, rest.split(":"), flow, temperature)
    elif Path(source).expanduser().exists():
        chosen = _files(source, Path(source).expanduser(), shape, limit)
    elif match := _IN_A_SET.fullmatch(source):
        chosen = _from_set(source, match, shape, limit, root)
    else:
        raise InputError(f"{source!r} is no source of images, and no such file exists; expected {GRAMMAR}.")
    if not len(chosen):
        raise InputError(f"{source!r} holds no images; expected at least one.")
    return Chosen(chosen.images[:limit], chosen.names[:limit])


def image_set(source: str, flow: Flow, *, root: str | None = None) -> ImageSet:
    """The images that a source names as a set, read from disk batch by batch where they are many.

    Raises:
        FlowzooError: As :func:`choose`.
    """
    from flowzoo.data.images import ImageSet

    if (match := _IN_A_SET.fullmatch(source)) and not Path(source).expanduser().exists():
        return _open_set(source, match, flow.image_shape, root)[0]
    return ImageSet(choose(source, flow, root=root).images, id=source)


def _samples(source: str, parts: list[str], flow: Flow, temperature: float) -> Chosen:
    from flowzoo.analysis.batches import draw

    seed, count = _numbers(source, parts)
    images = draw(flow, count, temperature=temperature, seed=seed).cpu()
    return Chosen(images, _numbered(f"sample:{seed}", count))


def _noise(source: str, parts: list[str], flow: Flow, _: float) -> Chosen:
    seed, count = _numbers(source, parts)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, *flow.image_shape), generator=generator, dtype=torch.uint8)
    return Chosen(images, _numbered(f"noise:{seed}", count))


def _grey(source: str, parts: list[str], flow: Flow, _: float) -> Chosen:
    if len(parts) != 1 or not parts[0].isdecimal() or int(parts[0]) > 255:
        raise InputError(f"{source!r}: expected grey:LEVEL with a grey level of 0 (black) to 255 (white).")
    return Chosen(torch.full((1, *flow.image_shape), int(parts[0]), dtype=torch.uint8), (source,))


def _numbers(source: str, parts: list[str]) -> tuple[int, int]:
    """Seed and count of ``SEED`` or ``SEED:COUNT``."""
    if len(parts) > 2 or not all(part.isdecimal() for part in parts) or int(parts[0]) >= 2**63:
        raise InputError(f"{source!r}: expected {source.partition(':')[0]}:SEED or ...:SEED:COUNT.")
    count = int(parts[1]) if len(parts) == 2 else 1
    if not 1 <= count <= 100_000:
        raise InputError(f"{source!r}: the count is {count}; expected 1 to 100000.")
    return int(parts[0]), count


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return (name,) if count == 1 else tuple(f"{name}:{i}" for i in range(count))


# --- files --------------------------------------------------------------------------------------------------


def _files(source: str, path: Path, shape: tuple[int, ...], limit: int | None) -> Chosen:
    from flowzoo.data.readers.folder import find_images

    if path.is_dir():
        paths = find_images(path)[:limit]
        images = [_read(file, shape) for file in paths]
        return Chosen(torch.stack(images) if images else torch.empty(0), tuple(map(str, paths)))
    if path.suffix.lower() == ".npy":
        from flowzoo.data.registry import get_dataset

        found = get_dataset(f"numpy:{path}?split=all").load("test")
        _check_shape(source, found.image_shape, shape)
        count = min(len(found), limit or len(found))
        return Chosen(found[:count], tuple(f"{source}:{i}" for i in range(count)))
    return Chosen(_read(path, shape)[None], (source,))


def _read(path: Path, shape: tuple[int, ...]) -> Tensor:
    """One image file of the model's shape as uint8 ``(C, H, W)``."""
    import numpy as np
    from PIL import Image

    from flowzoo.data.readers.folder import eight_bits

    channels, height, width = shape
    try:
        with Image.open(path) as file:
            if file.size != (width, height):
                raise InputError(
                    f"{path} is {file.width}x{file.height} pixels; this model takes {width}x{height}. Resize it, or "
                    f"name its folder as 'folder:DIR?size={height}&channels={channels}&split=all:test'."
                )
            image = eight_bits(file).convert("L" if channels == 1 else "RGB")
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an image: {' '.join(str(error).split())}.") from error
    pixels = np.array(image).reshape(height, width, channels)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _check_shape(source: str, found: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if tuple(found) != tuple(shape):
        raise InputError(
            f"{source!r} has images of {'x'.join(map(str, found))} (channels, height, width); this model takes "
            f"{'x'.join(map(str, shape))}."
        )


# --- data sets ----------------------------------------------------------------------------------------------


def _from_set(
    source: str, match: re.Match[str], shape: tuple[int, ...], limit: int | None, root: str | None
) -> Chosen:
    images, positions = _open_set(source, match, shape, root)
    count = min(len(images), limit or len(images))
    prefix = f"{match['name']}:{match['split']}"
    return Chosen(images[:count], tuple(f"{prefix}:{i}" for i in positions[:count].tolist()))


def _open_set(
    source: str, match: re.Match[str], shape: tuple[int, ...], root: str | None
) -> tuple[ImageSet, Tensor]:
    """The chosen images of a split, unread, and their positions in it."""
    from flowzoo.data.registry import get_dataset

    dataset = get_dataset(match["name"])
    if getattr(dataset, "kind", "images") != "images":
        raise InputError(f"{source!r} is a set of vectors; expected one of images.")
    images = dataset.load(match["split"], root)
    _check_shape(source, images.image_shape, shape)
    positions = _positions(source, match["which"], images)
    return (images if match["which"] is None else images.subset(positions)), positions


def _positions(source: str, which: str | None, images: ImageSet) -> Tensor:
    """The positions in a split that ``12``, ``0-99``, ``3,5,8``, ``label=7`` or nothing names."""
    if which is None:
        return torch.arange(len(images))
    if which.startswith("label="):
        labels: Any = getattr(images, "labels", None)
        if labels is None:
            raise InputError(f"{source!r}: this data set has no labels here; name images by their indices.")
        found = (labels == _index(source, which.removeprefix("label="))).nonzero().flatten()
        if not len(found):
            raise InputError(f"{source!r}: no image has this label; there are {labels.unique().tolist()}.")
        return torch.as_tensor(found)
    if match := re.fullmatch(r"(\d+)-(\d+)", which):
        first, last = int(match[1]), int(match[2])
        if first > last:
            raise InputError(f"{source!r}: {which} ends before it begins; expected FIRST-LAST.")
        wanted = list(range(first, min(last, len(images)) + 1))
    else:
        wanted = [_index(source, part) for part in which.split(",")]
        last = max(wanted)
    if last >= len(images):
        raise InputError(f"{source!r}: there is no image {last}; the split has 0 to {len(images) - 1}.")
    return torch.tensor(wanted)


def _index(source: str, text: str) -> int:
    if not text.isdecimal() or len(text) > 12:
        raise InputError(f"{source!r}: {text!r} is no index; expected 12, 0-99, 3,5,8 or label=7.")
    return int(text)
