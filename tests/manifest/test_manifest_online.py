"""``flowzoo manifest check --online``: size and digest of every file are asked of the Hub, nothing is downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowzoo.cli.main import main
from flowzoo.manifest.read import dump, parse
from tests.hub_server import HubServer
from tests.manifest_examples import example_entry, manifest_text

REPO = "flowzoo/nice-example"
FILE = "nice-example.safetensors"
CONTENT = b"weights" * 1000


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


def check(
    path: Path, hub: HubServer, revision: str | None, capsys: pytest.CaptureFixture[str], **weights: Any
) -> tuple[int, str]:
    """Checks a manifest of one entry online; returns exit code and stdout."""
    entry = example_entry()
    entry["weights"] |= {
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "size": len(CONTENT),
        "revision": revision,
        **weights,
    }
    path.write_text(dump(parse(manifest_text(entry), "test")), encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        main(["manifest", "check", str(path), "--online", "--endpoint", hub.url])
    assert isinstance(caught.value.code, int)
    return caught.value.code, capsys.readouterr().out


def test_the_right_file_passes_and_is_not_downloaded(
    tmp_path: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    revision = hub.add(REPO, {FILE: CONTENT})
    code, out = check(tmp_path / "m.json", hub, revision, capsys)
    assert code == 0, out
    assert f"7,000 bytes, SHA-256 {hashlib.sha256(CONTENT).hexdigest()[:12]}" in out
    assert (hub.count("GET"), hub.bytes_sent) == (0, 0)


def test_the_pinned_revision_is_asked_not_the_newest(
    tmp_path: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    revision = hub.add(REPO, {FILE: CONTENT})
    hub.add(REPO, {FILE: b"something newer"})
    assert check(tmp_path / "m.json", hub, revision, capsys)[0] == 0


def test_another_file_fails_with_5(
    tmp_path: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    revision = hub.add(REPO, {FILE: CONTENT[::-1]})
    code, out = check(tmp_path / "m.json", hub, revision, capsys)
    assert code == 5
    assert "another SHA-256" in out
    code, out = check(tmp_path / "m.json", hub, revision, capsys, size=7)
    assert code == 5
    assert "expected 7 bytes" in out


def test_what_is_not_there_fails_with_6(
    tmp_path: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    revision = hub.add(REPO, {"another.safetensors": CONTENT})
    code, out = check(tmp_path / "m.json", hub, revision, capsys)
    assert code == 6
    assert f"has no file {FILE}" in out
    code, out = check(tmp_path / "m.json", hub, revision, capsys, repo_id="flowzoo/elsewhere")
    assert code == 6
    assert "flowzoo/elsewhere" in out


def test_what_is_not_published_yet_is_not_asked_for(
    tmp_path: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = check(tmp_path / "m.json", hub, None, capsys)
    assert code == 0
    assert "not on the Hub yet" in out
    assert hub.requests == []
