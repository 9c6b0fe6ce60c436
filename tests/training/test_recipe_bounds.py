"""Recipes made to break: every value has a bound, every file an end, and the test images are out of reach."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from flowzoo.errors import ConfigError
from flowzoo.training.plain_values import check_values
from flowzoo.training.recipe import parse_recipe, read_recipe

MINIMAL: dict[str, Any] = {
    "schema": 1,
    "name": "glow-tiny",
    "train": {"steps": 100},
    "schedule": [{"kind": "linear"}],
}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.epochs=inf", "finite"),
        ("train.epochs=nan", "finite"),
        ("train.steps=1000000000", "at most 999999999"),
        ("train.seed=18446744073709551616", "64 bits"),
        ("train.seed=-1", "0 to 2"),
        ("train.clip_norm=inf", "finite"),
        ("train.temperature=nan", "finite"),
        ("optimizer.eps=-1e-8", "optimizer.eps"),
        ("optimizer.eps=nan", "finite"),
        ("optimizer.eps=0", "optimizer.eps"),
        ("optimizer.lr=1e47", "at most 1000"),
        ("optimizer.lr=inf", "finite"),
        ("optimizer.weight_decay=-1", "weight_decay"),
        ("optimizer.weight_decay=1e300", "weight_decay"),
        ("optimizer.betas=[0.9, nan]", "finite"),
        ("schedule.0.start=-1", "schedule.start"),
        ("schedule.0.end=1e30", "schedule.end"),
        ("schedule.0.floor=nan", "finite"),
        ("schedule.0.steps=1000000000", "schedule.steps"),
        ("schedule.²=1", "not an index"),
        ("schedule." + "1" * 5000 + "=1", "not an index"),
        ("model.depth=" + "1" * 5000, "too long"),
        ("model.depth=0x" + "f" * 5000, "64 bits"),
        ("model.depth=" + "[" * 100_000, "too long or nested too deep"),
        ("model.depth=" + "[" * 40 + "]" * 40, "nested more than 16 deep"),
        ("model." + "a." * 100_000 + "b=1", "not key=value"),
        ("data.dataset=numpy:im\udcff.npy", r"'numpy:im\\udcff.npy', which is no text"),
        ("data.split=test", "flowzoo eval"),
        ("data.valid_split=test", "flowzoo eval"),
        ("data.valid_split=train", "have not seen"),
    ],
    ids=lambda value: value[:30],
)
def test_impossible_values_end_in_one_line(setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        parse_recipe(MINIMAL, "recipe", [setting])
    assert len(str(caught.value)) < 500


def test_epochs_are_bounded_by_the_updates_that_they_are() -> None:
    recipe = parse_recipe(MINIMAL, "recipe", ["train.epochs=1e300"])
    with pytest.raises(ConfigError, match="at most 999999999 updates"):
        recipe.train.total_steps(60_000)


def test_the_largest_seed_is_a_seed() -> None:
    assert parse_recipe(MINIMAL, "x", [f"train.seed=0x{'f' * 16}"]).train.seed == 2**64 - 1


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "1" * 5000,
        "a = 0x" + "1" * 5000,
        "a = " + "[" * 60 + "]" * 60,
        ".".join("a" * 400) + " = 1",
        "a = 1e999",
        "x" * (1 << 21),
    ],
    ids=lambda text: text[:12],
)
def test_hostile_files_end_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"recipe\.toml"):
        read_recipe(path)
    assert time.monotonic() - began < 5


def test_pipes_and_devices_are_no_recipes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    for name in ("pipe.toml", "zero.toml"):
        with pytest.raises(ConfigError, match="not a regular file"):
            read_recipe(tmp_path / name)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe(tmp_path)


def test_ordinary_values_pass() -> None:
    check_values({"a": [1, 2.5, "x", None, True, {"b": [[1]]}]}, "x")
