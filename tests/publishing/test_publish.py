"""``flowzoo publish``: a run becomes a repository and a manifest entry that anyone can load and verify."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

import flowzoo
from flowzoo.cli.main import main
from flowzoo.config import config_to_dict
from flowzoo.errors import InputError, IntegrityError, ManifestError, WeightsUnavailable
from flowzoo.flow import Flow
from flowzoo.manifest.read import Manifest, dump, load_manifests
from flowzoo.manifest.schema import Entry, Measured, Sampling
from flowzoo.manifest.write import read_manifest
from flowzoo.publishing import Staged, check_before_upload, stage_run, upload, write_entry
from flowzoo.publishing.card import check_model_card, model_card
from flowzoo.publishing.describe import version_for
from flowzoo.training.export import weights_metadata
from flowzoo.training.run_dir import RunDir
from flowzoo.weights.checkpoint import save_weights
from flowzoo.weights.fingerprint import compare, take_fingerprint
from flowzoo.weights.hub import hub_settings
from flowzoo.weights.load import load
from tests.hub_server import HubServer
from tests.probe import Probe, entry, fingerprinted, save, trained, write_directory

REPO = "org/probe-one"
SAMPLING = Sampling(drawn=10_000, finite=10_000, temperature=1.0, seed=0)
IMAGES = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        # The client of this process may speak Xet; small files go the regular way.
        server.large = "never"
        monkeypatch.setenv("FLOWZOO_HUB_ENDPOINT", server.url)
        # It is the Hub itself: a mirror would get no token, and nothing could be published there.
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        for name in ("FLOWZOO_OFFLINE", "HF_HUB_OFFLINE", "FLOWZOO_WEIGHTS_DIR"):
            monkeypatch.delenv(name, raising=False)
        yield server


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Probe]:
    with Probe.installed(tmp_path / "site", monkeypatch) as probe:
        yield probe


@pytest.fixture
def manifest(probe: Probe) -> Path:
    """The manifest that entries go into: the plugin's own, so that loading finds them at once."""
    return probe.package / "weights_manifest.json"


@pytest.fixture
def exported(tmp_path: Path, probe: Probe) -> Path:
    recipe = {"name": "probe-one", "train": {"seed": 3, "ema": 0.999}, "data": {"dataset": "mnist"}}
    run = {"recipe": recipe, "step": 150, "best_step": 120, "hours": 0.5, "environment": {}, "versions": {}}
    write_directory(tmp_path / "run", trained(), dataset="mnist", name="probe-one", training=run)
    return tmp_path / "run"


def measured(bpd: float = 6.5) -> Measured:
    return Measured(
        bpd=bpd,
        stderr=0.01,
        dequantization="uniform",
        samples=1,
        seed=0,
        dtype="float32",
        num_images=10_000,
        tolerance=1e-4,
        versions={"flowzoo": "0.1.0"},
        command="flowzoo eval probe-one@1",
    )


class Fake:
    """Figures that nobody measured."""

    def of(self, entry: Entry) -> Entry:
        return dataclasses.replace(
            entry, measured=measured(), fingerprint=take_fingerprint(trained()), sampling=SAMPLING
        )


