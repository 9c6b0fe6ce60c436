"""The truth test of the accounting: ``python -m tools.truth [DATASET]``, MNIST unless CIFAR-10 is named.

Independent pixels have known answers, which are counted here without any flow: the entropy of each pixel in the test
images, below which no elementwise flow can be, and the code of the training images' histograms. A flow of these
histograms has to give the same bits per dimension through dequantization, log-determinant and base density. The command
prints both beside the trained model's figure, and fails if a flow is off by more than 0.0001 or below the bound. It
needs the training images (docs/data.md), of which it counts all, those held out for validation too.
"""

from __future__ import annotations

from typing import NamedTuple

import click
import numpy as np
import torch
from numpy.typing import NDArray

import flowzoo
from flowzoo.bijectors import HistogramCDF
from flowzoo.data import get_dataset
from flowzoo.flow import Flow
from flowzoo.manifest.write import read_manifest
from tools.baselines import counts
from tools.cards import ROOT
from tools.cells import measured, table

LEVELS = 256
UNSEEN = 1e-9
"""Added to each count of the test images, whose own levels all occur."""
TOLERANCE = 1e-4


class Answer(NamedTuple):
    """Bits per dimension of independent pixels: counted, and by a flow."""

    name: str
    counted: float
    flow: float


def elementwise_flow(bits: NDArray[np.float64], shape: tuple[int, int, int]) -> Flow:
    """The flow of histograms whose levels need these bits.

    Args:
        bits: Of each level of each pixel, ``(D, levels)``.
        shape: ``(C, H, W)`` of the images.
    """
    flow = flowzoo.create("cdf", image_shape=shape, bins=bits.shape[1]).eval()
    (histogram,) = (part for part in flow.modules() if isinstance(part, HistogramCDF))
    with torch.no_grad():
        histogram.logits.copy_(torch.from_numpy(-bits * np.log(2)))
    return flow


def answers(train: NDArray[np.uint8], test: torch.Tensor) -> list[Answer]:
    """Both answers for images ``(M, D)`` to count and ``(N, C, H, W)`` to measure."""
    flat = test.flatten(1).numpy()
    found = (
        ("no elementwise flow has fewer", counts.empirical_entropy(flat, LEVELS), flat, UNSEEN),
        (f"histograms of {len(train):,} training images",
         counts.independent_dimensions(train, flat, LEVELS, counts.TRUTH_SMOOTHING), train, counts.TRUTH_SMOOTHING),
    )  # fmt: skip
    rows = []
    for name, code, images, smoothing in found:
        _, channels, height, width = test.shape
        bits = counts.bits_of_levels(images, LEVELS, smoothing)
        flow = elementwise_flow(bits, (channels, height, width))
        rows.append(Answer(name, float(code.mean()), flowzoo.evaluate(flow, test, audit=False).bpd))
    return rows


@click.command()
@click.argument("dataset", default="mnist", type=click.Choice(["mnist", "cifar10"]))
def main(dataset: str) -> None:
    """Prints the answers, and fails if a flow does not give them."""
    data = get_dataset(dataset)
    fitted, held_out, test = (np.asarray(data.load(split).images) for split in ("train", "valid", "test"))
    train = np.concatenate((fitted, held_out))
    found = answers(train.reshape(len(train), -1), torch.from_numpy(test))
    rows = [(row.name, f"{row.counted:.4f}", f"{row.flow:.4f}") for row in found]
    entry = read_manifest(ROOT / "weights_manifest.json").default(f"cdf-{dataset}")
    if entry is not None and entry.measured is not None:
        rows.append((f"cdf-{dataset}, trained", "-", measured(entry)))
    click.echo(table((f"independent pixels, {dataset}/test", "counted", "by a flow"), rows))
    if wrong := [row.name for row in found if not abs(row.flow - row.counted) <= TOLERANCE]:
        raise click.ClickException(f"a flow differs from what was counted: {', '.join(wrong)}.")
    if entry is not None and entry.measured is not None and entry.measured.value < found[0].counted:
        raise click.ClickException(f"cdf-{dataset} is below the bound: its accounting is wrong.")


if __name__ == "__main__":
    main()
