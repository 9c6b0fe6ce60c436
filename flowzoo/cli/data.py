"""``flowzoo data``: the data sets, where they are looked for, and whether they are the right ones."""

from __future__ import annotations

import warnings
from pathlib import Path, PurePath
from typing import Any

import click

from flowzoo.cli.output import fields, json_option, note, print_json, print_line, table
from flowzoo.data.api import SPLITS, Dataset, data_root, prepared_path
from flowzoo.data.paths import is_folder, is_regular
from flowzoo.data.registry import discover_datasets, get_dataset
from flowzoo.data.survey import survey_own
from flowzoo.errors import DataUnavailable, InputError, IntegrityError

root_option = click.option(
    "--root", type=click.Path(file_okay=False), help="Folder to look in instead of $FLOWZOO_DATA."
)


@click.group()
def data() -> None:
    """Show the data sets, where they are looked for, and how to get them."""


@data.command("list", short_help="List every data set.")
@root_option
@json_option
def list_(root: str | None, as_json: bool) -> None:
    """List every data set: preprocessing, terms, where it is looked for, whether it is there."""
    rows = discover_datasets().values()
    if as_json:
        print_json(
            [
                _describe(row.dataset, root) if row.dataset else {"id": row.id, "cause": row.cause}
                for row in rows
            ]
        )
        return
    table(
        ("id", "there", "looked for", "preprocessing", "terms"),
        [
            (
                row.id,
                _there(row.dataset, root),
                _place(row.dataset),
                row.dataset.preprocessing,
                row.dataset.terms,
            )
            for row in rows
            if row.dataset is not None
        ],
    )
    note(f"Paths are below {data_root(root)}. 'flowzoo data show ID' says how to get a set.")
    note(
        "Your own images: folder:DIR?size=N and numpy:FILE.npy; your own vectors: csv:FILE.csv and numpy:FILE.npy."
    )
    for row in rows:
        if row.dataset is None:
            note(f"Not usable: {row.id} of {row.origin}: {row.cause}.")


@data.command(short_help="Show everything about a data set.")
@click.argument("name", metavar="ID")
@root_option
@json_option
def show(name: str, root: str | None, as_json: bool) -> None:
    """Show everything about the data set ID."""
    dataset = get_dataset(name)
    if as_json:
        print_json(_describe(dataset, root))
        return
    fields(
        [
            ("id", dataset.id),
            ("title", dataset.title),
            ("release", dataset.release),
            *_items_fields(dataset),
            ("preprocessing", f"{dataset.preprocessing}\n{dataset.preprocessing_note}"),
            *((split, _split_text(dataset, split, root)) for split in dataset.splits),
            ("terms", dataset.terms),
            ("attribution", dataset.attribution),
            *([("not used", skipped)] if (skipped := _skipped(dataset)) else []),
            ("how to get", dataset.hint(root)),
        ]
    )


@data.command(short_help="Compare a data set with its digests.")
@click.argument("name", metavar="ID")
@root_option
@json_option
def check(name: str, root: str | None, as_json: bool) -> int:
    """Read every split of the data set ID that is there, and compare it with what is on record.

    Exit code 5 if a split is not the one on record or has no images, 7 if none is there.
    """
    dataset = get_dataset(name)
    present = [split for split in dataset.splits if dataset.is_present(split, root)]
    if not present:
        dataset.find(next(iter(dataset.splits)), root)
    results = [_check_split(dataset, split, root) for split in present]
    if as_json:
        print_json(results)
    else:
        columns = ("split", dataset.kind, "labels", "sha256", "verdict")
        rows = [[_cell(result[column]) for column in columns] for result in results]
        table(columns, rows, right=(dataset.kind,))
    for error in dict.fromkeys(result["error"] for result in results if result["error"]):
        note(f"Error: {error}")  # once, where it is of files that all splits share
    if skipped := _skipped(dataset):
        note(f"Not used: {skipped}.")
    for split in dataset.splits:
        if split not in present:
            note(f"The {split} split is not there. How to get it: {dataset.hint(root)}")
    return IntegrityError.exit_code if any(result["error"] for result in results) else 0


