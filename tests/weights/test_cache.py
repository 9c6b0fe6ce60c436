"""Copying to a folder and removing from the cache: nobody else's file is overwritten, removed or torn."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowzoo.cli.main import main
from flowzoo.manifest.schema import Entry
from flowzoo.weights.cache import remove_from_cache
from flowzoo.weights.hub import FileId, RemoteFile, fetch, hub_settings
from flowzoo.weights.load import load
from tests.hub_server import HubServer
from tests.probe import FILENAME, REPO, Probe, entry, save, trained, write_directory


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Probe]:
    with Probe.installed(tmp_path / "site", monkeypatch) as probe:
        yield probe


def pull(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["pull", *(str(argument) for argument in arguments)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_two_models_of_one_name_do_not_overwrite_each_other(
    probe: Probe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate("ab"):
        write_directory(tmp_path / name / "export", trained(seed=number))
    usb = tmp_path / "usb"
    first, second = (f"path:{tmp_path / name / 'export'}" for name in "ab")
    assert pull(first, "--to", usb) == 0
    before = {path.name: path.read_bytes() for path in (usb / "export").iterdir()}
    capsys.readouterr()
    assert pull(second, "--to", usb) == 8
    [line] = capsys.readouterr().err.splitlines()
    assert "is not overwritten; name another directory with --to" in line
    assert {path.name: path.read_bytes() for path in (usb / "export").iterdir()} == before
    # The same model again is no other.
    assert pull(first, "--to", usb) == 0
    # A copy that was broken off is finished.
    (usb / "export" / "model.safetensors").unlink()
    (usb / "export" / ".partial-0-x").write_text("")
    assert pull(first, "--to", usb) == 0
    assert load(f"path:{usb / 'export'}").is_initialized


def test_a_relative_reference_does_not_leave_the_folder(
    probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_directory(tmp_path / "mine", trained())
    (tmp_path / "mine" / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "mine" / "deeper")
    assert pull("path:..", "--to", tmp_path / "usb" / "new") == 0
    assert [path.name for path in (tmp_path / "usb").iterdir()] == ["new"]
    assert [path.name for path in (tmp_path / "usb" / "new").iterdir()] == ["mine"]
    assert load(f"path:{tmp_path / 'usb' / 'new' / 'mine'}").is_initialized


@pytest.fixture
def listed(probe: Probe, tmp_path: Path) -> Entry:
    weights = save(flow := trained(), tmp_path / "made.safetensors")
    return entry(flow, dataclasses.replace(weights, repo_id=REPO, revision="0123456789" * 4))


def test_removing_leaves_a_download_that_is_going_on_alone(listed: Entry, tmp_path: Path) -> None:
    weights, content = listed.weights, (tmp_path / "made.safetensors").read_bytes()
    assert weights is not None
    remote = RemoteFile(REPO, str(weights.revision), FILENAME)
    with HubServer() as hub:
        hub.add(REPO, {FILENAME: content}, revision=remote.revision)
        hub.fault(method="GET", seconds_per_chunk=1.0)
        settings = hub_settings(endpoint=hub.url, cache_dir=tmp_path / "cache", offline=False)
        paths: list[Path] = []
        expected = FileId(weights.sha256, weights.size)
        download = threading.Thread(target=lambda: paths.append(fetch(remote, expected, settings, "probe")))
        download.start()
        while not hub.requests:
            time.sleep(0.01)
        assert remove_from_cache(listed, settings) is None
        download.join()
        assert paths[0].read_bytes() == content
        assert remove_from_cache(listed, settings) == len(content)
        assert not paths[0].exists()
        assert remove_from_cache(listed, settings) == 0


@pytest.mark.parametrize("shared", [True, False])
def test_a_file_that_the_hubs_client_laid_down_is_removed_with_its_content(
    shared: bool, listed: Entry, tmp_path: Path
) -> None:
    weights, content = listed.weights, (tmp_path / "made.safetensors").read_bytes()
    assert weights is not None
    repository = tmp_path / "cache" / f"models--{REPO.replace('/', '--')}"
    blob = repository / "blobs" / hashlib.sha256(content).hexdigest()
    blob.parent.mkdir(parents=True)
    blob.write_bytes(content)
    other = repository / "snapshots" / ("f" * 40) / FILENAME
    link = repository / "snapshots" / str(weights.revision) / FILENAME
    for path in [link, other] if shared else [link]:
        path.parent.mkdir(parents=True)
        path.symlink_to(Path("..", "..", "blobs", blob.name))
    settings = hub_settings(cache_dir=tmp_path / "cache")
    assert remove_from_cache(listed, settings) == (0 if shared else len(content))
    assert not link.is_symlink()
    assert blob.exists() == shared
