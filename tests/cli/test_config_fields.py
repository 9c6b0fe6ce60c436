"""``flowzoo info ARCH`` lists the fields of a config: type, default and meaning, from its docstring."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
from click.testing import CliRunner

from flowzoo.cli.main import cli
from flowzoo.config_fields import config_fields
from flowzoo.registry import config_class, list_architectures
from tests.plugin_factory import CONFIG, good


@dataclass(frozen=True)
class Inner:
    """A part.

    Attributes:
        width: How wide.
    """

    width: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    """A config with every kind of field.

    It has a paragraph: with a colon.

    Attributes:
        dims: Length of a vector; this meaning
            goes on: in a second line.
        mode (str): One of two.
        sizes: Several.
        limit: A number or nothing.
        part: A config inside.

    Example:
        nothing: at all
    """

    dims: int
    mode: Literal["a", "b"] = "a"
    sizes: tuple[float, ...] = (1.0, 2.0)
    limit: int | None = None
    part: Inner = field(default_factory=Inner)
    unsaid: bool = True


def test_types_defaults_and_meanings() -> None:
    assert [dataclasses.astuple(found) for found in config_fields(Everything)] == [
        ("dims", "int", True, None, "Length of a vector; this meaning goes on: in a second line."),
        ("mode", "'a' | 'b'", False, "a", "One of two."),
        ("sizes", "tuple[float, ...]", False, [1.0, 2.0], "Several."),
        ("limit", "int | None", False, None, "A number or nothing."),
        ("part", "Inner", False, {"width": 3}, "A config inside."),
        ("part.width", "int", False, 3, "How wide."),
        ("unsaid", "bool", False, True, ""),
    ]


@pytest.mark.parametrize("name", list_architectures())
def test_every_field_of_an_architecture_that_ships_has_a_meaning(name: str) -> None:
    found = config_fields(config_class(name))
    assert {f.name for f in found if "." not in f.name} == {
        f.name for f in dataclasses.fields(config_class(name))
    }
    assert [f.name for f in found if not f.meaning] == []


def test_info_shows_them_in_a_table_and_as_json() -> None:
    lines = CliRunner().invoke(cli, ["info", "glow"]).stdout.splitlines()
    [depth] = [line for line in lines if line.startswith("depth ")]
    assert depth.split(maxsplit=3) == ["depth", "int", "required", "K, steps of flow per level."]
    found = json.loads(CliRunner().invoke(cli, ["info", "glow", "--json"]).stdout)["config_fields"]
    by_name = {row["name"]: row for row in found}
    assert by_name["hidden_channels"]["default"] == 512 and not by_name["hidden_channels"]["required"]
    assert by_name["image_shape"] == {
        "name": "image_shape", "type": "tuple[int, int, int]", "required": True, "default": None,
        "meaning": "``(C, H, W)``; H and W divisible by 2 once per level.",
    }  # fmt: skip


def test_annotations_that_cannot_be_read_are_the_plugins_fault(install: object) -> None:
    made = good("waves")
    source = CONFIG.replace("hidden: int = 8", "hidden: NoSuchType = 8")
    made = dataclasses.replace(
        made, files={**made.files, "config.py": f"    from __future__ import annotations\n{source}"}
    )
    install(made)  # type: ignore[operator]
    result = CliRunner().invoke(cli, ["info", "waves"], standalone_mode=False)
    assert result.exception is not None and "zoo-waves" in str(result.exception)
    assert "NoSuchType" in str(result.exception)


def test_an_architecture_of_vectors_is_created_by_its_length(install: object) -> None:
    made = good("points")
    config = CONFIG.replace("image_shape: tuple[int, int, int]", "dims: int").replace("n_bits: int = 8", "")
    plugin = made.files["plugin.py"].replace('"image_shape": (1, 8, 8)', '"dims": 2')
    files = made.files | {"config.py": config, "plugin.py": plugin}
    install(dataclasses.replace(made, files=files))  # type: ignore[operator]
    found = json.loads(CliRunner().invoke(cli, ["info", "points", "--json"]).stdout)
    assert found["create"] == 'flowzoo.create("points", dims=D, ...)'
    assert json.loads(CliRunner().invoke(cli, ["info", "points-tiny", "--json"]).stdout)["config"] == {
        "dims": 2, "hidden": 8,
    }  # fmt: skip
