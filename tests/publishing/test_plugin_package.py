"""``flowzoo publish --plugin``: from a run to weights in a plugin's package and an entry in the manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

import flowzoo
from flowzoo.data.api import Dataset
from flowzoo.errors import PluginError
from flowzoo.flow import Flow
from flowzoo.manifest.read import parse
from flowzoo.publishing import plugin_package
from flowzoo.publishing.plugin_package import publish_in_plugin
from flowzoo.testing import randomize
from flowzoo.training.export import weights_metadata
from flowzoo.weights.checkpoint import save_weights


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin's package that may be written to, instead of the real one."""
    package = tmp_path / "project" / "flowzoo_nice"
    (package / "weights").mkdir(parents=True)
    (package.parent / "pyproject.toml").write_text("")
    monkeypatch.setattr(plugin_package, "package_directory", lambda architecture: package)
    return package


def make_run(where: Path, seed: int) -> Path:
    """A directory with weights and ``flowzoo.json``-to-be, as ``flowzoo train`` leaves it."""
    flow = flowzoo.create("nice", image_shape=(1, 28, 28), hidden_layers=1, hidden_units=4)
    return write_run(where, randomize(flow, seed), "nice-mnist", "mnist", "bpd")


def make_run_of_points(where: Path, seed: int) -> Path:
    """The same of a model of points, which is measured in a moment."""
    flow = flowzoo.create("maf", dims=2, hidden=(8,))
    return write_run(where, randomize(flow, seed), "maf-moons", "points:two-moons", "nats_per_dim")


def write_run(where: Path, flow: Flow, name: str, dataset: str, figure: str) -> Path:
    where.mkdir()
    save_weights(flow, where / "best.safetensors", weights_metadata(flow, name, dataset))
    header = {"kind": "header", "recipe": {"name": name}, "total_steps": 3, "environment": {}}
    (where / "run.json").write_text(json.dumps(header))
    row = {"kind": "valid", "step": 3, figure: 5.0, "seconds": 7.2, "images": 30}
    (where / "metrics.jsonl").write_text("\n".join(json.dumps(r) for r in (header, row)) + "\n")
    return where


def weights_in(package: Path) -> list[str]:
    return sorted(path.name for path in (package / "weights").glob("*.safetensors"))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.json"
    path.write_text('{"schema": 1, "models": []}')
    return path


def test_a_bundled_run_is_measured_fingerprinted_and_in_the_package(
    checkout: Path, manifest: Path, tmp_path: Path
) -> None:
    entry = publish_in_plugin(make_run(tmp_path / "run", 1), manifest)
    content = (checkout / "weights" / "nice-mnist.safetensors").read_bytes()
    assert entry.weights is not None and entry.weights.revision is None
    assert entry.weights.sha256 == hashlib.sha256(content).hexdigest()
    assert entry.measured is not None and entry.measured.num_images == 10_000
    assert entry.fingerprint is not None
    assert entry.training is not None and entry.training.images == 30
    assert parse(manifest.read_text(), "manifest").get("nice-mnist") == entry


def test_weights_that_were_never_on_the_hub_are_replaced(
    checkout: Path, manifest: Path, tmp_path: Path
) -> None:
    first = publish_in_plugin(make_run_of_points(tmp_path / "first", 1), manifest)
    second = publish_in_plugin(
        make_run_of_points(tmp_path / "second", 2), manifest, note="Half of the moons."
    )
    assert second.version == first.version == 1
    assert (first.note, second.note) == (None, "Half of the moons.")
    third = publish_in_plugin(make_run_of_points(tmp_path / "third", 3), manifest)
    assert third.note == second.note and third.weights is not None
    assert [e.key for e in parse(manifest.read_text(), "manifest").entries] == ["maf-moons@1"]
    assert weights_in(checkout) == [third.weights.filename]


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the test images, where only the protocol matters that they are measured by."""
    load = Dataset.load
    monkeypatch.setattr(Dataset, "load", lambda *where, **how: load(*where, **how).take(1000))


@pytest.mark.usefixtures("few_images")
def test_a_bound_of_several_samples_is_measured_and_kept_for_the_next(
    checkout: Path, manifest: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "first", 1)
    loose, tight = publish_in_plugin(run, manifest), publish_in_plugin(run, manifest, samples=2)
    assert loose.measured is not None and tight.measured is not None
    assert (loose.measured.samples, tight.measured.samples) == (1, 2)
    assert tight.measured.bpd != loose.measured.bpd
    again = publish_in_plugin(make_run(tmp_path / "second", 2), manifest)
    assert again.measured is not None and again.measured.samples == 2


def test_published_weights_stay_and_the_model_gets_a_new_version(
    checkout: Path, manifest: Path, tmp_path: Path
) -> None:
    entry = publish_in_plugin(make_run_of_points(tmp_path / "first", 1), manifest)
    assert entry.weights is not None
    on_hub = dataclasses.replace(
        entry, weights=dataclasses.replace(entry.weights, repo_id="org/maf", revision="a" * 40)
    )
    from flowzoo.manifest.write import write_entry

    write_entry(manifest, on_hub)
    second = publish_in_plugin(make_run_of_points(tmp_path / "second", 2), manifest)
    assert second.version == 2
    assert [e.key for e in parse(manifest.read_text(), "manifest").entries] == ["maf-moons@1", "maf-moons@2"]
    assert len(weights_in(checkout)) == 2


def test_an_installed_plugin_is_not_written_into(checkout: Path, manifest: Path, tmp_path: Path) -> None:
    (checkout.parent / "pyproject.toml").unlink()
    with pytest.raises(PluginError, match="from a checkout"):
        publish_in_plugin(make_run(tmp_path / "run", 1), manifest)
    assert parse(manifest.read_text(), "manifest").entries == ()
