"""Optimizers by name: arguments, groups of parameters, and resuming bit for bit with each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

import flowzoo
from flowzoo.cli.main import main
from flowzoo.errors import CheckpointError, ConfigError, PluginError
from flowzoo.training.optim import build_optimizer, set_lr, torch_optimizers
from flowzoo.training.provenance import recipe_files, run_stages
from flowzoo.training.run_dir import RunDir
from flowzoo.training.train import build_model, find_recipe, train_flow
from tests.extensions import installed
from tests.trainings import CPU, image_set, save_images, tiny_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from flowzoo.training.recipe import Recipe

IMAGES = (image_set(64), image_set(16, seed=1))
FIT = sorted(torch_optimizers())


class StopAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, training: Any) -> None:
        if training.step == self.step:
            training.stop()


def recipe_with(*sets: str, **train: Any) -> Recipe:
    settings = {
        "steps": 6,
        "validate_every": 6,
        "samples": 0,
        "ema": 0.0,
        "init_images": 16,
        "clip_norm": None,
    }
    return tiny_recipe("nice-tiny", "made-up", *sets, **settings | train)


def run_training(out: Path, recipe: Recipe, **options: Any) -> RunDir:
    train_flow(build_model(recipe), recipe, out, IMAGES, CPU, progress=False, **options)
    return RunDir(out)


def assert_resumes(tmp_path: Path, recipe: Recipe) -> RunDir:
    whole = run_training(tmp_path / "whole", recipe)
    run_training(tmp_path / "parts", recipe, callbacks=[StopAt(3)])
    parts = run_training(tmp_path / "parts", recipe)
    assert parts.last.read_bytes() == whole.last.read_bytes()
    untrained = build_model(recipe).state_dict()
    assert any(not torch.equal(untrained[k], v) for k, v in _weights(whole).items() if k in untrained)
    return whole


def _weights(run: RunDir) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(run.last)


@pytest.mark.parametrize("name", FIT)
def test_every_optimizer_of_torch_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    sets = {"sgd": ["optimizer.momentum=0.9"], "rmsprop": ["optimizer.momentum=0.5"]}.get(name, [])
    run = assert_resumes(tmp_path, recipe_with(f"optimizer.name={name}", *sets))
    [used] = run.header()["used"]
    cls = torch_optimizers()[name].__name__
    assert used == {"kind": "optimizer", "name": cls, "distribution": "torch", "version": torch.__version__}


def test_the_own_optimizer_resumes_bit_for_bit(tmp_path: Path) -> None:
    run = assert_resumes(tmp_path, recipe_with("optimizer.name=Muon-Adam", "optimizer.adam_ratio=0.2"))
    [used] = run.header()["used"]
    assert used == {
        "kind": "optimizer",
        "name": "muon-adam",
        "distribution": "flowzoo",
        "version": flowzoo.__version__,
    }


def test_groups_are_matched_in_order_and_keep_their_rates() -> None:
    recipe = recipe_with("optimizer.weight_decay=0.1")
    model = build_model(recipe)
    groups: tuple[Any, ...] = (
        {"match": "*.bias", "weight_decay": 0.0},
        {"match": "*.0.*", "lr": 0.5, "betas": [0.5, 0.6]},
    )
    optimizer = build_optimizer(recipe.optimizer, model, groups)
    names = {p: name for name, p in model.named_parameters()}
    found = [({names[p] for p in group["params"]}, group) for group in optimizer.param_groups]
    assert sum(len(chosen) for chosen, _ in found) == len(names)
    assert {name for name in names.values() if name.endswith(".bias")} == found[1][0]
    assert all(".0." in name for name in found[2][0])
    assert [group["weight_decay"] for _, group in found] == [0.1, 0.0, 0.1]
    assert [group["betas"] for _, group in found] == [(0.9, 0.999), (0.9, 0.999), (0.5, 0.6)]
    set_lr(optimizer, 0.5)
    assert [group["lr"] for _, group in found] == [0.5e-3, 0.5e-3, 0.25]


def test_a_frozen_group_stays_and_the_run_resumes(tmp_path: Path) -> None:
    groups = [{"match": "*.bias", "lr": 0.0, "weight_decay": 0.0}]
    recipe = recipe_with(groups=groups)
    run = assert_resumes(tmp_path, recipe)
    before, after = build_model(recipe).state_dict(), _weights(run)
    biases = [name for name in after if name.endswith(".bias")]
    assert biases
    assert all(torch.equal(before[name], after[name]) for name in biases)
    [(_, text)] = recipe_files(run_stages(run)).items()
    assert '[[train.groups]]\nmatch = "*.bias"' in text


def test_a_recipe_with_arguments_and_groups_survives_toml() -> None:
    import tomllib

    from flowzoo.training.recipe import parse_recipe
    from flowzoo.training.toml_text import toml_lines

    groups = [{"match": "*.bias", "weight_decay": 0.0}, {"match": "*.0.*", "lr": 0.5}]
    recipe = recipe_with("optimizer.name=SGD", "optimizer.momentum=0.9", groups=groups)
    text = "\n".join(toml_lines(recipe.to_dict()))
    assert "momentum = 0.9" in text
    assert "betas" not in text
    assert parse_recipe(tomllib.loads(text), "again") == recipe


BAD = [
    (["optimizer.name=adan"], "choose one of .*Adafactor.*SGD.*Did you mean 'Adam'"),
    (["optimizer.name=LBFGS"], "evaluates the loss several times"),
    (["optimizer.momentun=0.9"], "optimizer.momentun is no argument of Adam, which knows lr, betas, eps"),
    (["optimizer.name=SGD", "optimizer.betas=[0.9, 0.99]"], "optimizer.betas is no argument of SGD"),
    (
        ["optimizer.name=Rprop", "optimizer.weight_decay=0.1"],
        "optimizer.weight_decay is no argument of Rprop",
    ),
    (["optimizer.name=SGD", "optimizer.momentum=-1"], "SGD of torch .* refuses its arguments: ValueError"),
    (["optimizer.name=Muon"], "matrices alone; muon-adam takes kernels too"),
    (
        ["optimizer.name=muon-adam", "optimizer.betas=[0.9, 1.0]"],
        "betas.1. is 1.0; expected a number from 0 up to 1",
    ),
    (['train.groups=[{match="*.bias", beta=1}]'], "train.groups.0.beta is no argument of Adam"),
    (['train.groups=[{match="*.bais", lr=0}]'], r"'\*.bais' matches no parameter.*names look like"),
    (['train.groups=[{match="*.bias"}]'], "expected a table with match"),
    (['train.groups=[{match="*", lr=-1}]'], r"train.groups.0.lr is -1; expected a number from 0"),
    (['train.groups=[{match="*", lr=0}]', 'optimizer.decay_names="x"'], "not both"),
]


@pytest.mark.parametrize(("sets", "words"), BAD)
def test_wrong_names_and_arguments_are_one_line(sets: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        run_training(tmp_path / "run", recipe_with(*sets))
    assert "\n" not in str(caught.value)


def test_the_command_line_says_it_before_it_reads_data(tmp_path: Path, capsys: Any) -> None:
    sets = ["--set", f"data.dataset={save_images(tmp_path / 'x.npy')}", "--set", "optimizer.name=adan"]
    with pytest.raises(SystemExit) as caught:
        main(["train", "glow-tiny", "--out", str(tmp_path / "run"), *sets])
    assert caught.value.code == 8
    assert "optimizer.name is 'adan'; choose one of" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_entry_points_optimizer_resumes_with_its_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = ("optimizer.name=counting", "optimizer.shrink=0.8")
    with installed(tmp_path / "site", monkeypatch):
        run = assert_resumes(tmp_path, recipe_with(*sets))
        used = {"kind": "optimizer", "name": "counting", "distribution": "extras-made-up", "version": "1.5"}
        assert run.header()["used"] == [used]
        assert run.header()["versions"]["extras-made-up"] == "1.5"
        assert run_stages(run)[-1]["used"] == [used]
        assert json.loads((run.path / "run.json").read_text())["recipe"]["optimizer"]["shrink"] == 0.8
        with pytest.raises(ConfigError, match="knows lr, shrink, weight_decay"):
            run_training(tmp_path / "other", recipe_with(*sets, "optimizer.shrunk=1"))
        with pytest.raises(PluginError, match=r"'gone' of extras-made-up 1.5 cannot be used: AttributeError"):
            run_training(tmp_path / "other", recipe_with("optimizer.name=gone"))
        with pytest.raises(CheckpointError, match="Hoarding keeps a list as"):
            run_training(tmp_path / "other", recipe_with("optimizer.name=hoarding"))
    with pytest.raises(ConfigError, match="'counting'; choose one of"):
        run_training(tmp_path / "parts", recipe_with(*sets))


def test_another_version_is_said_when_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, said = recipe_with("optimizer.name=counting"), list[str]()
    with installed(tmp_path / "old", monkeypatch):
        run_training(tmp_path / "run", recipe, callbacks=[StopAt(2)])
    with installed(tmp_path / "new", monkeypatch, version="2.0"):
        run_training(tmp_path / "run", recipe, say=said.append)
    assert any("extras-made-up was 1.5, is 2.0" in line for line in said)


def test_a_recipe_names_are_found_by_find_recipe(tmp_path: Path) -> None:
    toml = tmp_path / "own.toml"
    toml.write_text(
        'schema = 1\nname = "nice-tiny"\n[data]\ndataset = "mnist"\n[train]\nsteps = 3\n'
        '[[train.groups]]\nmatch = "*.bias"\nweight_decay = 0\n'
        '[optimizer]\nname = "SGD"\nnesterov = true\nmomentum = 0.9\n'
    )
    recipe = find_recipe(str(toml))
    assert recipe.optimizer.arguments == {"nesterov": True, "momentum": 0.9}
    assert recipe.train.groups == ({"match": "*.bias", "weight_decay": 0},)
