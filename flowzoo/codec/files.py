"""Compressing images into a file and back, a chunk at a time."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from flowzoo.atomic import new_file, write_all
from flowzoo.codec.coder import Decoder, Encoder
from flowzoo.codec.container import CHUNK_IMAGES, Chunk, Header, Reader, opening
from flowzoo.codec.model import IntegerModel, integer_model, weights_digest
from flowzoo.errors import FlowzooError, InputError, IntegrityError
from flowzoo.flow import Flow

Progress = Callable[[int], object]
"""Is told how many images more are done."""


@dataclass(frozen=True, slots=True)
class Compressed:
    """The outcome of a compression.

    Attributes:
        images: Their number.
        values: Pixels times channels of all of them.
        size: Bytes of the file.
    """

    images: int
    values: int
    size: int

    @property
    def bits_per_dim(self) -> float:
        """Bits of the file, all overhead included, over the number of values."""
        return 8 * self.size / self.values


def compress_images(
    flow: Flow,
    batches: Iterable[Tensor],
    count: int,
    out: Path,
    *,
    name: str,
    names: Sequence[str] = (),
    batch_size: int = 16,
    progress: Progress = lambda done: None,
) -> Compressed:
    """Writes images to a file, and proves of every chunk that it decodes before it is written.

    Args:
        flow: A flow with an integer form.
        batches: The images, uint8 ``(B, C, H, W)``, in batches of any size.
        count: How many there are.
        out: The file; it is whole or absent.
        name: The model's name, for whoever decompresses.
        names: A name for each image, or none.
        batch_size: Images that networks see at a time; no bit depends on it.
        progress: Is told of each chunk.

    Raises:
        InputError: There are no images, or of another shape or number; or the model has no integer form.
        IntegrityError: A chunk did not decode to its pixels: this machine computes wrongly.
    """
    model = integer_model(flow, batch_size)
    if count < 1:
        raise InputError("there are no images to compress; name at least one.")
    channels, height, width = flow.image_shape
    header = Header(
        model=name,
        weights=weights_digest(flow),
        shape=(channels, height, width),
        count=count,
        named=bool(names),
    )
    head = opening(header, names)
    size, done = len(head), 0
    with new_file(out) as handle, torch.inference_mode():
        write_all(handle, head)
        for images in _in_chunks(batches):
            packed = _encode(flow, model, images).packed()
            write_all(handle, packed)
            size, done = size + len(packed), done + len(images)
            progress(len(images))
        if done != count:
            raise InputError(f"{done} images came where {count} were announced; nothing was written.")
    return Compressed(count, count * flow.dims, size)


def read_header(path: Path) -> Header:
    """What a file says about itself: model, digest of its weights, shape and number of images.

    Raises:
        IntegrityError: It is no such file, of a newer version, cut off or damaged.
    """
    with _opened(path) as reader:
        return reader.header


@contextlib.contextmanager
def decompress_images(
    flow: Flow, path: Path, *, batch_size: int = 16
) -> Iterator[tuple[Reader, Iterator[Tensor]]]:
    """Opens a file for decompression.

    Args:
        flow: The model that it was written with.
        path: The file.
        batch_size: Images that networks see at a time; no pixel depends on it.

    Yields:
        The opened file and its images, uint8 ``(B, C, H, W)``, chunk by chunk, each checked by its CRC-32.

    Raises:
        IntegrityError: The file is damaged, or of another model. Chunks that came before were sound.
    """
    model = integer_model(flow, batch_size)
    with _opened(path) as reader:
        _check_model(reader, flow)
        yield reader, _decoded(reader, model, 8 - flow.n_bits)


def _decoded(reader: Reader, model: IntegerModel, drop: int) -> Iterator[Tensor]:
    first = 0
    for chunk in reader.chunks():
        with torch.inference_mode():
            images = _decode(model, chunk, drop)
        if images is None:
            raise reader.damaged(first, chunk.count)
        first += chunk.count
        yield images


def _check_model(reader: Reader, flow: Flow) -> None:
    header = reader.header
    found = weights_digest(flow)
    if header.weights != found:
        raise IntegrityError(
            f"{reader.path} was compressed with other weights: {header.model} of sha256 {header.weights[:12]}..., and "
            f"the model given has {found[:12]}.... Only the same weights decompress it; name them with --model. "
            "Nothing was written."
        )
    if header.shape != tuple(flow.image_shape):
        raise IntegrityError(
            f"{reader.path} is damaged: it claims images of {header.shape}, and its model's are "
            f"{tuple(flow.image_shape)}. Nothing was written."
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Reader]:
    try:
        handle = path.open("rb")
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}. Name a file of `flowzoo compress`."
        ) from error
    with handle:
        yield Reader(handle, path)


def _in_chunks(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same images, 256 at a time; the boundaries are a matter of the file and not of the batches."""
    kept: list[Tensor] = []
    for batch in batches:
        kept.append(batch)
        while sum(map(len, kept)) >= CHUNK_IMAGES:
            joined = torch.cat(kept)
            yield joined[:CHUNK_IMAGES]
            kept = [joined[CHUNK_IMAGES:]]
    rest = torch.cat(kept) if kept else None
    if rest is not None and len(rest):
        yield rest


def _encode(flow: Flow, model: IntegerModel, images: Tensor) -> Chunk:
    flow.space.require(images)
    drop = 8 - flow.n_bits
    if drop and bool((images & ((1 << drop) - 1)).any()):
        raise InputError(
            f"the images have 8 bits and this model {flow.n_bits}: their low bits would be lost. Clear them first, or "
            "use a model of 8 bits."
        )
    encoder = Encoder()
    model.encode((images >> drop).to(torch.int64), encoder.write)
    chunk = Chunk(len(images), _crc(images), encoder.stream())
    found = _decode(model, chunk, drop)
    if found is None or not torch.equal(found, images):
        raise IntegrityError(
            "a chunk did not decode to the images it was made of, so nothing was written: the processor or the memory "
            "of this machine computes wrongly, or this is a bug of flowzoo."
        )
    return chunk


def _decode(model: IntegerModel, chunk: Chunk, drop: int) -> Tensor | None:
    """The images of a chunk; None where they have not the pixels on record."""
    try:
        values = model.decode(chunk.count, Decoder(chunk.stream).read)
    except FlowzooError:
        raise
    except Exception:  # noqa: BLE001 - the coder's library raises what it likes on a stream that no encoder wrote
        return None
    images = (values << drop).to(torch.uint8).contiguous()
    return images if _crc(images) == chunk.crc else None


def _crc(images: Tensor) -> int:
    return zlib.crc32(images.contiguous().numpy().tobytes())
