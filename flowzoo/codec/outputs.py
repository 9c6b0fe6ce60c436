"""Where decompressed images go: a folder of PNG files, or one array."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from flowzoo.atomic import new_directory, new_file, write_all
from flowzoo.codec.sources import MODES
from flowzoo.errors import InputError


def write_images(
    batches: Iterable[Tensor], out: Path, *, shape: tuple[int, int, int], count: int, names: tuple[str, ...]
) -> None:
    """Writes images to ``out``, which is whole or absent.

    Args:
        batches: uint8 ``(B, C, H, W)``.
        out: A file ending with ``.npy``, of shape (N, C, H, W); or a folder of PNG files.
        shape: (C, H, W).
        count: N.
        names: Of the PNG files, without suffix; their numbers if there are none.

    Raises:
        InputError: ``out`` is there already and would be replaced by something else.
    """
    if out.suffix == ".npy":
        if out.is_dir():
            raise InputError(f"{out} is a folder; name a file that is not there.")
        _write_array(batches, out, (count, *shape))
        return
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(
            f"{out} is there already; name a folder that is not there, or a file ending with .npy."
        )
    if shape[0] not in MODES:
        raise InputError(
            f"a PNG file has 1 or 3 channels and these images have {shape[0]}; write a .npy file."
        )
    digits = len(str(count - 1))
    with new_directory(out) as folder:
        number = 0
        for images in batches:
            for image in images:
                name = names[number] if names else f"{number:0{digits}d}"
                _write_png(image, folder / f"{name}.png")
                number += 1


def _write_png(image: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        raise InputError(
            f"two of the images would be {path.name} here, where upper and lower case are one; write a .npy file."
        )
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(path, format="PNG")


def _write_array(batches: Iterable[Tensor], out: Path, shape: tuple[int, ...]) -> None:
    head = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, described)
    with new_file(out) as handle:
        write_all(handle, head.getvalue())
        for images in batches:
            write_all(handle, images.contiguous().numpy().tobytes())
