"""``flowzoo manifest check --online``: size and digest of every file are asked of the Hub, nothing is downloaded."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowzoo.cli.main import main
from flowzoo.manifest.read import dump, parse
from tests.hub_server import HubServer, raw_server
from tests.manifest_examples import example_entry, manifest_text

REPO = "flowzoo/nice-example"
FILE = "nice-example.safetensors"
CONTENT = b"weights" * 1000


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


def check(
    path: Path, hub: HubServer | str, revision: str | None, capsys: pytest.CaptureFixture[str], **weights: Any
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
        main(["manifest", "check", str(path), "--online", "--endpoint", getattr(hub, "url", hub)])
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


def test_the_hub_describes_a_large_file_in_a_redirect_to_its_store(
    tmp_path: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    revision = hub.add(REPO, {FILE: CONTENT})
    described = {"X-Linked-Etag": f'"{hashlib.sha256(CONTENT).hexdigest()}"', "X-Linked-Size": "7000"}
    headers = {"Location": "http://127.0.0.1:9/store", "X-Repo-Commit": revision, **described}
    hub.fault(status=302, headers=headers)
    code, out = check(tmp_path / "m.json", hub, revision, capsys)
    assert code == 0, out
    assert [request.method for request in hub.requests] == ["HEAD"]


@pytest.mark.parametrize("commit", [None, "../../stolen", "f" * 40])
def test_a_server_has_to_name_the_revision(
    tmp_path: Path, hub: HubServer, capsys: pytest.CaptureFixture[str], commit: str | None
) -> None:
    revision = hub.add(REPO, {FILE: CONTENT})
    headers = {"ETag": hashlib.sha256(CONTENT).hexdigest(), "Content-Length": "7000"}
    hub.fault(status=200, headers=headers | ({"X-Repo-Commit": commit} if commit else {}))
    assert check(tmp_path / "m.json", hub, revision, capsys)[0] == 5


def trickle(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.1)


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 302 Found\r\n")
    while True:
        connection.sendall(b"X-More: " + b"x" * 60_000 + b"\r\n")


@pytest.mark.parametrize("answer", [trickle, endless])
def test_no_answer_is_waited_for_without_end(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[socket.socket], None],
) -> None:
    monkeypatch.setattr("flowzoo.weights.hub.client.RETRY_WAITS", (0.01,))
    monkeypatch.setattr("flowzoo.weights.hub.http.PATIENCE", 1.0)
    started = time.monotonic()
    with raw_server(answer) as url:
        code, out = check(tmp_path / "m.json", url, "0123456789" * 4, capsys)
    assert code == 6, out
    assert time.monotonic() - started < 20
