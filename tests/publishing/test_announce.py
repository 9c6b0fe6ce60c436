"""The manifest's entries without weights are what the plugins' presets and the data catalogue say."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowzoo.config import config_hash, config_to_dict
from flowzoo.factory import resolve
from flowzoo.manifest.read import parse
from flowzoo.manifest.schema import Entry
from flowzoo.registry import get_architecture
from tools.announce import announced

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = parse((ROOT / "weights_manifest.json").read_text(encoding="utf-8"), "weights_manifest.json")
UNPUBLISHED = [entry for entry in MANIFEST.entries if entry.status == "unpublished"]
RENEW = "run: python -m tools.announce && make docs"


@pytest.mark.parametrize("entry", UNPUBLISHED, ids=lambda entry: entry.name)
def test_an_entry_without_weights_is_its_preset(entry: Entry) -> None:
    architecture, preset, config = resolve(entry.name, {})
    assert preset is not None
    assert entry.architecture == architecture.name
    assert dict(entry.config) == config_to_dict(config), RENEW
    assert entry.config_hash == config_hash(architecture.name, config), RENEW
    assert entry.published == preset.published, RENEW


@pytest.mark.parametrize("name", ["nice", "realnvp", "glow", "flowpp"])
def test_every_published_configuration_is_listed(name: str) -> None:
    presets = get_architecture(name).presets
    published = {f"{name}-{preset}" for preset in presets if presets[preset].published is not None}
    assert published <= set(MANIFEST.names()), RENEW


def test_announcing_again_changes_nothing() -> None:
    for entry in announced(get_architecture("nice")):
        listed = MANIFEST.get(entry.name)
        assert listed.status != "unpublished" or listed == entry, RENEW
