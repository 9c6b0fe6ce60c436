"""Checkpoints that leave a choice: none is made silently; and those that need not be refused are not."""

from __future__ import annotations

import argparse
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import flowzoo
from flowzoo.cli.main import main
from flowzoo.convert.core import convert_checkpoint
from flowzoo.errors import InputError
from tests import convert_synthetic as synthetic
from tests import convert_synthetic_couplings as couplings
from tests.convert.test_errors import SHAPE, SOUND, refused
from tests.convert_check import save


def weights(path: Path, out: Path, **options: Any) -> dict[str, torch.Tensor]:
    """The state dict of the converted model."""
    convert_checkpoint(path, out, **options)
    return flowzoo.load(f"path:{out}").state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- what another code computed on other images -------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 5, 7])
def test_fewer_bits_of_y0ast_are_refused(bits: int, tmp_path: Path) -> None:
    message = refused(synthetic.y0ast(), "y0ast/Glow-PyTorch", tmp_path, n_bits=bits)
    assert f"--n-bits is {bits}" in message
    assert "1/256" in message


@pytest.mark.parametrize(
    ("layout", "words"), [("y0ast/Glow-PyTorch", "8 bits"), ("rosinality/glow-pytorch", "2020-10-07")]
)
def test_what_is_assumed_is_said_and_kept(
    layout: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, filename, options = SOUND[layout]
    path = save(make(), tmp_path / filename)
    arguments = ["convert", str(path), "-o", str(tmp_path / "out")]
    if options:
        arguments += ["--image-shape", "3,8,8", "--n-bits", "5"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert words in capsys.readouterr().err
    card = json.loads((tmp_path / "out" / "flowzoo.json").read_text())
    assert any(words in note for note in card["converted"]["notes"])


def test_averages_beside_openais_weights_are_mentioned(tmp_path: Path) -> None:
    state = synthetic.openai_glow()
    path = save(state | {f"{n}/ExponentialMovingAverage": t for n, t in state.items()}, tmp_path / "m.npz")
    result = convert_checkpoint(path, tmp_path / "out", image_shape=SHAPE, n_bits=8)
    assert "moving averages" in " ".join(result.notes)
    path = save(state, tmp_path / "n.npz")
    assert convert_checkpoint(path, tmp_path / "two", image_shape=SHAPE, n_bits=8).notes == ()


# --- more than one state dict ---------------------------------------------------------------------------------


def test_weights_beside_their_averages_have_to_be_chosen(tmp_path: Path) -> None:
    raw, average = synthetic.chrischute_glow(), synthetic.chrischute_glow()
    average["flows.steps.0.norm.bias"] = average["flows.steps.0.norm.bias"] + 1
    both = save({"net": raw, "ema": average, "epoch": 3}, tmp_path / "both.pt")
    alone = {
        "net": save({"net": raw}, tmp_path / "net.pt"), "ema": save({"ema": average}, tmp_path / "ema.pt")
    }  # fmt: skip
    with pytest.raises(InputError, match=r"'net', 'ema'.*--state net"):
        convert_checkpoint(both, tmp_path / "out", image_shape=SHAPE)
    assert not (tmp_path / "out").exists()
    found = {key: weights(both, tmp_path / key, image_shape=SHAPE, state=key) for key in ("net", "ema")}
    for key, state in found.items():
        assert same(state, weights(alone[key], tmp_path / f"{key}-alone", image_shape=SHAPE))
    assert not same(found["net"], found["ema"])
    with pytest.raises(InputError, match=r"no state dict called 'emma'; it holds 'net', 'ema'"):
        convert_checkpoint(both, tmp_path / "out", image_shape=SHAPE, state="emma")


def test_a_state_dict_under_another_name_is_found_if_it_is_the_only_one(tmp_path: Path) -> None:
    state = synthetic.y0ast()
    path = save({"glow": state, "epoch": 3}, tmp_path / "m.pt")
    assert same(weights(path, tmp_path / "one"), weights(save(state, tmp_path / "n.pt"), tmp_path / "two"))


# --- tensors that are no matrix of numbers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("rosinality/glow-pytorch", "blocks.0.flows.1.invconv.weight"),
        ("y0ast/Glow-PyTorch", "flow.layers.2.invconv.weight"),
        ("chrischute/glow", "flows.steps.1.conv.weight"),
        ("chrischute/flowplusplus", "flows.channels.1.weight"),
        ("openai/glow", "model/0/1/invconv/W"),
    ],
)
@pytest.mark.parametrize("how", ["two rows alike", "zero", "nearly"])
def test_a_convolution_without_an_inverse_is_refused(
    layout: str, name: str, how: str, tmp_path: Path
) -> None:
    dense = {"rosinality/glow-pytorch": {"lu": False}, "y0ast/Glow-PyTorch": {"permutation": "dense"}}
    make: Any = SOUND[layout][0]
    state = make(**dense.get(layout, {}))
    if name not in state:
        name = next(n for n in state if n.endswith(".weight") and state[n].ndim == 2 and ".nn." not in n)
    matrix = state[name].clone()
    if how == "zero":
        matrix *= 0
    else:
        matrix[1] = matrix[0] * (1 + 1e-9 * (how == "nearly"))
    message = refused(state | {name: matrix}, layout, tmp_path)
    assert name in message
    assert "inverse" in message


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("rosinality/glow-pytorch", "blocks.0.flows.1.invconv.w_s"),
        ("y0ast/Glow-PyTorch", "flow.layers.2.invconv.log_s"),
    ],
)
@pytest.mark.parametrize("log_scale", [-200.0, 200.0, 1e30])
def test_a_decomposed_one_is_too(layout: str, name: str, log_scale: float, tmp_path: Path) -> None:
    state = SOUND[layout][0]()
    diagonal = state[name].clone()
    diagonal[0] = log_scale  # whose exponential is 0 or infinite in float32
    message = refused(state | {name: diagonal}, layout, tmp_path)
    assert name in message
    assert "inverse" in message


