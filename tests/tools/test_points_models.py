"""Every architecture has a model of points or a reason for none, and the reason is true."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import flowzoo
from flowzoo.errors import ConfigError
from flowzoo.manifest.read import Entry, parse
from tools.families import FAMILIES
from tools.points_models import REASONS, points_models

ROOT = Path(__file__).parents[2]
MANIFEST = parse((ROOT / "weights_manifest.json").read_text(encoding="utf-8"), "weights_manifest.json")
ENTRIES = [entry for name in MANIFEST.names() if (entry := MANIFEST.default(name)) is not None]


def of_points(entry: Entry) -> bool:
    return entry.weights is not None and entry.config.get("image_shape") is None


def test_each_architecture_has_a_model_of_points_or_a_reason() -> None:
    shipped = {entry.architecture for entry in ENTRIES if of_points(entry)}
    every = {name for members in FAMILIES.values() for name in members}
    assert shipped | set(REASONS) == every
    assert not shipped & set(REASONS)
    page = points_models(ENTRIES)
    assert [name for name in REASONS if f"| {name} | {REASONS[name]}" not in page] == []
    assert "No reason was stated" not in page
    for entry in ENTRIES:
        assert (f"(models/{entry.name}.md)" in page) == of_points(entry), entry.name


@pytest.mark.parametrize("name", REASONS)
def test_it_cannot_be_built_for_vectors(name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'dims'\. Known keys: image_shape"):
        flowzoo.create(name, dims=2)


def test_an_architecture_that_takes_vectors_and_has_no_weights_says_so() -> None:
    bare = [
        dataclasses.replace(entry, weights=None) if entry.architecture == "naf" else entry
        for entry in ENTRIES
    ]
    assert "| naf | Takes vectors; no model of points has weights yet. |" in points_models(bare)
    assert points_models([entry for entry in ENTRIES if entry.architecture == "nice"]) == ""
