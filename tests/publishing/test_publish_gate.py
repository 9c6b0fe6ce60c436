"""Models that fail the shipping gate stay here; stages need no repository."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from flowzoo.errors import IntegrityError
from flowzoo.manifest.read import Manifest, dump
from tests.hub_server import HubServer
from tests.probe import Probe, entry, fingerprinted, save, trained
from tests.publishing import test_publish as shared
from tests.publishing.test_publish import SAMPLING, Fake, measured, run

hub, probe, manifest, exported = shared.hub, shared.probe, shared.manifest, shared.exported


def test_a_model_that_cannot_sample_is_left_out_and_the_others_are_published(
    probe: Probe, manifest: Path, hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = []
    for seed, (name, finite) in enumerate((("probe-bad", 9_811), ("probe-good", 10_000))):
        flow = trained(seed)
        weights = dataclasses.replace(save(flow, tmp_path / name), filename=f"{name}.safetensors")
        shutil.move(tmp_path / name, probe.package / "weights" / weights.filename)
        mnist = dataclasses.replace(entry(flow, None).data, id="mnist", num_images=10_000)
        found = dataclasses.replace(fingerprinted(flow, weights), name=name, measured=measured(), data=mnist)
        entries.append(dataclasses.replace(found, sampling=dataclasses.replace(SAMPLING, finite=finite)))
    manifest.write_text(dump(Manifest(entries=tuple(entries))))
    arguments = (
        "publish",
        "--all",
        "--org",
        "zoo",
        "--manifest",
        manifest,
        "--stage",
        tmp_path / "s",
        "--yes",
    )
    code, _, err = run(capsys, *arguments)
    assert code == IntegrityError.exit_code
    assert "probe-bad@1 is not published: probe-bad@1 cannot ship: 189 of 10,000 samples" in err
    assert set(hub.heads) == {"zoo/probe-good"}
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["probe-good@1"]


def test_a_stage_needs_no_repository(
    exported: Path,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("flowzoo.publishing.stage.measure_model", lambda *_, **__: Fake())
    code, _, err = run(capsys, "publish", exported, "--stage", tmp_path / "s", "--manifest", manifest)
    assert code == 0, err
    assert "hf:ORG/NAME@" in (tmp_path / "s" / "README.md").read_text()
    code, _, err = run(
        capsys, "publish", exported, "--stage", tmp_path / "s", "--manifest", manifest, "--yes"
    )
    assert code == 2
    assert "--repo" in err
