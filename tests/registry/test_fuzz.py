"""A thousand flipped bytes in a shipped weights file are caught a thousand times."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest
import torch

from flowzoo.errors import IntegrityError
from flowzoo.factory import create
from flowzoo.manifest.read import load_manifests
from flowzoo.manifest.schema import Entry
from flowzoo.weights.hub import hub_settings
from flowzoo.weights.resolve import local_copies, locate
from tests.probe import entry, save


def smallest_shipped() -> tuple[Entry, bytes] | None:
    """The smallest weights file inside an installed plugin, and its entry."""
    found = [
        (listed, path)
        for listed in load_manifests().entries
        for source, path in local_copies(listed, hub_settings())
        if source == "plugin"
    ]
    smallest = min(found, key=lambda pair: pair[1].stat().st_size, default=None)
    return smallest and (smallest[0], smallest[1].read_bytes())


def made_here(directory: Path) -> tuple[Entry, bytes]:
    """A model of a real architecture where no plugin ships weights."""
    torch.manual_seed(0)
    flow = create("glow-tiny")
    flow.initialize(torch.randint(0, 256, (32, *flow.image_shape), dtype=torch.uint8))
    weights = save(flow, directory / "made.safetensors")
    return entry(flow, weights), (directory / "made.safetensors").read_bytes()


def test_a_thousand_flipped_bytes_are_caught_a_thousand_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, content = smallest_shipped() or made_here(tmp_path)
    assert listed.weights is not None
    monkeypatch.setenv("FLOWZOO_WEIGHTS_DIR", str(tmp_path))
    place = tmp_path / f"{listed.weights.sha256}.safetensors"
    place.write_bytes(content)
    hub = hub_settings()
    assert locate(listed, hub) == place
    draw = random.Random(0)
    header_end = 8 + struct.unpack("<Q", content[:8])[0]
    caught = 0
    with place.open("r+b", buffering=0) as file:
        for number in range(1000):
            # Every other flip is in the header, which is a small part of the file.
            position = draw.randrange(header_end) if number % 2 else draw.randrange(header_end, len(content))
            os.pwrite(file.fileno(), bytes([content[position] ^ draw.randrange(1, 256)]), position)
            with pytest.raises(IntegrityError, match="expected sha256"):
                locate(listed, hub)
            caught += 1
            os.pwrite(file.fileno(), content[position : position + 1], position)
    assert caught == 1000
    assert locate(listed, hub) == place
