"""Weighs a model's files, ``python -m tools.weigh NAME``: bits per dimension from float to file, and time.

The images are the test split of the model's data set, or its first ``--limit``. Times are processor time of one thread,
so that other work on the machine counts little; the other codecs' are Pillow's and the standard library's, with the
settings of ``python -m tools.baselines``. JPEG XL is among them where the package pillow-jxl-plugin is installed.
"""

from __future__ import annotations

import argparse
import io
import lzma
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flowzoo.cli.output import print_line
from flowzoo.codec.coder import Decoder, Encoder, Weigher
from flowzoo.codec.container import CHUNK_IMAGES, Chunk, Header, opening
from flowzoo.codec.mixtures import IntegerMixture
from flowzoo.codec.model import integer_model, weights_digest
from flowzoo.data import get_dataset
from flowzoo.evaluation.trained_model import Target, find_target
from flowzoo.flow import Flow
from tools.baselines import files

HEADERS = ("form", "bits/dim", "bytes", "ms an image to write", "ms to read")


def weights_size(target: Target) -> int:
    """Bytes of the model's file of weights, which may be of half precision; of a run those of its tensors."""
    if target.entry is not None and target.entry.weights is not None:
        return target.entry.weights.size
    return sum(tensor.numel() * tensor.element_size() for tensor in target.flow.state_dict().values())


class Row(NamedTuple):
    """A form of the images: its size, and processor seconds for all of them in both directions."""

    form: str
    size: float
    write: float | None = None
    read: float | None = None


def main() -> None:
    """Prints the table of one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a model, a run's directory, or a path")
    parser.add_argument("--limit", type=int, help="only the first images")
    parser.add_argument("--data-root", help="where data sets are [$FLOWZOO_DATA]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    target = find_target(options.name)
    images = get_dataset(target.dataset).load("test", options.data_root)
    pixels = images[: options.limit]
    print_table(chain(of_model(target.flow, pixels, target.name), of_others(pixels)), pixels)
    what = f"{len(pixels):,} images of {target.dataset}, test"
    print_line(f"\n{what}. The model itself: {weights_size(target):,} bytes of weights.")


@torch.inference_mode()
def of_model(flow: Flow, pixels: Tensor, name: str) -> Iterator[Row]:
    """The float probability, the integer one, and the file, of which every chunk is read again and compared."""
    bits = torch.cat([flow.bits_per_dim(part) for part in pixels.split(CHUNK_IMAGES)])
    yield Row("model, float", float(bits.double().sum()) * flow.dims / 8)
    model = integer_model(flow)
    weigher = Weigher()
    channels, height, width = flow.image_shape
    header = Header(
        model=name, weights=weights_digest(flow), shape=(channels, height, width), count=len(pixels)
    )
    size, write, read = len(opening(header)), 0.0, 0.0
    for images in pixels.split(CHUNK_IMAGES):
        written: list[tuple[IntegerMixture, Tensor]] = []

        def keep(distribution: IntegerMixture, symbols: Tensor, into: Any = written) -> None:
            into.append((distribution, symbols))

        began = time.process_time()
        encoder = Encoder()
        model.encode(images.long(), keep)
        for distribution, symbols in written:
            encoder.write(distribution, symbols)
        chunk = Chunk(len(images), zlib.crc32(images.numpy().tobytes()), encoder.stream())
        write += time.process_time() - began
        for distribution, symbols in written:
            weigher.write(distribution, symbols)
        size += len(chunk.packed())
        began = time.process_time()
        back = model.decode(len(images), Decoder(chunk.stream).read)
        read += time.process_time() - began
        assert torch.equal(back.to(torch.uint8), images), "a chunk did not decode to its images"
    yield Row("model, integers", weigher.bits / 8)
    yield Row("file of flowzoo compress, all images", size, write, read)


def of_others(pixels: Tensor) -> Iterator[Row]:
    """The same images by xz all together, and one by one in each format that can be written here."""
    everything = pixels.numpy().tobytes()
    began = time.process_time()
    packed = lzma.compress(everything, preset=9 | lzma.PRESET_EXTREME)
    middle = time.process_time()
    lzma.decompress(packed)
    yield Row("xz -9e, all images", len(packed), middle - began, time.process_time() - middle)
    for name, options in files.FORMATS.items():
        if files.available(name):
            yield _by_pillow(f"{name} lossless, each image", pixels, options)


def _by_pillow(form: str, pixels: Tensor, options: Mapping[str, Any]) -> Row:
    shown = [image.permute(1, 2, 0).squeeze(2).contiguous().numpy() for image in pixels]
    written: list[bytes] = []
    began = time.process_time()
    for image in shown:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, **options)
        written.append(buffer.getvalue())
    middle = time.process_time()
    # WebP has no grey images: it gives them back with three channels that are the same.
    mode = Image.fromarray(shown[0]).mode
    back = [Image.open(io.BytesIO(file)).convert(mode) for file in written]
    seconds = time.process_time() - middle
    same = [np.array_equal(np.asarray(b), s) for b, s in zip(back, shown, strict=True)]
    assert all(same), f"{form}: a file did not decode to its image"
    return Row(form, sum(map(len, written)), middle - began, seconds)


def print_table(rows: Iterable[Row], pixels: Tensor) -> None:
    """Prints the rows as a Markdown table, each when it is known."""

    def show(seconds: float | None) -> str:
        return "" if seconds is None else f"{1000 * seconds / len(pixels):.3g}"

    print_line(f"| {' | '.join(HEADERS)} |\n|{' --- |' * len(HEADERS)}")
    for form, size, write, read in rows:
        print_line(
            f"| {form} | {8 * size / pixels.numel():.4f} | {round(size):,} | {show(write)} | {show(read)} |"
        )


if __name__ == "__main__":
    main()
