"""A real plugin for tests, made in a directory: an architecture, a manifest, and models to load.

The architecture ``probe`` is two additive couplings on small images. Its distribution is found like any
installed one: the directory goes on ``sys.path`` here, on PYTHONPATH for a command.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowzoo.config import config_hash
from flowzoo.manifest.read import Manifest, dump
from flowzoo.manifest.schema import Data, Entry, Fingerprint, Weights
from flowzoo.registry import reset_registry

if TYPE_CHECKING:
    import pytest

    from flowzoo.flow import Flow

REPO = "flowzoo/probe"
FILENAME = "probe.safetensors"

_PLUGIN = """
from flowzoo.api import Architecture, Preset
TINY = {"image_shape": (1, 8, 8), "hidden_units": 8}
ARCHITECTURE = Architecture(
    api_version=1, name="probe", summary="For tests.", config="flowzoo_probe.config:ProbeConfig",
    build="flowzoo_probe.model:build", presets={"tiny": Preset(summary="Tiny.", config=TINY)},
    manifest="flowzoo_probe:weights_manifest.json",
)
"""
_CONFIG = """
from dataclasses import dataclass
@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    image_shape: tuple[int, int, int] = (1, 8, 8)
    n_bits: int = 8
    hidden_units: int = 8
"""
_MODEL = """
from flowzoo.bijectors import ActNorm, AdditiveCoupling, Chain, DiagonalScaling, Flatten, InterleavedFeatures
from flowzoo.flow import Flow
from flowzoo.nets.mlp import MLP
def build(config):
    half = config.image_shape[0] * config.image_shape[1] * config.image_shape[2] // 2
    nets = [MLP(half, (config.hidden_units,), half, 0.1) for _ in range(2)]
    couplings = [AdditiveCoupling(InterleavedFeatures(bool(i)), net) for i, net in enumerate(nets)]
    stack = Chain(ActNorm((1,)), Flatten(config.image_shape), *couplings, DiagonalScaling((2 * half,)))
    return Flow(image_shape=config.image_shape, n_bits=config.n_bits, bijector=stack)
"""


@dataclasses.dataclass(frozen=True)
class Probe:
    """The plugin in its directory.

    Attributes:
        root: What goes on the path.
        package: The package inside it.
    """

    root: Path
    package: Path

    @classmethod
    @contextlib.contextmanager
    def installed(cls, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Probe]:
        """Writes the distribution and makes it one of this process's until the block ends."""
        package, info = root / "flowzoo_probe", root / "flowzoo_probe-1.0.dist-info"
        for directory in (package / "weights", info):
            directory.mkdir(parents=True)
        for name, text in {"__init__": "", "plugin": _PLUGIN, "config": _CONFIG, "model": _MODEL}.items():
            (package / f"{name}.py").write_text(text)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flowzoo-probe\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            "[flowzoo.architectures]\nprobe = flowzoo_probe.plugin:ARCHITECTURE\n"
        )
        probe = cls(root, package)
        probe.list()
        monkeypatch.syspath_prepend(root)
        for name in [name for name in sys.modules if name.partition(".")[0] == "flowzoo_probe"]:
            monkeypatch.delitem(sys.modules, name)
        reset_registry()
        yield probe
        reset_registry()

    def list(self, *entries: Entry) -> None:
        """Writes the plugin's manifest."""
        (self.package / "weights_manifest.json").write_text(dump(Manifest(entries=entries)))

    def environment(self, **variables: str) -> dict[str, str]:
        """The environment of a command that shall see the plugin and no network."""
        mine = {"PYTHONPATH": str(self.root), "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLOWZOO_", "HF_"))}
        return kept | mine | variables

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs the real command line."""
        command = [sys.executable, "-m", "flowzoo", *arguments]
        return subprocess.run(
            command,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def trained(seed: int = 0, **config: Any) -> Flow:
    """A probe that has seen data."""
    import torch

    from flowzoo.factory import create

    torch.manual_seed(seed)
    flow = create("probe", **config)
    images = torch.randint(0, 256, (32, *flow.image_shape), dtype=torch.uint8)
    flow.initialize(images)
    return flow.eval()


def save(flow: Flow, path: Path) -> Weights:
    """Writes a flow's weights; returns what a manifest says of them."""
    from flowzoo.weights.checkpoint import save_weights

    sha256, size = save_weights(flow, path, {})
    return Weights(filename=FILENAME, sha256=sha256, size=size, dtype="float32")


def entry(flow: Flow, weights: Weights | None, name: str = "probe-tiny", **changes: Any) -> Entry:
    """A manifest entry for a flow."""
    from flowzoo.config import config_to_dict

    config = config_to_dict(flow.config)
    found = Entry(
        name=name,
        version=1,
        status="unpublished" if weights is None else "released",
        architecture=str(flow.architecture),
        config=config,
        config_hash=config_hash(str(flow.architecture), config),
        num_params=sum(parameter.numel() for parameter in flow.parameters()),
        data=Data(id="none", preprocessing="none", split="test", num_images=1, terms="none"),
        license="Apache-2.0",
        citations=(),
        weights=weights,
        published_reason="made for a test",
    )
    return dataclasses.replace(found, **changes)


def fingerprinted(flow: Flow, weights: Weights) -> Entry:
    """An entry with the flow's true fingerprint."""
    from flowzoo.weights.fingerprint import take_fingerprint

    fingerprint: Fingerprint = take_fingerprint(flow)
    return entry(flow, weights, fingerprint=fingerprint)


def write_directory(directory: Path, flow: Flow, **changes: Any) -> Mapping[str, Any]:
    """Writes what ``path:DIR`` reads; returns the content of ``flowzoo.json``."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = dataclasses.replace(save(flow, directory / "model.safetensors"), filename="model.safetensors")
    described = entry(flow, weights)
    card = {
        "schema": 1,
        "name": "mine",
        "architecture": described.architecture,
        "config": described.config,
        "config_hash": described.config_hash,
        "weights": dataclasses.asdict(weights),
    } | changes
    (directory / "flowzoo.json").write_text(json.dumps(card))
    return card
