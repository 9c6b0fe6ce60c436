"""A Flow++ config: the values that it accepts and refuses, and their meaning."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest
from flowzoo_flowpp.config import FlowppConfig, parse_groups
from flowzoo_flowpp.plugin import ARCHITECTURE

from flowzoo.config import config_to_dict, parse_config
from flowzoo.errors import ConfigError

TINY = ARCHITECTURE.presets["tiny"].config


@pytest.mark.parametrize("name", ARCHITECTURE.presets)
def test_presets_survive_json(name: str) -> None:
    config = parse_config(FlowppConfig, ARCHITECTURE.presets[name].config, name)
    text = json.dumps(config_to_dict(config))
    assert parse_config(FlowppConfig, json.loads(text), name) == config


def test_shapes_follow_the_groups() -> None:
    groups = parse_groups(("columns:1", "squeeze", "channel:2", "factor", "channel:1"), (3, 8, 8), "groups")
    assert [(group.shape, group.half) for group in groups] == [
        ((3, 8, 8), (3, 8, 4)),
        ((3, 8, 8), (1, 8, 8)),
        ((12, 4, 4), (6, 4, 4)),
        ((12, 4, 4), (6, 4, 4)),
        ((6, 4, 4), (3, 4, 4)),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": ["chequers:2"]}, "'chequers:2' is not understood"),
        ({"groups": ["channel"]}, "'channel' is not understood"),
        ({"groups": ["columns:0"]}, "'columns:0' is not understood"),
        ({"groups": ["channel:2"]}, "needs an even number of channels, and 1x8x8"),
        ({"groups": ["squeeze", "squeeze", "squeeze", "squeeze"]}, "needs even height and width, and 64x1x1"),
        ({"groups": ["squeeze"]}, "hold no coupling"),
        ({"heads": 3}, "heads is 3; it must divide filters"),
        ({"context_heads": 5}, "context_heads is 5; it must divide context_channels"),
        ({"components": 0}, "components must be positive"),
        ({"alpha": 0.5}, "alpha is 0.5"),
        ({"n_bits": 9}, "n_bits is 9"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dequantization_groups": ["columns:2", "squeeze"]}, "squeezes first"),
        ({"dequantization_groups": ["squeeze", "factor", "channel:2"]}, "no 'factor'"),
        ({"dequantization_groups": ["squeeze"]}, "at least one group of couplings"),
        ({"dequantization_groups": ["squeeze", "channel:2", "columns:2"]}, "share one context"),
        ({"netwerk": "conv"}, "unknown key 'netwerk'"),
    ],
)
def test_impossible_configs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(FlowppConfig, {**TINY, **change}, "test")


def test_a_uniform_model_ignores_what_its_dequantizer_would_need() -> None:
    change = {"dequantization": "uniform", "dequantization_groups": []}
    assert parse_config(FlowppConfig, {**TINY, **change}, "test").dequantization == "uniform"


def test_plain_convolutions_need_no_number_of_heads() -> None:
    assert parse_config(FlowppConfig, {**TINY, "network": "conv", "filters": 9}, "test").filters == 9


def test_the_config_is_frozen() -> None:
    config = parse_config(FlowppConfig, TINY, "test")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.filters = 1  # type: ignore[misc]


def test_metadata_and_config_import_no_torch() -> None:
    code = "import sys, flowzoo_flowpp.plugin, flowzoo_flowpp.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
