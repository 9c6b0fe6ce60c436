"""Converted Glows have the density of the implementation that their checkpoint comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import convert_reference as reference
from tests import convert_synthetic as synthetic
from tests.convert_check import TOLERANCE, largest_difference, round_trip_error, run, save

SHAPE = ("--image-shape", "3,8,8")


@pytest.mark.parametrize(
    ("kind", "bits"),
    [({}, 5), ({"affine": False}, 8), ({"lu": False, "levels": 3}, 8), ({"levels": 1, "c": 1}, 8)],
)
def test_rosinality(kind: dict[str, int], bits: int, tmp_path: Path) -> None:
    state = synthetic.rosinality(**kind)
    path = save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "model_1.pt")
    shape = f"{kind.get('c', 3)},8,8"
    printed = run(path, tmp_path / "out", "--image-shape", shape, "--n-bits", str(bits))
    assert printed["layout"] == "rosinality/glow-pytorch"
    difference = largest_difference(tmp_path / "out", lambda x, u: reference.rosinality(state, x, u, bits))
    assert difference < TOLERANCE
    assert round_trip_error(tmp_path / "out") < 1e-8


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"permutation": "dense", "affine": False},
        {"permutation": "reverse", "learn_top": False},
        {"classes": 3},
        {"classes": 3, "learn_top": False},
    ],
)
def test_y0ast(kind: dict[str, Any], tmp_path: Path) -> None:
    state = synthetic.y0ast(**kind)
    path = save({"model": state, "optimizer": {"state": {}}}, tmp_path / "glow_checkpoint_1.pt")
    label = 2 if kind.get("classes") else None
    arguments = ["--label", "2"] if label else []
    if kind.get("permutation") == "reverse":
        arguments += ["--permutation", "reverse"]
    printed = run(path, tmp_path / "out", *arguments)
    assert printed["layout"] == "y0ast/Glow-PyTorch"
    assert printed["config"]["image_shape"] == [3, 8, 8]
    difference = largest_difference(tmp_path / "out", lambda x, u: reference.y0ast(state, x, u, label))
    assert difference < TOLERANCE
    assert round_trip_error(tmp_path / "out") < 1e-8


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_chrischute_glow(levels: int, tmp_path: Path) -> None:
    state = synthetic.chrischute_glow(levels=levels)
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    path = save({"net": parallel, "test_loss": 3.5, "epoch": 80}, tmp_path / "best.pth.tar")
    printed = run(path, tmp_path / "out", *SHAPE)
    assert printed["layout"] == "chrischute/glow"
    difference = largest_difference(tmp_path / "out", lambda x, u: reference.chrischute_glow(state, x, u))
    assert difference < TOLERANCE
    assert round_trip_error(tmp_path / "out") < 1e-8


@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        ({}, 8),
        ({"affine": False, "permutation": "lu"}, 5),
        ({"permutation": "shuffle", "top": False}, 8),
        ({"permutation": "reverse", "edge": False, "classes": 4}, 8),
    ],
)
def test_openai_glow(kind: dict[str, Any], bits: int, tmp_path: Path) -> None:
    state = synthetic.openai_glow(**kind)
    label = 1 if kind.get("classes") else None
    arguments = ["--label", "1"] if label else []
    optimizer = {
        "Variable:0": torch.zeros(()),
        "model/0/0/invconv/W/ExponentialMovingAverage:0": torch.zeros(3),
    }
    path = save({f"{name}:0": tensor for name, tensor in state.items()} | optimizer, tmp_path / "graph.npz")
    printed = run(path, tmp_path / "out", *SHAPE, "--n-bits", str(bits), *arguments)
    assert printed["layout"] == "openai/glow"
    difference = largest_difference(
        tmp_path / "out", lambda x, u: reference.openai_glow(state, x, u, bits, 2, label)
    )
    assert difference < TOLERANCE
    assert round_trip_error(tmp_path / "out") < 1e-8


def test_openai_averages_are_taken_where_only_they_are_there(tmp_path: Path) -> None:
    state = synthetic.openai_glow()
    path = save({f"{n}/ExponentialMovingAverage": t for n, t in state.items()}, tmp_path / "ema.npz")
    run(path, tmp_path / "out", *SHAPE, "--n-bits", "8")
    difference = largest_difference(tmp_path / "out", lambda x, u: reference.openai_glow(state, x, u, 8, 2))
    assert difference < TOLERANCE
