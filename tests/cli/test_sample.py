"""``flowzoo sample`` says which temperature it used, and so does the grid."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from flowzoo.cli.main import cli
from flowzoo.errors import InputError
from flowzoo.manifest.read import load_manifests

ROOT = Path(__file__).parents[2]
MODELS = [e for e in load_manifests().entries if e.weights is not None and e.config.get("image_shape")]


@pytest.mark.parametrize(
    ("options", "temperature", "why"),
    [
        ([], "0.8", "recommends"),
        (["--temperature", "0.5"], "0.5", "asked"),
        (["--temperature", "0"], "0", "asked"),
    ],
)
def test_the_temperature_is_said(tmp_path: Path, options: list[str], temperature: str, why: str) -> None:
    out = tmp_path / "grid.png"
    arguments = ["sample", "nice-mnist", "-n", "4", "-o", str(out), *options]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert result.exception is None, result.output
    assert result.stdout == f"{out}\n"
    assert f"Temperature {temperature}," in result.stderr and why in result.stderr
    with Image.open(out) as grid:
        assert grid.info["temperature"] == temperature


def test_a_label_is_refused_before_anything_is_said(tmp_path: Path) -> None:
    arguments = ["sample", "nice-mnist", "--label", "3", "-o", str(tmp_path / "grid.png")]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert isinstance(result.exception, InputError)
    assert "labels were given to a flow that has none" in str(result.exception)
    assert result.output == ""


@pytest.mark.parametrize("entry", MODELS, ids=lambda entry: entry.name)
def test_every_grid_of_the_zoo_states_the_recommended_temperature(entry: object) -> None:
    with Image.open(ROOT / "docs" / "images" / f"{entry.name}.png") as grid:  # type: ignore[attr-defined]
        assert grid.info["temperature"] == f"{entry.recommended_temperature or 1:g}"  # type: ignore[attr-defined]
