"""Converted RealNVP and Flow++ models have the density of the implementation that their checkpoint comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import convert_reference_couplings as reference
from tests import convert_synthetic_couplings as synthetic
from tests.convert_check import TOLERANCE, largest_difference, round_trip_error, run, save


@pytest.mark.parametrize("kind", [{}, {"scales": 3, "channels": 1, "blocks": 1}, {"scales": 1}])
def test_chrischute_realnvp(kind: dict[str, Any], tmp_path: Path) -> None:
    state = synthetic.chrischute_realnvp(**kind)
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    path = save({"net": parallel, "test_loss": 3.5, "epoch": 20}, tmp_path / "best.pth.tar")
    printed = run(path, tmp_path / "out", "--image-shape", f"{kind.get('channels', 3)},8,8")
    assert printed["layout"] == "chrischute/real-nvp"
    difference = largest_difference(tmp_path / "out", lambda x, u: reference.chrischute_realnvp(state, x, u))
    assert difference < TOLERANCE
    assert round_trip_error(tmp_path / "out") < 1e-8
