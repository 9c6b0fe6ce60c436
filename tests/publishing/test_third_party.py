"""Publishing the models of somebody else's plugin: in its own manifest, under nobody else's name."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowzoo.cli.main import cli
from flowzoo.errors import InputError, PluginError
from flowzoo.manifest.raw import core_manifest_path
from flowzoo.manifest.read import parse
from flowzoo.manifest.schema import Entry, Measured, Sampling
from flowzoo.publishing import plugin_package
from flowzoo.publishing.plugin_package import manifest_for, publish_in_plugin
from flowzoo.registry import reset_registry
from flowzoo.training.export import weights_metadata
from flowzoo.training.run_dir import RunDir
from flowzoo.weights.checkpoint import save_weights
from flowzoo.weights.fingerprint import take_fingerprint
from tests.probe import Probe, trained


class Figures:
    """Figures that nobody measured."""

    def of(self, entry: Entry) -> Entry:
        measured = Measured(
            bpd=6.5, stderr=0.01, dequantization="uniform", samples=1, seed=0, dtype="float32", num_images=10_000,
            tolerance=1e-4, versions={}, command="flowzoo eval probe-mnist@1",
        )  # fmt: skip
        sampling = Sampling(drawn=10_000, finite=10_000, temperature=1.0, seed=0)
        fingerprint = take_fingerprint(trained(image_shape=(1, 28, 28), hidden_units=4))
        return dataclasses.replace(entry, measured=measured, sampling=sampling, fingerprint=fingerprint)


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Probe]:
    monkeypatch.setattr(plugin_package, "measure_model", lambda *_, **__: Figures())
    with Probe.installed(tmp_path / "site", monkeypatch) as probe:
        (probe.root / "pyproject.toml").write_text("")
        yield probe


@pytest.fixture
def run(probe: Probe, tmp_path: Path) -> Path:
    directory = RunDir(tmp_path / "run")
    recipe = {"schema": 1, "name": "probe-tiny", "train": {"steps": 7}, "data": {"dataset": "mnist"}}
    directory.write_header({"recipe": recipe, "environment": {"hardware": "test"}})
    directory.append({"kind": "valid", "step": 7, "bpd": 7.5, "seconds": 36.0})
    flow = trained(image_shape=(1, 28, 28), hidden_units=4)
    save_weights(flow, directory.best, weights_metadata(flow, "probe-mnist", "mnist"))
    return directory.path


def test_the_entry_goes_into_the_plugins_own_manifest(probe: Probe, run: Path) -> None:
    before = core_manifest_path().read_bytes()
    entry = publish_in_plugin(run)
    mine = probe.package / "weights_manifest.json"
    assert manifest_for("probe") == mine
    assert parse(mine.read_text(), "mine").entries == (entry,)
    assert core_manifest_path().read_bytes() == before
    assert entry.weights is not None and entry.weights.repo_id is None, "so that --org decides"
    assert entry.published_reason == "its plugin names no published figure for this configuration"


def test_a_plugin_without_a_manifest_is_told_how_to_bring_one(probe: Probe, run: Path) -> None:
    source = probe.package / "plugin.py"
    source.write_text(source.read_text().replace('    manifest="flowzoo_probe:weights_manifest.json",\n', ""))
    shutil.rmtree(probe.package / "__pycache__", ignore_errors=True)
    import sys

    del sys.modules["flowzoo_probe.plugin"]
    reset_registry()
    with pytest.raises(PluginError, match="inside its package"):
        publish_in_plugin(run)


def test_what_will_be_refused_is_refused_before_anything_is_measured(
    probe: Probe, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_package, "measure_model", lambda *_, **__: pytest.fail("measured"))
    (probe.root / "pyproject.toml").unlink()
    with pytest.raises(PluginError, match="from a checkout"):
        publish_in_plugin(run)
    (probe.root / "pyproject.toml").write_text("")
    header = json.loads((run / "run.json").read_text())
    header["recipe"]["data"]["valid_split"] = "test"
    (run / "run.json").write_text(json.dumps(header))
    with pytest.raises(InputError, match="on its test images"):
        publish_in_plugin(run)


@pytest.mark.parametrize("command", [["publish", "--plugin"], ["publish", "--repo", "me/x"], ["bundle"]])
def test_a_name_cannot_leave_its_directory(probe: Probe, run: Path, command: list[str]) -> None:
    result = CliRunner().invoke(cli, [*command, str(run), "--name", "../x"], standalone_mode=False)
    assert isinstance(result.exception, InputError)
    assert "cannot be a model's name" in str(result.exception)


def test_the_old_verb_still_works_and_says_its_new_name(probe: Probe, run: Path) -> None:
    result = CliRunner().invoke(cli, ["bundle", str(run), "--json"], standalone_mode=False)
    assert result.exception is None
    assert json.loads(result.stdout)["name"] == "probe-mnist"
    assert "publish RUN --plugin" in result.stderr
    assert "bundle" not in CliRunner().invoke(cli, ["--help"]).stdout


def test_staging_onto_the_export_itself_or_another_keeps_both(
    probe: Probe, run: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        CliRunner().invoke(cli, ["export", str(run), "-o", str(path)], standalone_mode=False)
    before = {path: path.read_bytes() for place in (first, second) for path in place.iterdir()}
    assert before
    for stage in (first, second, tmp_path):
        arguments = ["publish", str(first), "--repo", "me/x", "--stage", str(stage)]
        result = CliRunner().invoke(cli, arguments, standalone_mode=False)
        assert isinstance(result.exception, InputError), result.output
    assert {path: path.read_bytes() for place in (first, second) for path in place.iterdir()} == before
