"""``flowzoo compress`` and ``flowzoo decompress``: images to a file of as few bits as a model gives them, and back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowzoo.cli.output import fields, json_option, note, print_json
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from flowzoo.codec.sources import DatasetSource, FileSource
    from flowzoo.flow import Flow

_threads = click.option("--threads", type=click.IntRange(1), help="CPU threads; no bit depends on it.")
_batch_size = click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Images that networks see at a time.",
)


@click.command()
@click.argument("sources", nargs=-1, required=True)
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write."
)
@click.option(
    "-m", "--model", required=True, help="A model of integers: a name, a run's directory, or a path."
)
@click.option(
    "--split",
    type=click.Choice(["train", "valid", "test"]),
    default="test",
    show_default=True,
    help="Of a data set.",
)
@click.option("--data-root", type=click.Path(path_type=Path), help="Where data sets are [$FLOWZOO_DATA].")
@click.option("--limit", type=click.IntRange(1), help="Only the first images.")
@_batch_size
@_threads
@json_option
def compress(
    sources: tuple[str, ...],
    out: Path,
    model: str,
    split: str,
    data_root: Path | None,
    limit: int | None,
    batch_size: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Compress SOURCES without loss: images, folders of images, or one data set such as mnist.

    Images must have the size and channels of the model. The pixels come back exactly, on any machine; what else a file
    held does not. Every part is decompressed and compared before it is written.
    """
    _set_threads(threads)
    from flowzoo.codec import compress_images
    from flowzoo.evaluation.progress import Bar
    from flowzoo.evaluation.trained_model import find_target

    target = find_target(model)
    found = _find(sources, target.flow, split, data_root, limit)
    bar = Bar(len(found), unit="image")
    began = time.monotonic()
    try:
        done = compress_images(
            target.flow,
            found.batches(),
            len(found),
            out,
            # Never a path: that would be nobody's business, and differ where the bytes must not.
            name=target.name if target.entry is not None else str(target.flow.architecture),
            names=found.names,
            batch_size=batch_size,
            progress=bar.advance,
        )
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}.") from error
    finally:
        bar.close()
    _show(
        {
            "file": str(out),
            "images": done.images,
            "bytes": done.size,
            "bits_per_dim": done.bits_per_dim,
            "seconds": time.monotonic() - began,
        },
        as_json,
    )


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="A new folder, or a file ending with .npy.",
)
@click.option("-m", "--model", help="The model it was compressed with [the listed one that the file names].")
@_batch_size
@_threads
@json_option
def decompress(
    file: Path, out: Path, model: str | None, batch_size: int, threads: int | None, as_json: bool
) -> None:
    """Decompress FILE, which `flowzoo compress` wrote, into PNG files or an array.

    A file that is damaged, cut off, or of another model ends in an error, and nothing is written.
    """
    _set_threads(threads)
    from flowzoo.codec import decompress_images
    from flowzoo.codec.outputs import write_images
    from flowzoo.evaluation.progress import Bar

    flow = _model_of(file, model)
    began = time.monotonic()
    with decompress_images(flow, file, batch_size=batch_size) as (reader, batches):
        header = reader.header
        bar = Bar(header.count, unit="image")

        def told() -> Any:
            for images in batches:
                bar.advance(len(images))
                yield images

        try:
            write_images(told(), out, shape=header.shape, count=header.count, names=tuple(reader.names))
        except OSError as error:
            raise InputError(f"cannot write {out}: {error.strerror}.") from error
        finally:
            bar.close()
    _show({"out": str(out), "images": header.count, "seconds": time.monotonic() - began}, as_json)


def _find(
    sources: tuple[str, ...], flow: Flow, split: str, data_root: Path | None, limit: int | None
) -> DatasetSource | FileSource:
    """The images that the arguments name."""
    from flowzoo.codec.sources import DatasetSource, find_files

    if len(sources) == 1 and not Path(sources[0]).exists():
        from flowzoo.data import get_dataset

        images = get_dataset(sources[0]).load(split, data_root)
        if images.image_shape != tuple(flow.image_shape):
            raise InputError(
                f"{sources[0]} has images of {images.image_shape} and the model is for {tuple(flow.image_shape)}; "
                "name another model."
            )
        return DatasetSource(images if limit is None else images.take(limit))
    return find_files([Path(source) for source in sources], tuple(flow.image_shape), limit)


def _model_of(file: Path, model: str | None) -> Flow:
    """The model that was named, or the listed one that the file names; a file never names a path to load from."""
    from flowzoo.evaluation.trained_model import find_target

    if model is not None:
        return find_target(model).flow
    from flowzoo.codec import read_header
    from flowzoo.manifest.read import load_manifests
    from flowzoo.weights.load import load

    name = read_header(file).model
    if name not in load_manifests().names():
        raise InputError(
            f"{file} was compressed with {name[:80]!r}, which is no model of `flowzoo list`; name the same weights "
            "with --model."
        )
    return load(name)


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        from flowzoo.devices import set_threads

        set_threads(threads)


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    texts = {"bytes": "{:,}", "images": "{:,}", "bits_per_dim": "{:.4f}", "seconds": "{:.1f}"}
    fields((name.replace("_", " "), texts.get(name, "{}").format(value)) for name, value in found.items())
    if "bits_per_dim" in found:
        note("Everything in the file counted; the model's own bytes are not in it.")
