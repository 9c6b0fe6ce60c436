"""Converting a synthetic checkpoint and comparing densities with an evaluator of the original."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from click.testing import CliRunner
from torch import Tensor

import flowzoo
from flowzoo.cli.main import cli

TOLERANCE = 1e-4
"""Bits per dimension."""


def save(state: Mapping[str, Any], path: Path) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **{name: np.asarray(value) for name, value in state.items()})
    else:
        torch.save(state, path)
    return path


def run(path: Path, out: Path, *arguments: str) -> dict[str, Any]:
    """Runs ``flowzoo convert --json`` and returns what it printed."""
    result = CliRunner().invoke(
        cli, ["convert", str(path), "-o", str(out), "--json", *arguments], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    printed: dict[str, Any] = json.loads(result.stdout)
    return printed


def images_and_noise(shape: tuple[int, ...], kind: str = "uniform") -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (4, *shape), generator=generator, dtype=torch.uint8)
    images[0], images[1] = 0, 255
    draw = torch.rand if kind == "uniform" else torch.randn
    return images, draw(4, *shape, generator=generator)


def largest_difference(out: Path, reference: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Largest difference in bits per dimension between the loaded model and an evaluator, over random images."""
    flow = flowzoo.load(f"path:{out}")
    images, noise = images_and_noise(flow.image_shape, flow.noise_kind)
    with torch.no_grad():
        ours = flow.log_prob(images, noise=noise).double()
        theirs = reference(images, noise)
    assert torch.isfinite(theirs).all()
    return float((ours - theirs).abs().max()) / (flow.dims * math.log(2))


def round_trip_error(out: Path) -> float:
    """Largest error of decoding what was encoded, in float64 and before rounding."""
    flow = flowzoo.load(f"path:{out}", dtype=torch.float64)
    y = 0.05 + 0.9 * torch.rand(2, *flow.image_shape, dtype=torch.float64)
    with torch.no_grad():
        z, _ = flow.bijector(y)
        back, _ = flow.bijector.inverse(z)
    return float((back - y).abs().max())
