"""``python -m tools.points``: the entropies and digests of the sets ``points:NAME``, for catalogue_points.py.

An entropy is minus the integral of p log p over a grid by the trapezoidal rule, in nats, to the last digit on which
this grid and one of half the spacing agree. Names as arguments print these sets only.
"""

from __future__ import annotations

import hashlib
import math
import sys

import numpy as np
import torch

from flowzoo.data.catalogue_points import SIZES
from flowzoo.data.point_densities import DENSITIES, Checkerboard, NoisyCurves, PointDensity, Twisted
from flowzoo.data.readers.points import draw

_MARGIN = {1: 8.0, 2: 1.5}


def entropy(density: PointDensity, step: float) -> float:
    """Entropy in nats of a smooth density: by the trapezoidal rule on a grid of this spacing."""
    if isinstance(density, Checkerboard):
        return math.log(2 * density.half**2 * density.side**2)
    if isinstance(density, Twisted):  # a twist preserves areas
        return entropy(density.plain, step)
    margin = _MARGIN[density.dims]
    axes = [torch.arange(low - margin, high + margin, step, dtype=torch.float64) for low, high in density.box]
    first, *rest = axes
    total = 0.0
    for part in first.split(64):
        log_prob = density.log_prob(torch.cartesian_prod(part, *rest).reshape(-1, density.dims))
        total -= float((log_prob.exp() * log_prob).sum()) * step**density.dims
    return total


def main(names: list[str]) -> None:
    """Prints the record of each set as Python."""
    for name in names or DENSITIES:
        density = DENSITIES[name]
        step = density.sigma / 6 if isinstance(density, NoisyCurves) else {1: 1e-3, 2: 0.02}[density.dims]
        coarse, fine = entropy(density, step), entropy(density, step / 2)
        digests = [
            hashlib.sha256(np.ascontiguousarray(draw(name, split, size)[0], dtype="<f4").data).hexdigest()
            for split, size in SIZES.items()
        ]
        agreed = next(digits for digits in range(12, 0, -1) if abs(coarse - fine) < 0.5 * 10.0**-digits)
        print(f'    "{name}": (\n        {fine:.{agreed}f},')  # noqa: T201 - the tool's output
        for digest in digests:
            print(f'        "{digest}",')  # noqa: T201 - the tool's output
        print("    ),")  # noqa: T201 - the tool's output


if __name__ == "__main__":
    main(sys.argv[1:])
