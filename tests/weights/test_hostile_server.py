"""Servers that want a file written elsewhere, or a client that waits or reads for ever."""

from __future__ import annotations

import hashlib
import random
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowzoo.errors import FlowzooError, InputError, IntegrityError, WeightsUnavailable
from flowzoo.weights.hub import FileId, RemoteFile, cached_file, fetch, hub_settings
from flowzoo.weights.hub.settings import HubSettings
from tests.hub_server import HubServer, raw_server

REPO = "flowzoo/probe"
NAME = "probe.safetensors"
BODY = random.Random(0).randbytes(300_000)
EXPECTED = FileId(hashlib.sha256(BODY).hexdigest(), len(BODY))
REMOTE = RemoteFile(REPO, "0123456789" * 4, NAME)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.add(REPO, {NAME: BODY}, revision=REMOTE.revision)
        yield server


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowzoo.weights.hub.client.RETRY_WAITS", (0.01, 0.01, 0.01))
    monkeypatch.setattr("flowzoo.weights.hub.http.PATIENCE", 1.0)
    monkeypatch.setattr("flowzoo.weights.hub.http.SILENCE", 0.5)


def settings(url: str, tmp_path: Path) -> HubSettings:
    return hub_settings(endpoint=url, cache_dir=tmp_path / "deep" / "cache", offline=False)


def get(url: str, tmp_path: Path) -> bytes:
    return fetch(REMOTE, EXPECTED, settings(url, tmp_path), "probe").read_bytes()


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize(
    "etag", ["../../../../stolen", "{tmp}/stolen", "..", "a/b", "", "x" * 5000, '"../stolen"']
)
def test_an_etag_names_no_file(hub: HubServer, tmp_path: Path, etag: str) -> None:
    etag = etag.format(tmp=tmp_path)
    hub.fault(headers={"ETag": etag, "X-Linked-Etag": etag, "Content-Disposition": f'filename="{etag}"'})
    assert get(hub.url, tmp_path) == BODY
    [weights] = {name for name in files(tmp_path) if ".locks" not in name}
    assert weights == f"deep/cache/models--flowzoo--probe/snapshots/{REMOTE.revision}/{NAME}"


@pytest.mark.parametrize("commit", ["../../../stolen", "/stolen", "main", "f" * 40])
def test_a_commit_names_no_file(hub: HubServer, tmp_path: Path, commit: str) -> None:
    hub.fault(headers={"X-Repo-Commit": commit})
    with pytest.raises(IntegrityError, match="another revision"):
        get(hub.url, tmp_path)
    assert {name for name in files(tmp_path) if ".locks" not in name} == set()


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://[x",
        "http://",
        "http://h:x/",
        "",
        "javascript:1",
        "http://a b/",
    ],
)
def test_a_redirect_leads_to_the_web_only(hub: HubServer, tmp_path: Path, location: str) -> None:
    hub.fault(status=302, headers={"Location": location})
    started = time.monotonic()
    with pytest.raises(WeightsUnavailable, match="no usable answer") as error:
        get(hub.url, tmp_path)
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < 10


def test_redirects_end(hub: HubServer, tmp_path: Path) -> None:
    hub.fault(status=302, headers={"Location": f"/{REPO}/resolve/{REMOTE.revision}/{NAME}"})
    with pytest.raises(WeightsUnavailable, match="redirected more than 5 times"):
        get(hub.url, tmp_path)
    assert len(hub.requests) == 4 * 6


def trickle_body(connection: socket.socket) -> None:
    connection.sendall(HEAD)
    for position in range(len(BODY)):
        connection.sendall(BODY[position : position + 1])
        time.sleep(0.1)


def trickle_header(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.1)


def trickle_status(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.1)


def endless_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-More: " + b"x" * 60_000 + b"\r\n")