@pytest.fixture
def staged(exported: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Staged:
    # Measuring is the harness's business and needs images of the model's shape, which no data set here has.
    monkeypatch.setattr("flowzoo.publishing.stage.measure_model", lambda *_, **__: Fake())
    return stage_run(exported, tmp_path / "stage", manifest, repo_id=REPO)


def problems(staged: Staged, manifest: Path) -> dict[str, str]:
    return {check.name: check.problem for check in check_before_upload(staged, manifest) if check.problem}


def test_a_staged_model_says_everything_and_passes_its_checks(staged: Staged, manifest: Path) -> None:
    found = staged.entry
    assert problems(staged, manifest) == {}
    assert (found.name, found.version, found.status) == ("probe-one", 1, "released")
    assert found.data.id == "mnist"
    assert found.data.num_images == 10_000
    assert found.data.terms
    assert found.published_reason
    assert found.training is not None
    assert (found.training.steps, found.training.seed) == (150, 3)
    assert found.training.weights == "averaged weights (EMA 0.999) of the best validation, at update 120"
    assert found.fingerprint is not None
    assert found.weights is not None
    assert (found.weights.repo_id, found.weights.revision) == (REPO, None)
    assert sorted(path.name for path in staged.directory.iterdir()) == sorted(staged.filenames)


def test_the_card_has_a_front_matter_that_the_hub_reads(staged: Staged) -> None:
    text = (staged.directory / "README.md").read_text()
    data = ModelCard(text).data.to_dict()  # type: ignore[no-untyped-call, unused-ignore]
    [result] = data["model-index"][0]["results"]
    assert data["license"] == "apache-2.0"
    assert data["library_name"] == "flowzoo"
    assert result["metrics"][0]["value"] == measured().bpd
    assert result["metrics"][0]["type"] == "bits-per-dimension"
    assert result["metrics"][0]["args"]["dequantization"] == "uniform"
    assert result["dataset"]["type"] == "mnist"
    assert result["dataset"]["split"] == "test"
    for part in (
        "![Samples",
        "flowzoo.load(",
        "flowzoo verify",
        staged.entry.data.terms,
        "6.5000** ± 0.0100",
        "1 sample, seed",
    ):
        assert part in text
    assert "1 threads" not in text


def test_a_card_that_states_another_figure_is_caught(staged: Staged, manifest: Path) -> None:
    other = dataclasses.replace(staged.entry, measured=measured(5.0))
    (staged.directory / "README.md").write_text(model_card(other, "MNIST"))
    assert "states bpd [5.0]" in problems(staged, manifest)["model card"]
    (staged.directory / "README.md").write_text("no front matter")
    assert "model card" in problems(staged, manifest)


def test_what_must_not_leave_is_caught(staged: Staged, manifest: Path) -> None:
    directory = staged.directory
    (directory / "notes.txt").write_text("mine")
    assert "notes.txt" in problems(staged, manifest)["files"]
    (directory / "notes.txt").unlink()
    card = (directory / "flowzoo.json").read_text()
    (directory / "flowzoo.json").write_text(
        card.replace('"probe-one"', json.dumps(str(directory.parent.resolve())))
    )
    assert "nothing private" in problems(staged, manifest)
    (directory / "flowzoo.json").write_text(card)
    (directory / "samples.png").write_bytes(b"no picture")
    assert "sample grid" in problems(staged, manifest)


def test_weights_that_are_not_the_entrys_are_caught(staged: Staged, manifest: Path) -> None:
    assert staged.entry.weights is not None
    save(trained(1), staged.directory / staged.entry.weights.filename)
    assert "expected sha256" in problems(staged, manifest)["weights and fingerprint"]
    assert staged.entry.fingerprint is not None
    wrong = dataclasses.replace(staged.entry.fingerprint, bpd=(1.0, 2.0, 3.0, 4.0))
    assert "weights and fingerprint" in problems(
        Staged(dataclasses.replace(staged.entry, fingerprint=wrong), staged.directory), manifest
    )


def test_a_partial_measurement_is_not_published(staged: Staged, manifest: Path) -> None:
    partial = dataclasses.replace(measured(), num_images=100)
    assert (
        "whole test split"
        in problems(Staged(dataclasses.replace(staged.entry, measured=partial), staged.directory), manifest)[
            "measured figure"
        ]
    )


def test_publishing_makes_one_commit_and_an_entry_that_loads(
    staged: Staged, manifest: Path, hub: HubServer
) -> None:
    write_entry(manifest, published := upload(staged, hub_settings()))
    assert published.weights is not None
    revision = str(published.weights.revision)
    assert sum("/commit/" in request.path for request in hub.requests) == 2, (
        "the files, and the card that names them"
    )
    assert set(hub.commits[REPO, hub.heads[REPO]]) == {".gitattributes", *staged.filenames}
    loaded = load("probe-one")
    assert torch.equal(loaded.encode(IMAGES), trained().encode(IMAGES))
    assert published.fingerprint is not None
    assert compare(loaded, published.fingerprint).verified
    card = hub.commits[REPO, hub.heads[REPO]]["README.md"].decode()
    first = re.findall(r"^flow = (flowzoo\.load\(.*\))$", card, flags=re.MULTILINE)[0]
    assert first == f'flowzoo.load("hf:{REPO}@{revision}")'
    assert eval(first, {"flowzoo": flowzoo}).is_initialized, "as a stranger would"
    assert any(request.path.endswith("/config.json") for request in hub.requests), "counts the download"
    assert json.loads(hub.commits[REPO, revision]["config.json"])["config"] == published.config
    assert load_manifests().get("probe-one") == published


def test_publishing_into_a_repository_that_is_there_adds_a_commit(staged: Staged, hub: HubServer) -> None:
    hub.add(REPO, {"notes.txt": b"mine"})
    published = upload(staged, hub_settings())
    assert published.weights is not None
    assert (REPO, published.weights.revision) in hub.commits
    assert hub.commits[REPO, hub.heads[REPO]]["notes.txt"] == b"mine"


def test_publishing_again_changes_nothing_of_what_was_promised(
    staged: Staged, manifest: Path, hub: HubServer, exported: Path, tmp_path: Path
) -> None:
    first = upload(staged, hub_settings())
    write_entry(manifest, first)
    again = stage_run(exported, tmp_path / "again", manifest, repo_id=REPO)
    assert again.entry.key == first.key
    assert again.entry.measured == first.measured
    other = trained(5)
    write_directory(exported, other, dataset="mnist", name="probe-one")
    second = stage_run(exported, tmp_path / "second", manifest, repo_id=REPO)
    assert second.entry.key == "probe-one@2"
    changed = dataclasses.replace(second.entry, version=1)
    with pytest.raises(ManifestError, match="probe-one@1: "):
        write_entry(manifest, changed)


def test_an_unpublished_entry_keeps_its_version_and_its_published_figure(probe: Probe) -> None:
    waiting = entry(trained(), None, name="probe-one")
    assert version_for([], "0" * 64) == 1
    assert version_for([waiting], "0" * 64) == 1
    done = dataclasses.replace(waiting, status="released")
    assert version_for([done], "0" * 64) == 2


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/repos/create", 401, "hf auth login"),
        ("/api/repos/create", 403, "may write"),
        ("/commit/", 403, "may write"),
        ("/commit/", 500, "nothing was written into the manifest"),
        ("/resolve/", 404, "was not published"),
    ],
)
def test_a_refused_upload_is_one_line_and_leaves_the_manifest_alone(
    path: str, status: int, words: str, staged: Staged, manifest: Path, hub: HubServer
) -> None:
    before = manifest.read_text()
    hub.fault(path=path, status=status)
    with pytest.raises(WeightsUnavailable, match=words) as error:
        upload(staged, hub_settings())
    assert "\n" not in str(error.value)
    assert manifest.read_text() == before


