"""Converted RealNVP and Flow++ models have the density of the implementation that their checkpoint comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowzoo.convert.core import convert_checkpoint
from flowzoo.errors import InputError
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


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"dequantization_blocks": 0, "scales": ((0, 4), (2, 2), (0, 1))},
        {"attends": False, "channels": 2, "scales": ((2, 1),)},
    ],
)
def test_chrischute_flowpp(kind: dict[str, Any], tmp_path: Path) -> None:
    state = synthetic.chrischute_flowpp(**kind)
    path = save({"net": state, "test_loss": 3.5, "epoch": 9}, tmp_path / "best.pth.tar")
    printed = run(path, tmp_path / "out", "--image-shape", f"{kind.get('channels', 3)},8,8")
    assert printed["layout"] == "chrischute/flowplusplus"
    difference = largest_difference(tmp_path / "out", lambda x, u: reference.chrischute_flowpp(state, x, u))
    assert difference < TOLERANCE
    assert round_trip_error(tmp_path / "out") < 1e-8


def test_flowpp_with_an_odd_group_in_the_middle_is_refused(tmp_path: Path) -> None:
    state = synthetic.chrischute_flowpp(scales=((0, 3), (2, 3)), dequantization_blocks=0)
    with pytest.raises(InputError, match=r"flows\.checkers\..*odd number"):
        convert_checkpoint(save(state, tmp_path / "m.pt"), tmp_path / "out", image_shape=(3, 8, 8))


def test_flowpp_with_a_negative_scale_is_refused(tmp_path: Path) -> None:
    state = synthetic.chrischute_flowpp()
    state["flows.checkers.4.inv_std"] *= -1
    with pytest.raises(InputError, match=r"flows\.checkers\.4\.inv_std"):
        convert_checkpoint(save(state, tmp_path / "m.pt"), tmp_path / "out", image_shape=(3, 8, 8))
