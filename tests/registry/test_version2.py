"""What version 2 adds to the contract: vectors, labels, and the table of it in docs/plugins.md."""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from flowzoo.api import Architecture, Preset
from flowzoo.cli.main import cli
from flowzoo.config import data_shape
from flowzoo.errors import ConfigError
from flowzoo.factory import create, resolve
from flowzoo.flow import Flow
from flowzoo.registry import PluginState, get_plugin
from flowzoo.testing import run_conformance
from flowzoo.testing.checks_contract import meta_build
from flowzoo.testing.subject import Subject
from tests.plugin_factory import Distribution, plugin_source

GUIDE = Path(__file__).parents[2] / "docs" / "plugins.md"
CONFIG = """
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Config:
        dims: int | None = None
        image_shape: tuple[int, int, int] | None = None
        n_bits: int = 8
        classes: int = 0
"""
MODEL = """
    from flowzoo.bijectors import AffineCoupling, Chain, Flatten, InterleavedFeatures, ScaleMap, Standardize
    from flowzoo.flow import Flow
    from flowzoo.nets.mlp import MLP

    def build(config):
        dims = config.dims or config.image_shape[0] * config.image_shape[1] * config.image_shape[2]
        sizes = dims - dims // 2, dims // 2
        couplings = [
            AffineCoupling(
                InterleavedFeatures(swap),
                MLP(sizes[swap] + config.classes, (8,), 2 * sizes[not swap], 0.1),
                ScaleMap("clamp2", sizes[not swap]),
            )
            for swap in (False, True)
        ]
        classes = config.classes or None
        if config.dims is None:
            stack = Chain(Flatten(config.image_shape), *couplings)
            return Flow(image_shape=config.image_shape, n_bits=config.n_bits, bijector=stack, classes=classes)
        return Flow(dims=dims, bijector=Chain(Standardize(dims), *couplings), classes=classes)
"""
PRESETS = """{
    "tiny": Preset(summary="points", config={"dims": 2}, dataset="points:two-moons"),
    "labelled": Preset(summary="points with labels", config={"dims": 3, "classes": 10}, labels=10),
    "images": Preset(summary="images", config={"image_shape": (1, 8, 8)}),
}"""


def points(presets: str = PRESETS) -> Distribution:
    """A plugin over vectors and images."""
    source = textwrap.dedent(plugin_source("swarm", "zoo_swarm", api_version=2))
    source = re.sub(r"presets=\{.*\},", f"presets={presets},", source)
    files = {"plugin.py": source, "config.py": CONFIG, "model.py": MODEL}
    return Distribution("zoo-swarm", {"swarm": "zoo_swarm.plugin:ARCHITECTURE"}, files)


def test_a_plugin_of_vectors_is_ok_builds_and_passes_the_kit(install: Callable[..., None]) -> None:
    install(points())
    assert get_plugin("swarm").state is PluginState.OK
    flow = create("swarm-tiny")
    assert isinstance(flow, Flow) and flow.data_shape == (2,) and flow.data_kind == "vectors"
    assert flow.log_prob(torch.randn(3, 2)).shape == (3,)
    assert [(check, detail) for check, passed, detail in run_conformance("swarm") if not passed] == []


def test_presets_of_vectors_and_labels_are_listed(install: Callable[..., None]) -> None:
    install(points())
    rows = {
        r["preset"]: r for r in json.loads(CliRunner().invoke(cli, ["list", "--presets", "--json"]).stdout)
    }
    assert rows["swarm-tiny"]["data"] == "points:two-moons"
    assert (rows["swarm-tiny"]["labels"], rows["swarm-labelled"]["labels"]) == (None, 10)
    shown = CliRunner().invoke(cli, ["info", "swarm-labelled", "--stack"])
    assert shown.exit_code == 0, shown.output
    assert re.search(r"^labels +10$", shown.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dims": 0}, "dims"), ({"dims": -1}, "dims"), ({"dims": 2**40}, "dims"), ({"dims": True}, "dims"),
        ({"dims": None}, "neither image_shape nor dims"), ({"dims": "2"}, "dims"),
    ],
)  # fmt: skip
def test_vectors_that_cannot_exist_are_refused(
    install: Callable[..., None], change: dict[str, Any], said: str
) -> None:
    install(points())
    with pytest.raises(ConfigError, match=said):
        create("swarm-tiny", device="meta", **change)


def test_the_shape_of_the_data_is_that_of_the_config(install: Callable[..., None]) -> None:
    install(points())
    _, _, config = resolve("swarm-images", {})
    assert data_shape(config) == data_shape({"image_shape": [1, 8, 8]}) == (1, 8, 8)
    assert data_shape(resolve("swarm-tiny", {})[2]) == data_shape({"dims": 2}) == (2,)
    with pytest.raises(ConfigError, match="n_bits"):
        create("swarm-images", n_bits=9)


def test_a_preset_that_says_other_labels_than_its_flow_takes_fails_the_kit(
    install: Callable[..., None],
) -> None:
    install(points(PRESETS.replace("labels=10", "labels=9")))
    with pytest.raises(AssertionError, match="10 classes, its preset says 9"):
        meta_build(Subject("swarm"))


@pytest.mark.parametrize("labels", ["1", "-3", "True", "'ten'"])
def test_labels_that_are_no_number_of_classes_break_the_plugin(
    install: Callable[..., None], labels: str
) -> None:
    install(points(PRESETS.replace("labels=10", f"labels={labels}")))
    plugin = get_plugin("swarm")
    assert plugin.state is PluginState.BROKEN and "labels" in plugin.cause


def table(name: str) -> str:
    """The rows of a table of the contract."""
    text = GUIDE.read_text(encoding="utf-8")
    return text.partition(f"| `{name}` | type | meaning |")[2].partition("\n\n")[0]


@pytest.mark.parametrize("kind", [Architecture, Preset])
def test_the_contracts_table_in_the_guide_has_every_field_and_its_type(kind: type[Any]) -> None:
    text = (
        GUIDE.read_text(encoding="utf-8")
        .partition(f"| `{kind.__name__}` | type | meaning |")[2]
        .partition("\n\n")[0]
    )
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \| .* \|$", text, re.MULTILINE))
    fields = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    assert {name: found.replace("\\|", "|") for name, found in rows.items()} == fields


def test_the_contracts_table_of_a_flow_names_what_it_has() -> None:
    text = table("Flow")
    names = re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in text.strip().splitlines()[1:]))
    assert len(names) > 8
    assert [name for name in names if not hasattr(create("nice-tiny"), name)] == []
