"""Schedules, augmentations, objectives and loggers of other distributions, and what a run records of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from click.testing import CliRunner

from flowzoo.cli.main import cli
from flowzoo.data import TrainBatches
from flowzoo.errors import ConfigError, InputError, PluginError
from flowzoo.training.provenance import run_stages
from flowzoo.training.run_dir import RunDir
from flowzoo.training.train import build_model, train, train_flow
from tests.extensions import installed
from tests.trainings import CPU, image_set, save_images, tiny_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from flowzoo.flow import Flow
    from flowzoo.training.recipe import Recipe

IMAGES = (image_set(64), image_set(16, seed=1))
SETS = (
    'schedule=[{kind="sawtooth", teeth=3, low=0.25}]',
    'data.augment=["flip", "invert"]',
    'train.objective="squared"',
)


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with installed(tmp_path / "site", monkeypatch):
        yield tmp_path / "site"


class StopAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, training: Any) -> None:
        if training.step == self.step:
            training.stop()


def recipe_with(*sets: str, **train: Any) -> Recipe:
    settings = {"steps": 6, "validate_every": 6, "samples": 0, "init_images": 16, "log_every": 1}
    return tiny_recipe("nice-tiny", "made-up", *sets, **settings | train)


def run_training(out: Path, recipe: Recipe, **options: Any) -> RunDir:
    train_flow(build_model(recipe), recipe, out, IMAGES, CPU, progress=False, **options)
    return RunDir(out)


def column(run: RunDir, kind: str, key: str) -> list[Any]:
    return [row[key] for row in run.rows() if row["kind"] == kind]


def test_all_of_them_resume_bit_for_bit_and_are_recorded(tmp_path: Path) -> None:
    recipe = recipe_with(*SETS)
    whole = run_training(tmp_path / "whole", recipe)
    run_training(tmp_path / "parts", recipe, callbacks=[StopAt(3)])
    parts = run_training(tmp_path / "parts", recipe)
    assert parts.last.read_bytes() == whole.last.read_bytes()
    assert column(parts, "train", "loss") == column(whole, "train", "loss")
    used = {(one["kind"], one["name"], one["distribution"], one["version"]) for one in whole.header()["used"]}
    assert used == {
        ("optimizer", "Adam", "torch", torch.__version__),
        ("schedule", "sawtooth", "extras-made-up", "1.5"),
        ("augmentation", "invert", "extras-made-up", "1.5"),
        ("objective", "squared", "extras-made-up", "1.5"),
    }
    assert run_stages(whole)[-1]["used"] == whole.header()["used"]


def test_each_of_them_has_its_effect(tmp_path: Path) -> None:
    plain = run_training(tmp_path / "plain", recipe_with('schedule=[{kind="constant"}]', steps=3))
    mine = run_training(
        tmp_path / "mine", recipe_with('schedule=[{kind="sawtooth", teeth=3, low=0.25}]', steps=3)
    )
    lr = 1e-3
    assert column(plain, "train", "lr") == [lr, lr, lr]
    # Three teeth in three updates: each begins anew.
    assert column(mine, "train", "lr") == [pytest.approx(0.25 * lr)] * 3
    squared = run_training(tmp_path / "squared", recipe_with('train.objective="squared"', steps=1))
    assert column(squared, "train", "loss")[0] > 2 * column(plain, "train", "loss")[0]
    first = next(TrainBatches(IMAGES[0], 16, 0))
    inverted = next(TrainBatches(IMAGES[0], 16, 0, augment="invert"))
    assert torch.equal(inverted.images[1::2], first.images[1::2])
    assert torch.equal(inverted.images[::2], 255 - first.images[::2])


def test_a_processs_share_is_augmented_as_in_the_joint_batch() -> None:
    joint = next(TrainBatches(IMAGES[0], 16, 0, augment="invert")).images
    shares = [
        next(TrainBatches(IMAGES[0], 16, 0, augment="invert", rank=r, world_size=2)).images for r in (0, 1)
    ]
    assert torch.equal(torch.cat(shares), joint)


BAD: list[tuple[str, type[Exception], str]] = [
    ('schedule=[{kind="cosin"}]', ConfigError, "kind is 'cosin'; choose one of .*sawtooth.*Did you mean 'cosine'"),
    ('schedule=[{kind="sawtooth", tooth=1}]', ConfigError, "unexpected keyword argument 'tooth'; it knows teeth, low"),
    ('schedule=[{kind="negative"}]', PluginError, "'negative' of extras-made-up 1.5 gives -1.0 at step 0 of 6"),
    ('data.augment=["invrt"]', ConfigError, "data.augment is 'invrt'; choose one of flip, invert"),
    ('data.augment=["to-float"]', PluginError, "'to-float' .* gives torch.float32 .*; expected torch.uint8"),
    ('train.objective="cubed"', ConfigError, "train.objective is 'cubed'; choose one of .*squared"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "error", "words"), BAD)
def test_faults_are_one_line(text: str, error: type[Exception], words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words) as caught:
        run_training(tmp_path / "run", recipe_with(text))
    assert "\n" not in str(caught.value)


def scaled(flow: Flow, log_prob: Any, x: Tensor, noise: Tensor, y: Tensor | None) -> Tensor:
    return 3 * flow.per_dim(log_prob(x, noise, y))


def summed(flow: Flow, log_prob: Any, x: Tensor, noise: Tensor, y: Tensor | None) -> Tensor:
    return flow.per_dim(log_prob(x, noise, y)).sum()


def test_an_objective_of_the_program_is_part_of_the_recipe(tmp_path: Path) -> None:
    dataset = save_images(tmp_path / "images.npy", 300)
    recipe = tiny_recipe("nice-tiny", dataset, steps=4, validate_every=4, samples=0, log_every=1)
    options: dict[str, Any] = {"device": "cpu", "progress": False}
    train(recipe, tmp_path / "plain", **options)
    train(recipe, tmp_path / "run", objective=scaled, callbacks=[StopAt(2)], **options)
    run, plain = RunDir(tmp_path / "run"), RunDir(tmp_path / "plain")
    assert column(run, "train", "loss")[0] == pytest.approx(3 * column(plain, "train", "loss")[0])
    assert run.header()["recipe"]["train"]["objective"] == f"python:{__name__}.scaled"
    with pytest.raises(ConfigError, match=r"differ in train\.objective"):
        train(recipe, tmp_path / "run", **options)
    with pytest.raises(ConfigError, match="a function of the program that started the run"):
        train(run.recipe(), tmp_path / "run", **options)
    assert train(recipe, tmp_path / "run", objective=scaled, **options).state == "finished"
    with pytest.raises(InputError, match=r"objective summed gave a tensor \(\); expected .* \(16,\)"):
        train(recipe, tmp_path / "summed", objective=summed, **options)


def test_a_logger_is_named_on_the_command_line(tmp_path: Path) -> None:
    dataset = save_images(tmp_path / "images.npy", 300)
    sets = [f"data.dataset={dataset}", "model.image_shape=[1,8,8]", "train.steps=4", "train.samples=0"]
    command = ["train", "nice-tiny", "--out", str(tmp_path / "run"), "--device", "cpu", "--logger", "lines"]
    command += [part for text in sets for part in ("--set", text)]
    result = CliRunner().invoke(cli, command, standalone_mode=False)
    assert result.exception is None, result.output
    lines = (tmp_path / "run" / "lines.txt").read_text().splitlines()
    wanted = [
        f"{row['kind']} {row['step']}" for row in RunDir(tmp_path / "run").rows() if row["kind"] != "header"
    ]
    assert lines == wanted
    assert any(line.startswith("valid ") for line in lines)
    with pytest.raises(ConfigError, match="logger is 'line'; choose one of lines, tensorboard"):
        train(tiny_recipe("nice-tiny", dataset), tmp_path / "other", loggers=["line"], device="cpu")
