"""``flowzoo manipulate``: attribute directions, found from two sets of images and applied to others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowzoo.cli.model_options import (
    Numbers,
    batch_size_option,
    device_option,
    label_option,
    limit_option,
    on_device,
    open_model,
    out_option,
    progress,
    root_option,
)
from flowzoo.cli.output import note, print_line

if TYPE_CHECKING:
    from flowzoo.analysis.directions import Direction
    from flowzoo.flow import Flow


@click.command()
@click.argument("name")
@click.argument("images", required=False)
@click.option(
    "--with", "present", help="Images that have the attribute, as DATASET:SPLIT:label=7 or a folder."
)
@click.option("--without", "absent", help="Images that lack it.")
@click.option(
    "--direction", type=click.Path(dir_okay=False, path_type=Path), help="A direction that was saved."
)
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write it as FILE.safetensors.")
@click.option("--attribute", default="", help="Its name, kept in the file and shown.")
@click.option(
    "--strengths",
    type=Numbers(),
    default="-1,-0.5,0,0.5,1",
    show_default=True,
    help="How far along it; 1 is from the mean without the attribute to the mean with it.",
)
@out_option("manipulation.png")
@limit_option
@label_option
@root_option
@device_option
@batch_size_option
def manipulate(
    name: str,
    images: str | None,
    present: str | None,
    absent: str | None,
    direction: Path | None,
    save: Path | None,
    attribute: str,
    strengths: tuple[float, ...],
    out: Path,
    limit: int | None,
    label: int | None,
    data_root: str | None,
    device: str | None,
    batch_size: int,
) -> None:
    """Move IMAGES along an attribute's direction in the latent space of the model NAME.

    The direction is the mean latent of the images --with the attribute minus that of those --without; --save
    keeps it with the hash of the model, and --direction reads it again. Without IMAGES it is only saved.
    """
    _check_usage(images, present, absent, direction, save, out)
    from flowzoo.analysis import directions
    from flowzoo.analysis.batches import require_images
    from flowzoo.analysis.captions import captioned_grid, save_picture
    from flowzoo.analysis.sources import choose

    target = open_model(name, device)
    flow = target.flow
    require_images(flow, "a manipulation")
    if direction is not None:
        found = directions.load_direction(direction)
    else:
        assert present is not None
        assert absent is not None
        found = _find(flow, present, absent, attribute, label, limit, data_root, batch_size)
    if save is not None:
        directions.save_direction(found, save)
        print_line(str(save))
    if images is None:
        return
    chosen = choose(images, flow, limit=limit, root=data_root)
    with progress(len(chosen) * (len(strengths) + 1)) as advance:
        moved = directions.manipulate(
            flow,
            on_device(flow, chosen.images),
            found,
            strengths,
            label,
            batch_size=batch_size,
            advance=advance,
        )
    title = f"{target.name}   {found.name or 'direction'}   strength above"
    headings = [f"{strength:+g}" if strength else "0" for strength in strengths]
    picture = captioned_grid(moved.flatten(0, 1), len(strengths), title=title, headings=headings)
    save_picture(picture, out, {"model": target.name})
    print_line(str(out))


def _check_usage(
    images: str | None, present: str | None, absent: str | None, direction: Path | None, save: Path | None, out: Path
) -> None:  # fmt: skip
    if (present is None) != (absent is None) or (present is None) == (direction is None):
        raise click.UsageError("Give --with and --without, or --direction.")
    if images is None and save is None:
        raise click.UsageError("Give IMAGES to move along the direction, or --save to keep it.")
    if out.suffix.lower() != ".png":
        raise click.UsageError(f"--out: name a file ending with .png, not {out.name!r}.")
    if save is not None and save.suffix.lower() != ".safetensors":
        raise click.UsageError(f"--save: name a file ending with .safetensors, not {save.name!r}.")


def _find(
    flow: Flow, present: str, absent: str, attribute: str, label: int | None, limit: int | None, root: str | None,
    batch_size: int,
) -> Direction:  # fmt: skip
    from flowzoo.analysis.directions import find_direction
    from flowzoo.analysis.sources import choose

    sets = [choose(source, flow, limit=limit, root=root) for source in (present, absent)]
    note(f"Direction from {len(sets[0])} images with and {len(sets[1])} without the attribute.")
    with progress(len(sets[0]) + len(sets[1])) as advance:
        return find_direction(
            flow, on_device(flow, sets[0].images), on_device(flow, sets[1].images), label, name=attribute,
            batch_size=batch_size, advance=advance,
        )  # fmt: skip