KINDS = {
    "sparse": lambda tensor: tensor.to_sparse(),
    "compressed": lambda tensor: tensor.flatten(1).to_sparse_csr(),
    "meta": lambda tensor: tensor.to("meta"),
    "complex": lambda tensor: tensor.to(torch.complex64),
    "too large for float32": lambda tensor: tensor.double() + 1e300,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_without_plain_numbers_is_named(kind: str, tmp_path: Path) -> None:
    state = synthetic.y0ast(permutation="dense")
    name = "flow.layers.2.invconv.weight"
    message = refused(state | {name: KINDS[kind](state[name])}, "y0ast/Glow-PyTorch", tmp_path)
    assert name in message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_any_type_of_real_numbers_is_read(dtype: torch.dtype, tmp_path: Path) -> None:
    state = synthetic.y0ast()
    name = "flow.layers.1.block.0.conv.weight"
    assert weights(save(state | {name: state[name].to(dtype)}, tmp_path / "m.pt"), tmp_path / "out")


# --- refusals that need not be -------------------------------------------------------------------------------------


def test_numbers_and_arguments_beside_the_weights_do_no_harm(tmp_path: Path) -> None:
    state = synthetic.y0ast()
    beside = {
        "loss": np.float64(3.5), "step": np.int64(7), "best": np.float32(1), "history": np.arange(3.0),
        "args": argparse.Namespace(lr=1e-3, K=2, name="glow"), "done": np.bool_(True),
    }  # fmt: skip
    plain = weights(save(state, tmp_path / "plain.pt"), tmp_path / "plain")
    inside = save({"model": state, **beside}, tmp_path / "inside.pt")
    assert same(weights(inside, tmp_path / "inside"), plain)
    flat = save({**state, **{key: beside[key] for key in ("loss", "args")}}, tmp_path / "flat.pt")
    assert same(weights(flat, tmp_path / "flat"), plain)
    card = json.loads((tmp_path / "flat" / "flowzoo.json").read_text())
    assert any("'loss', 'args'" in note for note in card["converted"]["notes"])


def test_an_array_of_objects_is_still_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save({"model": synthetic.y0ast(), "odd": np.array([{}], dtype=object)}, path)
    with pytest.raises(InputError, match="runs no code"):
        convert_checkpoint(path, tmp_path / "out")


def test_arrays_in_place_of_tensors_are_read(tmp_path: Path) -> None:
    state = synthetic.y0ast()
    arrays = OrderedDict((name, tensor.numpy()) for name, tensor in state.items())
    assert same(
        weights(save({"model": arrays}, tmp_path / "arrays.pt"), tmp_path / "arrays"),
        weights(save(state, tmp_path / "plain.pt"), tmp_path / "plain"),
    )


@pytest.mark.parametrize("make", [couplings.chrischute_realnvp, couplings.chrischute_flowpp])
def test_the_newer_names_of_weight_normalization_are_read(make: Any, tmp_path: Path) -> None:
    state = make()
    names = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    newer = {}
    for name, tensor in state.items():
        head, _, tail = name.rpartition(".")
        newer[f"{head}.{names[tail]}" if tail in names else name] = tensor
    assert newer.keys() != state.keys()
    # The two names are torch's own.
    assert set(names.values()) <= set(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)).state_dict())
    options = {"image_shape": SHAPE}
    assert same(
        weights(save(newer, tmp_path / "newer.pt"), tmp_path / "newer", **options),
        weights(save(state, tmp_path / "older.pt"), tmp_path / "older", **options),
    )


def test_rosinality_without_its_flag_is_read(tmp_path: Path) -> None:
    state = synthetic.rosinality()
    without = {name: tensor for name, tensor in state.items() if not name.endswith("initialized")}
    assert len(without) < len(state)
    options: dict[str, Any] = {"image_shape": SHAPE, "n_bits": 5}
    assert same(
        weights(save(without, tmp_path / "without.pt"), tmp_path / "without", **options),
        weights(save(state, tmp_path / "with.pt"), tmp_path / "with", **options),
    )


def test_a_compiled_model_is_read(tmp_path: Path) -> None:
    state = {f"_orig_mod.{name}": tensor for name, tensor in synthetic.y0ast().items()}
    assert weights(save(state, tmp_path / "m.pt"), tmp_path / "out")
