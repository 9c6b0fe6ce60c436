"""Fields that a config gains later leave what was written before them as it was."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from flowzoo.config import config_hash, config_to_dict, extension, parse_config
from flowzoo.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    width: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    width: int = 3
    swap: bool = extension(False)


def test_an_extension_at_its_default_leaves_json_and_hash_alone() -> None:
    old, new = config_to_dict(Before()), config_to_dict(After())
    assert old == new == {"width": 3}
    assert config_hash("a", old) == config_hash("a", new)
    assert parse_config(After, old, "test") == After(swap=False)


def test_an_extension_off_its_default_is_written_and_read() -> None:
    full = config_to_dict(After(swap=True))
    assert full == {"width": 3, "swap": True}
    assert parse_config(After, full, "test") == After(swap=True)
    assert config_hash("a", full) != config_hash("a", config_to_dict(After()))
    with pytest.raises(ConfigError, match="swap"):
        parse_config(After, {"swap": "yes"}, "test")


def test_an_extension_at_its_default_may_be_spelled_out() -> None:
    spelled = parse_config(After, {"width": 3, "swap": False}, "test")
    assert config_to_dict(spelled) == {"width": 3}


@pytest.mark.parametrize("architecture", ["glow", "realnvp", "flowpp"])
def test_every_preset_has_the_json_it_had(architecture: str) -> None:
    from flowzoo.factory import resolve
    from flowzoo.registry import get_architecture

    gained = {"transformed_half", "network_input", "first_conditioner", "network_scales", "learned_bound"}
    for preset in get_architecture(architecture).presets:
        if (architecture, preset) in {("glow", "celeba64"), ("glow", "mnist"), ("glow", "digits")}:
            continue  # Their networks see clamped values since samples overflowed.
        assert not gained & set(config_to_dict(resolve(f"{architecture}-{preset}", {})[2]))
