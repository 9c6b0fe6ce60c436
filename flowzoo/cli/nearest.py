"""``flowzoo nearest``: the training images that are nearest to samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowzoo.cli.model_options import (
    device_option,
    limit_option,
    open_model,
    out_option,
    progress,
    root_option,
    say_temperature,
)
from flowzoo.cli.output import json_option, note, print_json, print_line, table
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from flowzoo.analysis.neighbours import Neighbours
    from flowzoo.analysis.sources import Chosen


@click.command()
@click.argument("name")
@click.argument("images", default="sample:0:8")
@click.option("--among", help="Where to look [the training images of the model's data set].")
@click.option(
    "-k", type=click.IntRange(1, 50), default=5, show_default=True, help="Neighbours of each image."
)
@click.option(
    "--temperature", type=click.FloatRange(0), help="Of samples [what the model recommends, else 1]."
)
@click.option(
    "--fid", is_flag=True, help="Also the Frechet distance of the images to the set, where it can be had."
)
@out_option("nearest.png")
@limit_option
@root_option
@device_option
@json_option
def nearest(
    name: str,
    images: str,
    among: str | None,
    k: int,
    temperature: float | None,
    fid: bool,
    out: Path,
    limit: int | None,
    data_root: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Show the training images nearest to IMAGES (by default eight samples of the model NAME): memorised or not.

    Distances are root mean squares over pixels, in grey levels. An image counts as a copy where its nearest
    neighbour is nearer than half the mean distance of its fifty nearest.
    """
    if out.suffix.lower() != ".png":
        raise click.UsageError(f"--out: name a file ending with .png, not {out.name!r}.")
    from flowzoo.analysis import neighbours
    from flowzoo.analysis.batches import require_images
    from flowzoo.analysis.fid import find_network, frechet_inception_distance
    from flowzoo.analysis.sources import choose, image_set

    if fid:
        find_network()  # before the work, which its absence would lose
    target = open_model(name, device)
    flow = target.flow
    require_images(flow, "a search for neighbours")
    if among is None and not target.dataset:
        raise InputError(f"nothing says what {target.name} was trained on; give --among, as mnist:train.")
    source = among or f"{target.dataset}:train"
    images_there = image_set(source, flow, root=data_root)
    heat = say_temperature(temperature, flow.card) if images.startswith("sample:") else 1.0
    chosen = choose(images, flow, limit=limit, temperature=heat, root=data_root)
    with progress(len(images_there)) as advance:
        found = neighbours.nearest(chosen.images, images_there, k, advance=advance)
    title = f"{target.name}   image, then its {k} nearest of {source}"
    _draw(chosen, images_there, found, title, out, target.name)
    report: dict[str, Any] = {
        "out": str(out), "among": source, "searched": len(images_there), "copies": int(found.copies.sum()),
    }  # fmt: skip
    if fid:
        _warn_of_few(len(chosen), len(images_there))
        with progress(len(chosen) + len(images_there)) as advance:
            report["fid"] = frechet_inception_distance(chosen.images, images_there[:], advance=advance)
    _show(chosen, found, report, as_json)


def _warn_of_few(*counts: int) -> None:
    from flowzoo.analysis.fid import FEW_IMAGES

    if min(counts) < FEW_IMAGES:
        note(
            f"FID of {min(counts):,} images is mostly bias; give {FEW_IMAGES:,} and more, as sample:0:{FEW_IMAGES}."
        )


def _draw(chosen: Chosen, there: Any, found: Neighbours, title: str, out: Path, model: str) -> None:
    import torch

    from flowzoo.analysis.captions import captioned_grid, save_picture

    k = found.indices.shape[1]
    near = there.batch(found.indices.flatten()).reshape(len(chosen), k, *chosen.images.shape[1:])
    shown = torch.cat((chosen.images[:, None], near), dim=1)
    captions = [
        text
        for gaps, ratio in zip(found.distances.tolist(), found.ratio.tolist(), strict=True)
        for text in (f"ratio {ratio:.2f}", *(f"{gap:.1f}" for gap in gaps))
    ]
    picture = captioned_grid(shown.flatten(0, 1), k + 1, title=title, captions=captions)
    save_picture(picture, out, {"model": model})


def _show(chosen: Chosen, found: Neighbours, report: dict[str, Any], as_json: bool) -> None:
    rows = [
        {"image": name, "nearest": where, "distance": gap, "ratio": ratio, "copy": copied}
        for name, where, gap, ratio, copied in zip(
            chosen.names, found.indices[:, 0].tolist(), found.distances[:, 0].tolist(), found.ratio.tolist(),
            found.copies.tolist(), strict=True,
        )
    ]  # fmt: skip
    if as_json:
        print_json({**report, "images": rows})
        return
    table(
        ("image", "nearest", "distance", "ratio", "copy"),
        [(r["image"], r["nearest"], f"{r['distance']:.2f}", f"{r['ratio']:.2f}", "yes" if r["copy"] else "no")
         for r in rows],
        right=("nearest", "distance", "ratio"),
    )  # fmt: skip
    if "fid" in report:
        note(f"FID {report['fid']:.2f}.")
    note(
        f"{report['copies']} of {len(rows)} count as copies, among {report['searched']:,} images of {report['among']}."
    )
    print_line(report["out"])