def test_a_hub_that_holds_something_else_afterwards_is_caught(staged: Staged, hub: HubServer) -> None:
    hub.fault(path="/resolve/", headers={"Content-Length": "7"})
    with pytest.raises(IntegrityError, match="has 7 bytes"):
        upload(staged, hub_settings())


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, captured.out, captured.err


def test_the_command_is_a_dry_run_until_yes(
    staged: Staged, exported: Path, manifest: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    before = manifest.read_text()
    arguments = ("publish", exported, "--repo", REPO, "--manifest", manifest)
    code, out, err = run(capsys, *arguments)
    assert code == 0, err
    assert "Dry run" in err
    assert "6.5000" in out
    assert hub.requests == []
    assert manifest.read_text() == before
    code, out, err = run(capsys, *arguments, "--yes", "--json")
    assert code == 0, err
    [result] = json.loads(out)
    assert (REPO, result["entry"]["weights"]["revision"]) in hub.commits
    assert read_manifest(manifest).get("probe-one").measured == measured()


def test_all_publishes_what_waits_and_nothing_twice(
    probe: Probe, manifest: Path, hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def bundled(flow: Flow, name: str) -> Entry:
        weights = dataclasses.replace(save(flow, tmp_path / name), filename=f"{name}.safetensors")
        shutil.move(tmp_path / name, probe.package / "weights" / weights.filename)
        mnist = dataclasses.replace(entry(flow, None).data, id="mnist", num_images=10_000)
        return dataclasses.replace(fingerprinted(flow, weights), name=name, measured=measured(), data=mnist)

    two = [bundled(trained(0), "probe-one"), bundled(trained(1), "probe-two")]
    unpublished = entry(trained(2), None, name="probe-three")
    manifest.write_text(dump(Manifest(entries=(*two, unpublished))))
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
    assert code == 0, err
    assert set(hub.heads) == {"zoo/probe-one", "zoo/probe-two"}
    for name in ("probe-one", "probe-two"):
        listed = read_manifest(manifest).get(name)
        assert listed.weights is not None
        assert (f"zoo/{name}", listed.weights.revision) in hub.commits
        (probe.package / "weights" / f"{name}.safetensors").unlink()
        assert load(name).is_initialized
    commits = len(hub.commits)
    code, _, err = run(capsys, *arguments)
    assert code == 0
    assert "nothing to publish" in err
    assert len(hub.commits) == commits


def test_a_large_file_goes_by_lfs(
    staged: Staged, exported: Path, manifest: Path, hub: HubServer, probe: Probe
) -> None:
    hub.large = ".safetensors"
    program = (
        "import sys; from pathlib import Path; from flowzoo.weights.hub import hub_settings; "
        "from flowzoo.publishing import Staged, upload; from flowzoo.manifest.read import parse; "
        "staged = Staged(parse(sys.stdin.read(), 'stdin').entries[0], Path(sys.argv[1])); "
        "print(upload(staged, hub_settings(endpoint=sys.argv[2])).weights.revision)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(staged.directory), hub.url],
        input=dump(Manifest(entries=(staged.entry,))),
        env=probe.environment(HF_HUB_DISABLE_XET="1", HF_ENDPOINT=hub.url),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert (REPO, result.stdout.strip()) in hub.commits
    assert staged.entry.weights is not None
    assert staged.entry.weights.sha256 in hub.blobs


def test_a_card_for_an_entry_without_figures_is_refused(staged: Staged) -> None:
    text = (staged.directory / "README.md").read_text()
    check_model_card(text, staged.entry)
    with pytest.raises(InputError, match="no measured figure"):
        model_card(dataclasses.replace(staged.entry, measured=None), "MNIST")


def test_a_training_run_is_exported_measured_and_published(
    probe: Probe, manifest: Path, hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way, measured on the bundled test split of MNIST."""
    flow = trained(image_shape=(1, 28, 28), hidden_units=4)
    run_dir = RunDir(tmp_path / "run")
    run_dir.write_header({"recipe": {"name": "probe-mnist", "seed": 0}, "environment": {"hardware": "test"}})
    run_dir.append({"kind": "valid", "step": 7, "bpd": 7.5, "seconds": 36.0})
    save_weights(flow, run_dir.best, weights_metadata(flow, "probe-mnist", "mnist"))
    arguments = ("publish", run_dir.path, "--repo", REPO, "--manifest", manifest)
    code, _, err = run(capsys, *arguments)
    assert code == 0, err
    first = json.loads((run_dir.path / "publish" / "flowzoo.json").read_text())["measured"]
    code, _, err = run(capsys, *arguments, "--yes")
    assert code == 0, err
    listed = read_manifest(manifest).get("probe-mnist")
    assert listed.measured is not None
    # The second call did not measure again: even the seconds are the first one's.
    assert config_to_dict(listed.measured) == first
    assert listed.measured.num_images == 10_000
    assert listed.measured.reconstruction_exact == 10_000
    assert listed.training is not None and (listed.training.steps, listed.training.hours) == (7, 0.01)
    code, out, _ = run(capsys, "verify", "probe-mnist")
    assert code == 0
    assert "verified" in out
