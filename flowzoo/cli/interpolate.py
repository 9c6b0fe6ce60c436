"""``flowzoo interpolate``: from one image to another through the latent space."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from flowzoo.cli.model_options import (
    batch_size_option,
    device_option,
    label_option,
    on_device,
    open_model,
    out_option,
    progress,
    root_option,
    temperature_of,
)
from flowzoo.cli.output import print_line
from flowzoo.errors import InputError


@click.command()
@click.argument("name")
@click.argument("a")
@click.argument("b")
@click.option(
    "--way", type=click.Choice(["spherical", "linear", "both"]), default="spherical", show_default=True
)
@click.option(
    "--steps", type=click.IntRange(2, 1000), default=9, show_default=True, help="Images, both ends included."
)
@out_option("interpolation.png")
@click.option(
    "--gif", type=click.Path(dir_okay=False, path_type=Path), help="Also an animation of the first way."
)
@click.option(
    "--temperature", type=click.FloatRange(0), help="Of samples [what the model recommends, else 1]."
)
@label_option
@root_option
@device_option
@batch_size_option
def interpolate(
    name: str,
    a: str,
    b: str,
    way: str,
    steps: int,
    out: Path,
    gif: Path | None,
    temperature: float | None,
    label: int | None,
    data_root: str | None,
    device: str | None,
    batch_size: int,
) -> None:
    """Draw the way from image A to image B through the latent space of the model NAME.

    A and B are files, places in data sets such as mnist:test:12, or samples such as sample:3. Several of each, as
    mnist:test:0-3 and mnist:test:4-7, make a row for each pair.
    """
    _check_names(out, gif)
    import torch

    from flowzoo.analysis import interpolation
    from flowzoo.analysis.batches import require_images
    from flowzoo.analysis.captions import captioned_grid, save_gif, save_picture
    from flowzoo.analysis.sources import choose

    target = open_model(name, device)
    flow = target.flow
    require_images(flow, "interpolation")
    heat = temperature_of(temperature, flow.card)[0]
    ends = [choose(source, flow, temperature=heat, root=data_root) for source in (a, b)]
    if len(ends[0]) != len(ends[1]):
        raise InputError(f"{a!r} has {len(ends[0])} images and {b!r} has {len(ends[1])}; expected as many.")
    first, last = (on_device(flow, end.images) for end in ends)
    ways = ["linear", "spherical"] if way == "both" else [way]
    with progress(len(first) * (steps + 2) * len(ways)) as advance:
        rows = [
            interpolation.interpolate(
                flow, first, last, label, steps=steps, way=cast("interpolation.Way", kind), batch_size=batch_size,
                advance=advance,
            )
            for kind in ways
        ]  # fmt: skip
    images = torch.stack(rows, dim=1).flatten(0, 1)
    title = f"{target.name}   {' and '.join(ways)}   {a} to {b}"
    names = ways * len(first) if way == "both" else ()
    save_picture(
        captioned_grid(images.flatten(0, 1), steps, title=title, rows=names), out, {"model": target.name}
    )
    print_line(str(out))
    if gif is not None:
        save_gif(images[0], gif)
        print_line(str(gif))


def _check_names(out: Path, gif: Path | None) -> None:
    if out.suffix.lower() != ".png":
        raise click.UsageError(
            f"--out: name a file ending with .png, not {out.name!r}; --gif writes an animation."
        )
    if gif is not None and gif.suffix.lower() != ".gif":
        raise click.UsageError(f"--gif: name a file ending with .gif, not {gif.name!r}.")
