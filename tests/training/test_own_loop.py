"""A training loop of one's own: batches, evaluation, saving, and the loops that docs/training.md shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flowzoo
from flowzoo.data import ImageSet, VectorSet, batches
from flowzoo.errors import CheckpointError, InputError, UnknownDataset
from flowzoo.evaluation.likelihood import likelihoods
from flowzoo.flow import Flow
from flowzoo.weights.fingerprint import compare
from tests.documents import Block, blocks
from tests.trainings import CPU, made_up_images

IMAGES = made_up_images(80, (3, 8, 8))
LABELS = torch.arange(80) % 4


def conditional() -> Flow:
    torch.manual_seed(0)
    flow = flowzoo.create("glow-tiny", classes=4)
    flow.initialize(IMAGES, LABELS)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return flow


# --- batches ------------------------------------------------------------------------------------------------


def test_an_epoch_has_every_item_once_with_its_label() -> None:
    data = batches((IMAGES, LABELS), 16, seed=3)
    assert len(data) == 5
    orders = []
    for epoch in range(2):
        assert data.epoch == epoch
        found = list(data)
        x = torch.cat([x for x, _ in found])
        y = torch.cat([y for _, y in found if y is not None])
        places = [int((one == IMAGES).flatten(1).all(1).nonzero()) for one in x]
        assert sorted(places) == list(range(80))
        assert torch.equal(y, LABELS[places])
        orders.append(places)
    assert orders[0] != orders[1]
    assert [int(y[0]) for _, y in batches((IMAGES, LABELS), 16, seed=3) if y is not None] == [
        int(LABELS[place]) for place in orders[0][::16]
    ]


def test_a_position_is_gone_on_from() -> None:
    data, again = batches(IMAGES, 16), batches(IMAGES, 16)
    first = iter(data)
    _ = [next(first) for _ in range(2)]
    state = json.loads(json.dumps(data.state()))
    again.restore(state)
    rest = [x for x, y in again if y is None]
    assert len(rest) == 3
    assert all(torch.equal(x, mine) for x, (mine, _) in zip(rest, first, strict=True))
    with pytest.raises(CheckpointError, match="seed"):
        batches(IMAGES, 16, seed=1).restore(state)


@pytest.mark.parametrize(
    ("data", "shape", "dtype"),
    [
        (IMAGES, (16, 3, 8, 8), torch.uint8),
        (IMAGES.numpy(), (16, 3, 8, 8), torch.uint8),
        (ImageSet(IMAGES), (16, 3, 8, 8), torch.uint8),
        (np.random.default_rng(0).normal(size=(50, 2)), (16, 2), torch.float32),
        (VectorSet(torch.zeros(50, 2), id="zeros"), (16, 2), torch.float32),
        ("points:two-moons", (16, 2), torch.float32),
    ],
)
def test_data_come_in_many_forms(data: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, _ = next(iter(batches(data, 16)))
    assert (x.shape, x.dtype) == (shape, dtype)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (torch.zeros(50, 2, dtype=torch.int64), r"torch.int64 \(50, 2\); expected uint8 images"),
        (IMAGES.float(), r"torch.float32 \(80, 3, 8, 8\); expected uint8 images"),
        (object(), "The data are a object"),
        ((IMAGES, LABELS[:5]), "5 labels for the 80 items"),
        (torch.full((50, 2), float("nan")), "Row 0, column 0"),
        (IMAGES[:4], "larger than"),
    ],
)
def test_other_data_are_refused(data: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        batches(data, 16)


def test_an_unknown_data_set_is_called_that() -> None:
    with pytest.raises(UnknownDataset):
        batches("mnst", 16)


# --- evaluate -----------------------------------------------------------------------------------------------


def test_a_flow_is_measured_as_a_model_is_and_stays_as_it_is() -> None:
    flow = conditional().train()
    flow.set_network_dtype(torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    found = flowzoo.evaluate(flow, (IMAGES, LABELS), classify=True, seed=4)
    assert flow.training
    assert all(torch.equal(before[name], tensor) for name, tensor in flow.state_dict().items())
    flow.set_network_dtype(None)
    flow.eval()
    direct = likelihoods(flow, ImageSet(IMAGES), CPU, labels=LABELS, seed=4).log_prob
    assert found.bpd == pytest.approx(float(flow.nats_to_bits(direct).mean()), abs=1e-6)
    assert found.protocol.conditional
    assert 0 <= found.accuracy <= 1
    marginal = flowzoo.evaluate(flow, (IMAGES, LABELS), conditional=False, seed=4)
    assert abs(marginal.bpd - found.bpd) > 1e-4
    part = flowzoo.evaluate(flow, IMAGES, limit=10)
    assert (part.num_images, part.partial) == (10, True)
    assert flowzoo.evaluate(flow.double(), IMAGES[:8]).protocol.dtype == "float64"


def test_a_density_is_measured_in_nats() -> None:
    from flowzoo.bijectors import Chain, DiagonalScaling

    flow = Flow(dims=2, bijector=Chain(DiagonalScaling((2,))))
    data = VectorSet(torch.randn(100, 2), id="normal")
    found = flowzoo.evaluate(flow, data)
    expected = -torch.distributions.Normal(0.0, 1.0).log_prob(data.vectors).sum(1).mean()
    assert (found.unit, found.nats) == ("nats", pytest.approx(float(expected), rel=1e-5))


def test_what_cannot_be_measured_is_one_line() -> None:
    flow = conditional()
    for data, words in (
        (None, "no data"),
        (torch.zeros(5, 2), "items of shape"),
        ("mnist", "items of shape"),
    ):
        with pytest.raises(InputError, match=words):
            flowzoo.evaluate(flow, data)
    with pytest.raises(InputError, match="'given' has no labels"):
        flowzoo.evaluate(flow, IMAGES, conditional=True)
    with pytest.raises(InputError, match="got a dict"):
        flowzoo.evaluate({}, IMAGES)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="load the model"):
        flowzoo.evaluate("nice-mnist", IMAGES)


# --- save ---------------------------------------------------------------------------------------------------


def test_a_saved_flow_loads_with_its_fingerprint(tmp_path: Path) -> None:
    flow = conditional()
    path = flowzoo.save(flow, tmp_path / "saved", name="mine", dataset=f"numpy:{tmp_path}/secret/images.npy")
    assert flow.training
    again = flowzoo.load(f"path:{tmp_path / 'saved'}")
    noise = torch.rand(IMAGES.shape)
    assert torch.equal(
        again.log_prob(IMAGES, LABELS, noise=noise), flow.eval().log_prob(IMAGES, LABELS, noise=noise)
    )
    card = json.loads((tmp_path / "saved" / "flowzoo.json").read_text())
    assert card["name"] == "mine"
    assert str(tmp_path) not in json.dumps(card)
    from flowzoo.manifest.schema import Fingerprint

    expected = Fingerprint(**card["fingerprint"])
    assert compare(again, expected).verified
    assert (
        path.read_bytes()
        == flowzoo.save(flow, tmp_path / "other", name="mine", dataset=card["dataset"]).read_bytes()
    )
    half = flowzoo.save(flow, tmp_path / "half", dtype=torch.float16)
    assert half.stat().st_size < 0.7 * path.stat().st_size
    assert compare(
        flowzoo.load(f"path:{tmp_path / 'half'}"),
        Fingerprint(**json.loads((tmp_path / "half" / "flowzoo.json").read_text())["fingerprint"]),
    ).verified


def test_saving_again_replaces_only_what_is_ours(tmp_path: Path) -> None:
    flow = conditional()
    first = flowzoo.save(flow, tmp_path / "saved").read_bytes()
    with torch.no_grad():
        next(flow.parameters()).add_(1.0)
    assert flowzoo.save(flow, tmp_path / "saved").read_bytes() != first
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"holds other files \(thesis.txt\)"):
        flowzoo.save(flow, tmp_path / "own")
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["thesis.txt"]


def test_what_nobody_could_load_is_not_saved(tmp_path: Path) -> None:
    from flowzoo.bijectors import Chain, DiagonalScaling

    with pytest.raises(InputError, match="no architecture built"):
        flowzoo.save(Flow(dims=2, bijector=Chain(DiagonalScaling((2,)))), tmp_path / "saved")
    with pytest.raises(InputError, match="seen no data"):
        flowzoo.save(flowzoo.create("glow-tiny"), tmp_path / "saved")
    with pytest.raises(InputError, match="cannot be a model's name"):
        flowzoo.save(conditional(), tmp_path / "saved", name="../up")
    assert not (tmp_path / "saved").exists()


# --- the loops of the documentation -------------------------------------------------------------------------


def loop(words: str) -> Block:
    [found] = [b for b in blocks("python") if b.page == "docs/training.md" and words in b.text]
    return found


@pytest.mark.parametrize(
    ("words", "package", "directory"),
    [
        ('flowzoo.save(flow, "my-glow"', "torch", "my-glow"),
        ("from accelerate import", "accelerate", "accelerated"),
        ("import lightning", "lightning", "lit"),
    ],
)
def test_the_documented_loops_run(words: str, package: str, directory: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    block = loop(words)
    env = {key: value for key, value in os.environ.items() if not key.startswith("FLOWZOO_")}
    done = subprocess.run(
        (sys.executable, "-c", block.text), cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    flow = flowzoo.load(f"path:{tmp_path / directory}")
    assert flow.is_initialized


def test_the_loop_is_short() -> None:
    lines = [line for line in loop('flowzoo.save(flow, "my-glow"').text.splitlines() if line.strip()]
    assert len(lines) <= 24
