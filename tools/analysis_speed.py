"""Times the analysis commands beside the plain calls that they rest on: ``python -m tools.analysis_speed [NAME]``.

Each command and its calls run in turn in this process, on one thread, some rounds long; the figure is the ratio of the
fastest rounds, in processor seconds. What a command does once, such as reading the weights and the images, is timed by
itself, since it does not grow with the number of images.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch

import flowzoo
from flowzoo.analysis.batches import draw
from flowzoo.analysis.captions import captioned_grid, save_picture
from flowzoo.analysis.interpolation import interpolate
from flowzoo.analysis.scores import score
from flowzoo.data.registry import get_dataset
from flowzoo.flow import Flow
from flowzoo.weights.load import find_entry

Pair = tuple[Callable[[], object], Callable[[], object]]
BATCH, STEPS, PAIRS = 64, 9, 8


@click.command()
@click.argument("name", default="glow-mnist")
@click.option(
    "--images", type=click.IntRange(2 * PAIRS), default=1000, show_default=True, help="Images to score."
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def main(name: str, images: int, rounds: int) -> None:
    """Print how much longer than the plain calls a grid of samples, interpolation and scoring take."""
    torch.set_num_threads(1)
    started = time.process_time()
    flow = flowzoo.load(name)
    x = get_dataset(find_entry(name).data.id).load("test")[:images]
    once = time.process_time() - started
    with TemporaryDirectory() as folder, torch.no_grad():
        for what, (analysis, plain) in _pairs(flow, x, Path(folder) / "grid.png").items():
            click.echo(f"{what}: {_ratio(analysis, plain, rounds):.2f}")
    click.echo(f"weights and images, once: {once:.2f} s")


def _pairs(flow: Flow, x: torch.Tensor, out: Path) -> dict[str, Pair]:
    """What a command computes and draws, and the calls of the flow for as many images."""
    first, last = x[:PAIRS], x[PAIRS : 2 * PAIRS]
    z = flow.encode(first).repeat(STEPS, 1)

    def grid(images: torch.Tensor, columns: int) -> None:
        save_picture(captioned_grid(images, columns, title=out.name), out, {})

    def scored() -> None:
        for i in range(0, len(x), BATCH):
            flow.log_prob(x[i : i + BATCH])

    return {
        f"a grid of {BATCH} samples": (lambda: grid(draw(flow, BATCH), 8), lambda: flow.sample(BATCH)),
        f"{PAIRS} ways of {STEPS} images": (
            lambda: grid(interpolate(flow, first, last, steps=STEPS).flatten(0, 1), STEPS),
            lambda: (flow.encode(x[: 2 * PAIRS]), flow.decode(z)),
        ),
        f"scores of {len(x):,} images": (lambda: score(flow, x), scored),
    }


def _ratio(analysis: Callable[[], object], plain: Callable[[], object], rounds: int) -> float:
    best = [float("inf")] * 2
    for _ in range(rounds):
        for i, function in enumerate((analysis, plain)):
            started = time.process_time()
            function()
            best[i] = min(best[i], time.process_time() - started)
    return best[0] / best[1]


if __name__ == "__main__":
    main()
