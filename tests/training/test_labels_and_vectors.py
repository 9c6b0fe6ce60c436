"""Trainings of conditional flows and of densities over vectors: losses, labels left out, columns, resuming."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from flowzoo.bijectors import AffineCoupling, Chain, InterleavedFeatures, ScaleMap
from flowzoo.cli.main import cli
from flowzoo.data import Batch, ImageSet, TrainBatches, VectorSet
from flowzoo.errors import ConfigError, InputError
from flowzoo.flow import Flow
from flowzoo.labels import Labels
from flowzoo.nets.mlp import MLP
from flowzoo.training.export import run_summary
from flowzoo.training.run_dir import RunDir
from flowzoo.training.step import gradient_step
from flowzoo.training.train import build_model, train_flow
from flowzoo.training.validation import validate
from tests.trainings import CPU, made_up_images, tiny_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from flowzoo.training.recipe import Recipe

K = 3


def labelled(count: int, seed: int, split: str) -> ImageSet:
    """Images whose brightness is their label."""
    labels = torch.randint(0, K, (count,), generator=torch.Generator().manual_seed(seed))
    images = made_up_images(count, (3, 8, 8), seed) // 4 + (60 * labels[:, None, None, None]).to(torch.uint8)
    return ImageSet(images, id="bright", split=split, labels=labels)


DATA = labelled(96, 0, "train"), labelled(32, 1, "valid")


def labels_recipe(*sets: str, **train: Any) -> Recipe:
    settings = {"steps": 6, "validate_every": 6, "samples": 0, "log_every": 1, "ema": 0.0, "init_images": 32}
    model = ["model.image_shape=[3,8,8]", f"model.classes={K}", "data.labels=true"]
    return tiny_recipe("glow-tiny", "made-up", *model, *sets, **settings | train)


class StopAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, training: Any) -> None:
        if training.step == self.step:
            training.stop()


def run_training(
    out: Path, recipe: Recipe, data: Any = DATA, flow: Flow | None = None, **options: Any
) -> RunDir:
    train_flow(flow or build_model(recipe), recipe, out, data, CPU, progress=False, **options)
    return RunDir(out)


def column(run: RunDir, kind: str, key: str) -> list[Any]:
    return [row[key] for row in run.rows() if row["kind"] == kind]


def test_a_conditional_flow_is_trained_and_validated_on_x_given_y(tmp_path: Path) -> None:
    recipe = labels_recipe()
    flow = build_model(recipe)
    run = run_training(tmp_path / "run", recipe, flow=flow)
    flow.eval()
    given, marginal = validate(flow, DATA[1], CPU, labels=True).value, validate(flow, DATA[1], CPU).value
    assert column(run, "valid", "bpd") == [pytest.approx(given, abs=1e-6)]
    assert abs(given - marginal) > 1e-4
    run_training(tmp_path / "parts", recipe, callbacks=[StopAt(3)])
    assert run_training(tmp_path / "parts", recipe).last.read_bytes() == run.last.read_bytes()


def dropped(batch: Batch, recipe: Recipe) -> torch.Tensor:
    """The labels that an update sees."""
    step = gradient_step(build_model(recipe), recipe, CPU)
    return torch.cat([y for _, _, y in step.parts(batch) if y is not None])


def with_dropout(share: float, **train: Any) -> Recipe:
    return labels_recipe(f"train.label_dropout={share}", **train)


def dropout_model(recipe: Recipe) -> Flow:
    """A conditional flow that models items without a label as well."""
    flow = build_model(recipe)
    flow.labels = Labels(K, dropout=True)
    return flow


def test_which_labels_are_left_out_is_a_function_of_seed_step_and_place() -> None:
    recipe, batches = with_dropout(0.4), TrainBatches(DATA[0], 16, 0)
    first, second = next(batches), next(batches)
    y = dropped(first, recipe)
    assert set(y.tolist()) > {-1}
    assert torch.equal(y[y >= 0], first.labels[y >= 0])  # type: ignore[index]
    assert torch.equal(dropped(first, recipe), y)
    assert torch.equal(dropped(first, with_dropout(0.4, accumulate=4)), y)
    assert not torch.equal(dropped(second, recipe) < 0, y < 0)
    assert not torch.equal(dropped(first, with_dropout(0.4, seed=1)) < 0, y < 0)
    shares = [next(TrainBatches(DATA[0], 16, 0, rank=r, world_size=2)) for r in (0, 1)]
    assert torch.equal(torch.cat([dropped(share, recipe) for share in shares]), y)
    many = TrainBatches(DATA[0], 96, 0)
    wide = with_dropout(0.4, batch_size=96)
    share_of_all = torch.cat([dropped(next(many), wide) for _ in range(20)]).lt(0).double().mean()
    assert float(share_of_all) == pytest.approx(0.4, abs=4 * math.sqrt(0.24 / 1920))


def test_dropped_labels_resume_bit_for_bit(tmp_path: Path) -> None:
    recipe = with_dropout(0.5)
    whole = run_training(tmp_path / "whole", recipe, flow=dropout_model(recipe))
    run_training(tmp_path / "parts", recipe, flow=dropout_model(recipe), callbacks=[StopAt(2)])
    parts = run_training(tmp_path / "parts", recipe, flow=dropout_model(recipe))
    assert parts.last.read_bytes() == whole.last.read_bytes()
    without = run_training(tmp_path / "without", labels_recipe(), flow=dropout_model(labels_recipe()))
    assert column(without, "train", "loss") != column(whole, "train", "loss")


BAD: list[tuple[list[str], type[Exception], str]] = [
    (["model.classes=0"], ConfigError, "data.labels is true, and glow-tiny has no classes"),
    (["model.classes=2"], InputError, "has labels up to 2; glow-tiny has 2 classes, 0 to 1"),
    (["train.label_dropout=0.1"], ConfigError, "models nothing without a label"),
    (["train.label_dropout=1.5"], ConfigError, "label_dropout is 1.5; expected a share"),
    (["data.labels=false", "train.label_dropout=0.1"], ConfigError, "label_dropout needs labels"),
]


@pytest.mark.parametrize(("sets", "error", "words"), BAD)
def test_labels_that_do_not_fit_are_refused(
    sets: list[str], error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        run_training(tmp_path / "run", labels_recipe(*sets))
    assert not (tmp_path / "run").exists()


def test_data_without_labels_are_refused(tmp_path: Path) -> None:
    bare = tuple(ImageSet(found[:], id="bare", split=found.split) for found in DATA)
    with pytest.raises(InputError, match="'bare' has no labels"):
        run_training(tmp_path / "run", labels_recipe(), bare)


def test_a_run_goes_on_with_the_same_labels_only(tmp_path: Path) -> None:
    recipe = labels_recipe()
    run_training(tmp_path / "run", recipe, max_seconds=0)
    labels = DATA[0].needed_labels().flip(0)
    other = ImageSet(DATA[0][:], id=DATA[0].id, split="train", labels=labels), DATA[1]
    with pytest.raises(InputError, match="other training images: labels was"):
        run_training(tmp_path / "run", recipe, other)


# --- vectors ------------------------------------------------------------------------------------------------


def points(count: int, seed: int, split: str) -> VectorSet:
    """A normal density of scale 0.05, so that its nats are negative."""
    draws = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return VectorSet(0.05 * draws + 1.0, id="narrow", split=split)


POINTS = points(256, 0, "train"), points(200, 1, "valid")


def vector_flow() -> Flow:
    torch.manual_seed(0)
    couplings = [
        AffineCoupling(InterleavedFeatures(swap), MLP(1, (16,), 2, 0.1), ScaleMap("exp", 1))
        for swap in (False, True)
    ]
    return Flow(dims=2, bijector=Chain(*couplings))


def vector_recipe(**train: Any) -> Recipe:
    settings = {"steps": 200, "validate_every": 100, "samples": 0, "log_every": 10, "batch_size": 64}
    settings |= {"ema": 0.0, "clip_norm": 5.0}
    return tiny_recipe("vectors", "narrow", "optimizer.lr=0.03", **settings | train)


def test_a_density_is_trained_in_nats_per_dimension(tmp_path: Path) -> None:
    recipe, said = vector_recipe(), list[str]()
    run = run_training(tmp_path / "run", recipe, POINTS, vector_flow(), say=said.append)
    figures = column(run, "valid", "nats_per_dim")
    entropy = 0.5 * math.log(2 * math.pi * math.e) + math.log(0.05)
    assert figures[-1] == pytest.approx(entropy, abs=0.25)
    assert figures[-1] < figures[0] < 0
    assert not any("bpd" in row for row in run.rows())
    assert "nats/dim" in said[-1]
    summary = run_summary(run.path)
    assert summary["best_bpd"] is None
    assert summary["best_nats_per_dim"] == min(figures)
    assert json.loads(json.dumps(summary))
    assert run.curve.is_file()
    result = CliRunner().invoke(cli, ["runs", str(tmp_path)], standalone_mode=False)
    assert f"{min(figures):.4f} nats" in result.output


def test_a_density_resumes_bit_for_bit(tmp_path: Path) -> None:
    recipe = vector_recipe(steps=20, validate_every=20)
    whole = run_training(tmp_path / "whole", recipe, POINTS, vector_flow())
    run_training(tmp_path / "parts", recipe, POINTS, vector_flow(), callbacks=[StopAt(7)])
    parts = run_training(tmp_path / "parts", recipe, POINTS, vector_flow())
    assert parts.last.read_bytes() == whole.last.read_bytes()
    assert any(bool((tensor != 0).any()) for tensor in load_file(parts.last).values())


def test_images_for_a_density_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is for vectors; bright holds images"):
        run_training(tmp_path / "run", vector_recipe(), DATA, vector_flow())
    wide = VectorSet(torch.randn(80, 5), id="wide", split="train")
    with pytest.raises(InputError, match=r"for vectors \(2,\); wide has \(5,\)"):
        run_training(tmp_path / "run", vector_recipe(), (wide, wide), vector_flow())


def test_a_small_density_is_drawn_at_each_validation(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = run_training(
        tmp_path / "run", vector_recipe(steps=2, validate_every=2, samples=4), POINTS, vector_flow()
    )
    assert [path.name for path in run.samples.iterdir()] == ["000000002.png"]