@data.command(short_help="Decode a large data set once.")
@click.argument("name", metavar="ID")
@click.option("--split", "splits", multiple=True, help="Only this split; may be given several times.")
@root_option
def prepare(name: str, splits: tuple[str, ...], root: str | None) -> None:
    """Decode the data set ID once, into files that training reads rows from.

    Worth it for the large sets: celeba64, imagenet*, lsun-*. The copies go into the folder 'prepared' of the
    data root; delete them at will.
    """
    from tqdm import tqdm

    from flowzoo.data.prepared import prepare as prepare_split

    dataset = get_dataset(name)
    for split in splits or tuple(dataset.splits):
        with tqdm(desc=f"{dataset.id} {split}", unit=" images") as bar:

            def progress(done: int, total: int, bar: Any = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            path = prepare_split(dataset, split, root, progress)
        print_line(str(path))


def _check_split(dataset: Dataset, split: str, root: str | None) -> dict[str, Any]:
    from flowzoo.data.readers.folder import SkippedFiles
    from flowzoo.data.splitting import EmptySplit

    result: dict[str, Any] = {
        "split": split, dataset.kind: None, "labels": None, "sha256": None, "error": None,
    }  # fmt: skip
    try:
        with warnings.catch_warnings():
            if "folder" in dataset.options:  # said once for all splits
                warnings.simplefilter("ignore", SkippedFiles)
            images = dataset.load(split, root)
        if find_bad := getattr(images.images, "find_bad", None):
            find_bad()  # files too many for memory: names all bad ones, where the digest stops at the first
        result |= {dataset.kind: len(images), "labels": images.num_classes or None, "sha256": images.digest}
    except (EmptySplit, DataUnavailable) as error:
        return result | {"verdict": f"no {dataset.kind}", "error": str(error)}
    except (IntegrityError, InputError) as error:
        return result | {"verdict": "wrong", "error": str(error)}
    if dataset.split(split).sha256 is not None:
        return result | {"verdict": "as on record"}
    prepared = dataset.split(split).alternatives and is_regular(prepared_path(dataset, split, root))
    return result | {"verdict": "as prepared" if prepared else "no digest on record"}


def _skipped(dataset: Dataset) -> str:
    """What lies in a folder of one's own images and is not used, in words; empty if nothing."""
    folder = dataset.options.get("folder")
    if folder is None or not is_folder(Path(folder)):
        return ""
    found = survey_own(Path(folder), () if dataset.options["all"] else SPLITS)
    return found.summary(limit=20)


def _describe(dataset: Dataset, root: str | None) -> dict[str, Any]:
    return {
        "id": dataset.id,
        "title": dataset.title,
        "release": dataset.release,
        "kind": dataset.kind,
        "image_shape": None if dataset.image_shape is None else list(dataset.image_shape),
        "dims": dataset.dims,
        "label_names": list(dataset.label_names),
        "entropy": dataset.options.get("entropy"),
        "preprocessing": dataset.preprocessing,
        "preprocessing_note": dataset.preprocessing_note,
        "terms": dataset.terms,
        "attribution": dataset.attribution,
        "how_to_get": dataset.hint(root),
        "root": str(data_root(root)),
        **({"not_used": skipped} if (skipped := _skipped(dataset)) else {}),
        "splits": {
            name: {
                "description": split.description,
                "size": split.size,
                "sha256": split.sha256,
                "present": dataset.is_present(name, root),
                "looked_for": [[str(path) for path in paths] for paths in dataset.looked_for(name, root)],
            }
            for name, split in dataset.splits.items()
        },
    }


def _there(dataset: Dataset, root: str | None) -> str:
    present = [split for split in dataset.splits if dataset.is_present(split, root)]
    if len(present) == len(dataset.splits):
        return "yes"
    return f"only {', '.join(present)}" if present else "no"


def _place(dataset: Dataset) -> str:
    """The folders below the data root that are looked into, the first choice first."""
    parents = [
        str(PurePath(paths[0]).parent) for split in dataset.splits.values() for paths in split.alternatives
    ]
    return ", ".join(dict.fromkeys(parents)) or ("bundled" if dataset.kind == "images" else "generated")


def _cell(value: object) -> object:
    return "" if value is None else value


def _items_fields(dataset: Dataset) -> list[tuple[str, str]]:
    """What an item is, the names of the classes and the entropy, as far as they are known."""
    if dataset.dims is None:
        rows = [("images", "x".join(map(str, dataset.data_shape)))]
    else:
        rows = [("vectors", f"{dataset.dims} real number{'s' if dataset.dims > 1 else ''} each, float32")]
    if names := dataset.label_names:
        more = f", ... ({len(names)} classes)" if len(names) > 20 else ""
        rows.append(("labels", ", ".join(names[:20]) + more))
    if (entropy := dataset.options.get("entropy")) is not None:
        rows.append(("true entropy", f"{entropy:.6f} nats: no density has a lower expected loss"))
    return rows


def _split_text(dataset: Dataset, split: str, root: str | None) -> str:
    info = dataset.split(split)
    size = f"{info.size:,} {dataset.kind}: " if info.size is not None else ""
    lines = [f"{size}{info.description}; {'there' if dataset.is_present(split, root) else 'not there'}"]
    if info.sha256:
        lines.append(f"sha256 {info.sha256}")
    for paths in dataset.looked_for(split, root):
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        lines.append(f"looked for: {paths[0]}{more}")
    return "\n".join(lines)
