"""``flowzoo reconstruct``: images rebuilt level by level of the latent."""

from __future__ import annotations

from pathlib import Path

import click

from flowzoo.cli.model_options import (
    batch_size_option,
    device_option,
    label_option,
    limit_option,
    on_device,
    open_model,
    out_option,
    progress,
    root_option,
    seed_option,
)
from flowzoo.cli.output import json_option, print_json, print_line, table


@click.command()
@click.argument("name")
@click.argument("images")
@click.option(
    "--temperature",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Of the levels that are not the image's; 0 is the centre of their density.",
)
@out_option("levels.png")
@seed_option
@limit_option
@label_option
@root_option
@device_option
@batch_size_option
@json_option
def reconstruct(
    name: str,
    images: str,
    temperature: float,
    out: Path,
    seed: int,
    limit: int | None,
    label: int | None,
    data_root: str | None,
    device: str | None,
    batch_size: int,
    as_json: bool,
) -> None:
    """Rebuild IMAGES level by level: what each scale of the latent of the model NAME holds.

    From left to right: the image; the coarsest level alone, then with the next, up to all; then all but one level.
    What is left out is replaced by a draw at --temperature. The table gives the dimensions of each level, and by how
    many grey levels the image changes where it alone is replaced.
    """
    if out.suffix.lower() != ".png":
        raise click.UsageError(f"--out: name a file ending with .png, not {out.name!r}.")
    import torch

    from flowzoo.analysis.batches import require_images
    from flowzoo.analysis.captions import captioned_grid, save_picture
    from flowzoo.analysis.levels import latent_levels, reconstruct_levels
    from flowzoo.analysis.sources import choose

    target = open_model(name, device)
    flow = target.flow
    require_images(flow, "a reconstruction by levels")
    x = on_device(flow, choose(images, flow, limit=limit, root=data_root).images)
    with progress(len(x) * (1 + 2 * len(latent_levels(flow)))) as advance:
        found = reconstruct_levels(
            flow, x, label, temperature=temperature, seed=seed, batch_size=batch_size, advance=advance
        )
    count = len(found.sizes)
    shown = torch.cat((x[:, None], found.upto, found.without), dim=1)
    headings = ["image", *(f"1-{k + 1}" if k else "level 1" for k in range(count))]
    headings += [f"no {k + 1}" for k in range(count)]
    title = f"{target.name}   {count} levels, coarsest first   temperature {temperature:g}"
    picture = captioned_grid(shown.flatten(0, 1), 1 + 2 * count, title=title, headings=headings)
    save_picture(picture, out, {"model": target.name})
    rows = [
        {
            "level": k + 1,
            "dimensions": size,
            "share": size / flow.latent_dims,
            "change": float(found.error[k]),
        }
        for k, size in enumerate(found.sizes)
    ]
    if as_json:
        print_json({"out": str(out), "levels": rows})
        return
    table(
        ("level", "dimensions", "share", "change"),
        [(r["level"], r["dimensions"], f"{r['share']:.1%}", f"{r['change']:.1f}") for r in rows],
        right=("level", "dimensions", "share", "change"),
    )
    print_line(str(out))