def endless_error(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 500 No\r\n\r\n")
    while True:
        connection.sendall(bytes(1 << 20))


def endless_redirect(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n")
    while True:
        connection.sendall(bytes(1 << 20))


def endless_chunks(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1;" + b"x" * 1000 + b"\r\nx\r\n")
        time.sleep(0.1)


def silence(connection: socket.socket) -> None:
    time.sleep(60)


def cut(connection: socket.socket) -> None:
    connection.sendall(HEAD + BODY[:1000])


def nonsense(connection: socket.socket) -> None:
    connection.sendall(b"\x00\xff SSH-2.0 token=hf_abcdefghijklmnop\r\n" * 100)


@pytest.mark.parametrize(
    "answer",
    [
        trickle_body,
        trickle_header,
        trickle_status,
        endless_headers,
        endless_error,
        endless_redirect,
        endless_chunks,
        silence,
        cut,
        nonsense,
    ],
)
def test_no_answer_is_endless(answer: Callable[[socket.socket], None], tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    with raw_server(answer) as url, pytest.raises(WeightsUnavailable) as error:
        get(url, tmp_path)
    assert time.monotonic() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    text = str(error.value)
    assert url in text
    assert "\n" not in text
    assert "hf_abc" not in text
    assert len(text) < 600
    assert {name for name in files(tmp_path) if ".locks" not in name} == set()


def test_a_long_wait_is_left_to_the_user(hub: HubServer, tmp_path: Path) -> None:
    hub.fault(status=503, headers={"Retry-After": "3600"})
    started = time.monotonic()
    with pytest.raises(WeightsUnavailable, match="wait 3600 seconds"):
        get(hub.url, tmp_path)
    assert time.monotonic() - started < 5
    assert len(hub.requests) == 1


@pytest.mark.parametrize("words", ["9" * 5000, "-1", "²", "soon", "1e9"])
def test_a_wait_that_is_no_number_is_ignored(hub: HubServer, tmp_path: Path, words: str) -> None:
    hub.fault(status=503, times=1, headers={"Retry-After": words.encode().decode("latin-1")})
    assert get(hub.url, tmp_path) == BODY


def test_a_slow_and_steady_server_is_waited_for(hub: HubServer, tmp_path: Path) -> None:
    hub.fault(method="GET", seconds_per_chunk=0.4)
    started = time.monotonic()
    assert get(hub.url, tmp_path) == BODY
    assert time.monotonic() - started > 1.5


HOLD = """
import sys, time
from flowzoo.weights.hub import RemoteFile, hub_settings, one_at_a_time
remote = RemoteFile("flowzoo/probe", sys.argv[2], "probe.safetensors")
with one_at_a_time(remote, hub_settings(cache_dir=sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_stopped_process_with_the_lock_stops_nobody_else(hub: HubServer, tmp_path: Path) -> None:
    cache = settings(hub.url, tmp_path).cache_dir
    command = [sys.executable, "-c", HOLD, str(cache), REMOTE.revision]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        started = time.monotonic()
        assert get(hub.url, tmp_path) == BODY
        assert 1 <= time.monotonic() - started < 10
        holder.kill()


def test_a_secret_goes_to_the_hub_and_to_no_other(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    monkeypatch.delenv("FLOWZOO_HUB_ENDPOINT", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    with HubServer() as storage:
        storage.add(REPO, {NAME: BODY}, revision=REMOTE.revision)
        location = f"{storage.url}/{REPO}/resolve/{REMOTE.revision}/{NAME}"
        hub.fault(status=302, headers={"Location": location})
        fetch(REMOTE, EXPECTED, hub_settings(cache_dir=tmp_path, offline=False), "probe")
        assert [request.headers.get("authorization") for request in hub.requests] == [
            "Bearer hf_abcdefghijklmnop"
        ]
        assert ["authorization" in request.headers for request in storage.requests] == [False]


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://[x",
        "http://h:x",
        "http://h:99999",
        "http://",
        "ftp://h",
        "http://h/?q",
        "http://a b",
        "http://u:secret@h",
    ],
)
def test_an_endpoint_that_is_no_address_is_one_line(endpoint: str) -> None:
    with pytest.raises(InputError, match="is not a web address") as error:
        hub_settings(endpoint=endpoint)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_cache_in_nobodys_home_is_one_line() -> None:
    with pytest.raises(InputError, match="write the whole path"):
        hub_settings(cache_dir="~nosuchuser/cache")


def test_nothing_is_left_of_what_was_refused(hub: HubServer, tmp_path: Path) -> None:
    hub.fault(method="GET", body=bytes(len(BODY)))
    with pytest.raises(FlowzooError):
        get(hub.url, tmp_path)
    assert cached_file(REMOTE, settings(hub.url, tmp_path)) is None
    assert {name for name in files(tmp_path) if ".locks" not in name} == set()
