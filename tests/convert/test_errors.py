"""Refusals on the way from a checkpoint to a model: the message says which tensor and layout."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowzoo.cli.main import main
from flowzoo.convert import LAYOUTS
from flowzoo.convert.core import convert_checkpoint
from flowzoo.errors import ConfigError, FlowzooError, InputError
from tests import convert_synthetic as synthetic
from tests import convert_synthetic_couplings as couplings
from tests.convert_check import save

State = dict[str, Any]
SHAPE = (3, 8, 8)

SOUND: dict[str, tuple[Callable[[], State], str, dict[str, Any]]] = {
    "rosinality/glow-pytorch": (synthetic.rosinality, "m.pt", {"image_shape": SHAPE, "n_bits": 5}),
    "y0ast/Glow-PyTorch": (synthetic.y0ast, "m.pt", {}),
    "chrischute/glow": (synthetic.chrischute_glow, "m.pt", {"image_shape": SHAPE}),
    "chrischute/real-nvp": (couplings.chrischute_realnvp, "m.pt", {"image_shape": SHAPE}),
    "chrischute/flowplusplus": (couplings.chrischute_flowpp, "m.pt", {"image_shape": SHAPE}),
    "openai/glow": (synthetic.openai_glow, "m.npz", {"image_shape": SHAPE, "n_bits": 8}),
}


def refused(state: State, layout: str, tmp_path: Path, **options: Any) -> str:
    """The message with which a conversion ends; nothing must have been written."""
    _, filename, usual = SOUND[layout]
    path = save(state, tmp_path / filename)
    with pytest.raises(InputError) as caught:
        convert_checkpoint(path, tmp_path / "out", **(usual | options))
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_every_layout_is_tried() -> None:
    assert set(SOUND) == set(LAYOUTS)


@pytest.mark.parametrize("layout", SOUND)
def test_every_tensor_is_needed(layout: str, tmp_path: Path) -> None:
    state = SOUND[layout][0]()
    # One of each kind suffices: what differs is the last part of the name.
    kinds = {name.rpartition("/" if "/" in name else ".")[2]: name for name in state}
    for name in kinds.values():
        if name.endswith(
            ("_mask", "l_eye", "num_batches_tracked", "/indices_inverse", "actnorm.initialized")
        ):
            continue
        message = refused({n: t for n, t in state.items() if n != name}, layout, tmp_path)
        assert layout in message
        assert name in message or name.rpartition(".")[0] in message, message


@pytest.mark.parametrize("layout", SOUND)
def test_a_tensor_too_many_is_named(layout: str, tmp_path: Path) -> None:
    state = SOUND[layout][0]()
    extra = "model/0/0/f1/l_9/W" if layout == "openai/glow" else "another.weight"
    message = refused(state | {extra: torch.zeros(3)}, layout, tmp_path)
    assert extra in message
    assert layout in message


@pytest.mark.parametrize("layout", SOUND)
def test_a_tensor_of_another_shape_is_named(layout: str, tmp_path: Path) -> None:
    state = SOUND[layout][0]()
    name = next(name for name in reversed(state) if state[name].ndim >= 2 and name != "prior_h")
    message = refused(state | {name: state[name].flatten()}, layout, tmp_path)
    assert name in message
    assert "shape" in message
    assert layout in message


@pytest.mark.parametrize("layout", SOUND)
def test_nan_is_named(layout: str, tmp_path: Path) -> None:
    state = SOUND[layout][0]()
    name = next(name for name in state if name.lower().endswith("w") or name.endswith("weight"))
    message = refused(state | {name: state[name] * float("nan")}, layout, tmp_path)
    assert name in message
    assert "NaN" in message


def test_an_uninitialized_actnorm_is_refused(tmp_path: Path) -> None:
    state = synthetic.chrischute_glow()
    state["flows.steps.1.norm.is_initialized"] = torch.zeros(1)
    assert "flows.steps.1.norm.is_initialized" in refused(state, "chrischute/glow", tmp_path)


def test_a_scale_of_zero_is_refused(tmp_path: Path) -> None:
    state = synthetic.rosinality()
    state["blocks.0.flows.1.actnorm.scale"][0, 3] = 0
    assert "blocks.0.flows.1.actnorm.scale" in refused(state, "rosinality/glow-pytorch", tmp_path)


def test_what_the_file_does_not_tell_is_asked_for(tmp_path: Path) -> None:
    rosinality = synthetic.rosinality()
    layout = "rosinality/glow-pytorch"
    assert "--image-shape 3,H,W" in refused(rosinality, layout, tmp_path, image_shape=None)
    assert "1 channels" in refused(rosinality, layout, tmp_path, image_shape=(1, 8, 8))
    assert "--n-bits" in refused(rosinality, layout, tmp_path, n_bits=None)
    assert "--label means nothing" in refused(rosinality, layout, tmp_path, label=1)
    y0ast = "y0ast/Glow-PyTorch"
    assert "--label 0 to 2" in refused(synthetic.y0ast(classes=3), y0ast, tmp_path)
    assert "--label 3 is none" in refused(synthetic.y0ast(classes=3), y0ast, tmp_path, label=3)
    assert "no classes" in refused(synthetic.y0ast(), y0ast, tmp_path, label=0)
    assert "--permutation reverse" in refused(synthetic.y0ast(permutation="none"), y0ast, tmp_path)
    assert "(3, 8, 8)" in refused(synthetic.y0ast(), y0ast, tmp_path, image_shape=(3, 16, 16))


def test_an_image_that_does_not_halve_is_refused_by_the_architecture(tmp_path: Path) -> None:
    path = save(synthetic.chrischute_glow(levels=3), tmp_path / "m.pt")
    with pytest.raises(ConfigError, match="cannot be halved"):
        convert_checkpoint(path, tmp_path / "out", image_shape=(3, 12, 12))


def test_an_unknown_layout_lists_those_looked_for(tmp_path: Path) -> None:
    path = save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"'fc\.weight'") as caught:
        convert_checkpoint(path, tmp_path / "out")
    for layout in LAYOUTS:
        assert layout in str(caught.value)


def test_an_ambiguous_layout_asks_which(tmp_path: Path) -> None:
    path = save(synthetic.y0ast() | synthetic.rosinality(), tmp_path / "m.pt")
    with pytest.raises(InputError, match="rosinality/glow-pytorch and y0ast/Glow-PyTorch; say which"):
        convert_checkpoint(path, tmp_path / "out")


def test_a_layout_can_be_named_in_any_case_and_is_suggested(tmp_path: Path) -> None:
    path = save(synthetic.y0ast(), tmp_path / "m.pt")
    assert (
        convert_checkpoint(path, tmp_path / "out", layout="Y0AST/glow-pytorch").layout == "y0ast/Glow-PyTorch"
    )
    with pytest.raises(InputError, match="Did you mean 'y0ast/Glow-PyTorch'"):
        convert_checkpoint(path, tmp_path / "other", layout="y0ast/glow")
    with pytest.raises(InputError, match="no tensor"):
        convert_checkpoint(path, tmp_path / "other", layout="chrischute/glow", image_shape=SHAPE)


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("kind", ["in a checkpoint", "a bare pickle", "in an npz"])
def test_code_in_a_checkpoint_is_never_run(kind: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "was run", tmp_path / "m.pt"
    if kind == "in a checkpoint":
        torch.save({"net": synthetic.chrischute_glow(), "args": Bomb(marker)}, path)
    elif kind == "a bare pickle":
        path.write_bytes(pickle.dumps(Bomb(marker)))
    else:
        path = tmp_path / "m.npz"
        np.savez(path, bomb=np.array([Bomb(marker)], dtype=object))
    with pytest.raises(InputError, match=r"runs no code|plain arrays") as error:
        convert_checkpoint(path, tmp_path / "out", image_shape=SHAPE)
    assert "weights_only" not in str(error.value)
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_a_matrix_that_is_no_permutation_is_named(tmp_path: Path) -> None:
    state = synthetic.y0ast()
    name = "flow.layers.2.invconv.p"
    assert name in refused(state | {name: 0.5 * state[name]}, "y0ast/Glow-PyTorch", tmp_path)
    name = "flow.layers.2.invconv.sign_s"
    assert name in refused(state | {name: 0.5 * state[name]}, "y0ast/Glow-PyTorch", tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x80\x02}q\x00", bytes(1000)])
def test_a_damaged_file_ends_in_a_message(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(content)
    with pytest.raises(FlowzooError, match=r"m\.pt"):
        convert_checkpoint(path, tmp_path / "out")


def test_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    for value, words in (
        ([torch.zeros(1)], "holds a list"),
        ({"epoch": 3}, "'epoch', which is no tensor"),
        ({}, "no tensor"),
    ):
        with pytest.raises(InputError, match=words):
            convert_checkpoint(save(value, tmp_path / "m.pt"), tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not a file"):
        convert_checkpoint(tmp_path / "absent.pt", tmp_path / "out")


def test_a_directory_in_use_is_left_alone(tmp_path: Path) -> None:
    path = save(synthetic.y0ast(), tmp_path / "m.pt")
    with pytest.raises(InputError, match="not an empty directory"):
        convert_checkpoint(path, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.pt"]


def test_the_command_ends_in_a_line_and_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(synthetic.y0ast(), tmp_path / "m.pt")
    usual = [str(path), "-o", str(tmp_path / "out")]
    for arguments, code in ((usual, 0), (usual, 8), ([*usual, "--image-shape", "8,8"], 2)):
        with pytest.raises(SystemExit) as ended:
            main(["convert", *arguments])
        assert ended.value.code == code
        printed = capsys.readouterr()
        if code == 0:
            assert "y0ast/Glow-PyTorch" in printed.out
            assert "flowzoo.load" in printed.err
        else:
            assert "Error: " in printed.err
            assert printed.out == ""
