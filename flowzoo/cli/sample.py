"""``flowzoo sample``: images out of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flowzoo.cli.output import note, print_line


@click.command()
@click.argument("name")
@click.option("-n", "count", type=click.IntRange(1), default=64, show_default=True, help="How many images.")
@click.option(
    "--temperature",
    type=click.FloatRange(0),
    help="Factor on the latents [what the model recommends, else 1]; the grid states it.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="samples.png",
    show_default=True,
    help="A PNG file.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**64 - 1),
    default=0,
    show_default=True,
    help="The same seed, the same images; on another device or in other batches but for rounding.",
)
@click.option("--columns", type=click.IntRange(1), help="Images in a row.")
@click.option("--device", help="cpu, cuda or cuda:1; a GPU if there is one.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Images at a time.")
def sample(
    name: str,
    count: int,
    temperature: float | None,
    out: Path,
    seed: int,
    columns: int | None,
    device: str | None,
    batch_size: int,
) -> None:
    """Draw images from NAME (a model, a run's directory, or a path) into a PNG grid."""
    if out.suffix.lower() != ".png":
        raise click.UsageError(
            f"--out: a grid is written as PNG; name a file ending with .png, not {out.name!r}."
        )
    import torch

    from flowzoo.analysis.grids import save_grid
    from flowzoo.devices import find_device
    from flowzoo.evaluation.trained_model import find_target

    target = find_device(device, computing=True)
    flow = find_target(name).flow.to(target)
    temperature = _temperature(temperature, flow.card)
    # The latents are drawn on the CPU, so that a seed gives the same ones on every device.
    generator = torch.Generator().manual_seed(seed)
    images = flow.sample(count, temperature=temperature, generator=generator, batch_size=batch_size)
    save_grid(images, out, columns=columns, temperature=temperature)
    print_line(str(out))


def _temperature(asked: float | None, card: Any) -> float:
    """The temperature that was asked for, else the one that the model recommends; said on stderr."""
    if asked is not None:
        found, why = asked, "as asked for"
    elif (recommended := _recommended(card)) is not None:
        found, why = recommended, "which the model recommends"
    else:
        found, why = 1.0, "the model's own density"
    note(f"Temperature {found:g}, {why}.")
    return found


def _recommended(card: Any) -> float | None:
    """The temperature that a manifest entry or a ``flowzoo.json`` recommends, if it is one."""
    details = getattr(card, "details", {})
    found = getattr(card, "recommended_temperature", None) or details.get("recommended_temperature")
    return float(found) if isinstance(found, int | float) and 0 < found < 100 else None
