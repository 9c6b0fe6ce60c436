"""Every way in which fetching a pinned file can go wrong: the right file or one line, never another file."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowzoo.errors import FlowzooError, InputError, IntegrityError, WeightsUnavailable
from flowzoo.weights.hub import FileId, RemoteFile, cached_file, fetch, fetch_unlisted, hub_settings
from flowzoo.weights.hub.settings import HubSettings
from tests.hub_server import HubServer

REPO = "flowzoo/probe"
NAME = "probe.safetensors"
BODY = random.Random(0).randbytes(200_000)
EXPECTED = FileId(hashlib.sha256(BODY).hexdigest(), len(BODY))
OTHER = random.Random(1).randbytes(len(BODY))
FLIPPED = bytes([BODY[0] ^ 1]) + BODY[1:]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def remote(hub: HubServer) -> RemoteFile:
    return RemoteFile(REPO, hub.add(REPO, {NAME: BODY}), NAME)


@pytest.fixture
def settings(hub: HubServer, tmp_path: Path) -> HubSettings:
    return hub_settings(endpoint=hub.url, cache_dir=tmp_path / "cache", offline=False)


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowzoo.weights.hub.client.RETRY_WAITS", (0.01, 0.01))


@pytest.fixture
def trusted(hub: HubServer, settings: HubSettings, monkeypatch: pytest.MonkeyPatch) -> HubSettings:
    """The server as the Hub itself instead of a mirror."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    return dataclasses.replace(settings, endpoint=None)


def get(remote: RemoteFile, settings: HubSettings) -> bytes:
    return fetch(remote, EXPECTED, settings, "probe").read_bytes()


def message(error: pytest.ExceptionInfo[FlowzooError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def test_a_pinned_file_is_downloaded_once_and_then_costs_no_request(
    hub: HubServer, remote: RemoteFile, settings: HubSettings
) -> None:
    assert get(remote, settings) == BODY
    assert hub.bytes_sent == len(BODY)
    before = len(hub.requests)
    assert get(remote, settings) == BODY
    assert len(hub.requests) == before


def test_a_cached_file_needs_no_server(hub: HubServer, remote: RemoteFile, settings: HubSettings) -> None:
    get(remote, settings)
    hub.stop()
    assert get(remote, settings) == BODY


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((401, {}), "refuses access"),
        ((403, {"X-Error-Code": "GatedRepo"}), "gated.*accept its terms"),
        ((403, {}), "refuses access"),
        ((404, {"X-Error-Code": "RepoNotFound"}), "no repository flowzoo/probe"),
        ((404, {"X-Error-Code": "RevisionNotFound"}), "no revision"),
        ((404, {"X-Error-Code": "EntryNotFound"}), f"no file {NAME}"),
        ((429, {}), "too many requests"),
        ((500, {}), "out of order"),
        ((503, {}), "out of order"),
        ((418, {}), "HTTP 418"),
    ],
)
def test_a_refusal_is_one_line(
    hub: HubServer,
    remote: RemoteFile,
    settings: HubSettings,
    answer: tuple[int, dict[str, str]],
    words: str,
) -> None:
    hub.fault(status=answer[0], headers=answer[1])
    with pytest.raises(WeightsUnavailable, match=words) as error:
        get(remote, settings)
    assert hub.url in message(error)


def test_what_the_server_itself_does_not_have_is_named(hub: HubServer, settings: HubSettings) -> None:
    revision = hub.add(REPO, {NAME: BODY})
    for remote, words in [
        (RemoteFile("flowzoo/absent", revision, NAME), "no repository"),
        (RemoteFile(REPO, "0" * 40, NAME), "no revision"),
        (RemoteFile(REPO, revision, "absent.safetensors"), "no file"),
    ]:
        with pytest.raises(WeightsUnavailable, match=words):
            get(remote, settings)


def test_a_server_that_is_down_is_one_line(hub: HubServer, remote: RemoteFile, settings: HubSettings) -> None:
    hub.stop()
    with pytest.raises(WeightsUnavailable, match="Check the network") as error:
        get(remote, settings)
    assert hub.url in message(error)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(
    hub: HubServer, remote: RemoteFile, settings: HubSettings, status: int
) -> None:
    hub.fault(method="GET", status=status, times=1, headers={"Retry-After": "0"})
    assert get(remote, settings) == BODY


def test_a_redirect_is_followed(hub: HubServer, remote: RemoteFile, settings: HubSettings) -> None:
    hub.add("flowzoo/renamed", {NAME: BODY}, revision=remote.revision)
    where = f"/flowzoo/renamed/resolve/{remote.revision}/{NAME}"
    hub.fault(path=REPO, status=307, headers={"Location": where})
    assert get(remote, settings) == BODY


def test_a_redirect_to_another_host_is_followed_and_checked(
    hub: HubServer, remote: RemoteFile, settings: HubSettings
) -> None:
    with HubServer() as storage:
        storage.add(REPO, {NAME: BODY}, revision=remote.revision)
        headers = {
            "Location": f"{storage.url}/{REPO}/resolve/{remote.revision}/{NAME}",
            "X-Repo-Commit": remote.revision,
            "X-Linked-Etag": f'"{EXPECTED.sha256}"',
            "X-Linked-Size": str(EXPECTED.size),
        }
        hub.fault(status=302, headers=headers)
        storage.fault(method="GET", body=FLIPPED, times=1)
        assert get(remote, settings) == BODY
        assert storage.bytes_sent == 2 * len(BODY)
        assert hub.bytes_sent == 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (BODY[:-1000], "bytes|size"),
        (BODY + b"more", "bytes|size"),
        (b"", "bytes|size"),
        (FLIPPED, "expected sha256 .*found sha256"),
        (OTHER, "expected sha256 .*found sha256"),
    ],
    ids=["short", "long", "empty", "flipped bit", "wrong file of the right size"],
)
def test_a_wrong_body_is_tried_twice_and_never_used(
    hub: HubServer, remote: RemoteFile, settings: HubSettings, body: bytes, words: str
) -> None:
    hub.fault(method="GET", body=body)
    with pytest.raises(IntegrityError, match=words) as error:
        get(remote, settings)
    assert REPO.partition("/")[2] in message(error)
    assert hub.count("GET") == 2
    hub.faults.clear()
    assert get(remote, settings) == BODY


def test_a_body_that_never_ends_is_broken_off(
    hub: HubServer, remote: RemoteFile, settings: HubSettings
) -> None:
    hub.fault(method="GET", endless=True)
    with pytest.raises(IntegrityError, match=f"at most {len(BODY)} bytes, found more"):
        get(remote, settings)
    # It is asked twice, and both sides have buffers.
    assert hub.bytes_sent < 20 * 2**20
    assert cached_file(remote, settings) is None


def test_one_wrong_body_is_mended_by_the_second(
    hub: HubServer, remote: RemoteFile, settings: HubSettings
) -> None:
    hub.fault(method="GET", body=FLIPPED, times=1)
    assert get(remote, settings) == BODY


def test_a_file_announced_with_another_size_is_not_downloaded(hub: HubServer, settings: HubSettings) -> None:
    remote = RemoteFile(REPO, hub.add(REPO, {NAME: BODY + b"more"}), NAME)
    with pytest.raises(IntegrityError, match=f"expected {len(BODY)} bytes, found {len(BODY) + 4}"):
        get(remote, settings)
    assert list(settings.cache_dir.rglob("*.safetensors")) == []


def test_an_answer_for_another_revision_is_refused(
    hub: HubServer, remote: RemoteFile, settings: HubSettings
) -> None:
    hub.fault(headers={"X-Repo-Commit": "f" * 40})
    with pytest.raises(IntegrityError, match="answers for another revision"):
        get(remote, settings)


def test_a_spoilt_cached_file_is_replaced_once(
    hub: HubServer, remote: RemoteFile, settings: HubSettings
) -> None:
    path = fetch(remote, EXPECTED, settings, "probe")
    path.resolve().write_bytes(FLIPPED)
    assert get(remote, settings) == BODY
    path.resolve().write_bytes(FLIPPED)
    hub.fault(method="GET", body=OTHER)
    with pytest.raises(IntegrityError, match=NAME):
        get(remote, settings)
    assert hub.count("GET") == 3


def test_a_dropped_connection_is_resumed(hub: HubServer, settings: HubSettings) -> None:
    body = random.Random(2).randbytes(11 * 2**20)
    remote = RemoteFile(REPO, hub.add(REPO, {NAME: body}), NAME)
    hub.fault(method="GET", cut_at=10 * 2**20 + 5000, times=1)
    path = fetch(remote, FileId(hashlib.sha256(body).hexdigest(), len(body)), settings, "probe")
    assert path.read_bytes() == body
    asked = [request.headers.get("range") for request in hub.requests if request.method == "GET"]
    assert asked[0] is None
    assert str(asked[1]).startswith("bytes=")
    # Only the rest is asked for.
    assert hub.bytes_sent <= len(body) + 2**20


@pytest.mark.parametrize("what", [{"reset": True}, {"status": 500}], ids=["reset", "error"])
def test_a_download_that_breaks_once_is_tried_again(
    hub: HubServer, remote: RemoteFile, settings: HubSettings, what: dict[str, Any]
) -> None:
    hub.fault(method="GET", cut_at=100_000, times=1, **what)
    assert get(remote, settings) == BODY
    assert hub.count("GET") == 2


def test_a_connection_that_always_breaks_is_one_line(
    hub: HubServer, remote: RemoteFile, settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fault(method="GET", cut_at=1000)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(WeightsUnavailable, match="no usable answer") as error:
        get(remote, settings)
    message(error)
    assert cached_file(remote, settings) is None


def test_offline_without_the_file_names_all_it_takes_to_get_it(
    hub: HubServer, remote: RemoteFile, settings: HubSettings
) -> None:
    offline = hub_settings(endpoint=hub.url, cache_dir=settings.cache_dir, offline=True)
    with pytest.raises(WeightsUnavailable) as error:
        get(remote, offline)
    text = message(error)
    for part in (
        REPO,
        remote.revision,
        NAME,
        EXPECTED.sha256,
        str(EXPECTED.size),
        "flowzoo pull probe --to DIR",
    ):
        assert part in text
    assert hub.requests == []


def test_offline_with_the_file_makes_no_request(
    hub: HubServer, remote: RemoteFile, settings: HubSettings
) -> None:
    path = fetch(remote, EXPECTED, settings, "probe")
    before = len(hub.requests)
    offline = hub_settings(endpoint=hub.url, cache_dir=settings.cache_dir, offline=True)
    assert get(remote, offline) == BODY
    path.resolve().write_bytes(FLIPPED)
    with pytest.raises(IntegrityError, match="offline was asked for"):
        get(remote, offline)
    assert len(hub.requests) == before


@pytest.mark.parametrize("name", ["FLOWZOO_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_is_read_at_call_time(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("FLOWZOO_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert not hub_settings().offline
    monkeypatch.setenv(name, "1")
    assert hub_settings().offline
    assert name in hub_settings().offline_reason
    assert not hub_settings(offline=False).offline
    monkeypatch.setenv(name, "0")
    assert not hub_settings().offline


def test_the_endpoint_and_the_cache_are_read_at_call_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLOWZOO_HUB_ENDPOINT", "https://hub.example.org/")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert hub_settings().endpoint == "https://hub.example.org"
    assert hub_settings(endpoint="http://other:8080").endpoint == "http://other:8080"
    assert hub_settings().cache_dir == tmp_path
    with pytest.raises(InputError, match="web address"):
        hub_settings(endpoint="hub.example.org")


def test_a_mirror_is_told_no_token(
    hub: HubServer, remote: RemoteFile, settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    get(remote, settings)
    assert hub.requests
    assert all("authorization" not in request.headers for request in hub.requests)


@pytest.mark.parametrize("revision", ["main", "v1.0", "0" * 39, "0" * 41, "A" * 40, ""])
def test_only_a_commit_is_a_revision(revision: str) -> None:
    with pytest.raises(InputError, match="40 hex digits"):
        RemoteFile(REPO, revision, NAME)


@pytest.mark.parametrize(
    "filename",
    ["../x", "a/../../x", "/etc/passwd", "", "a//b", "./x", "a\\b", "C:x", "a\0b", "x/", "..", "a\nb"],
)
def test_a_filename_stays_in_its_directory(filename: str) -> None:
    with pytest.raises(InputError, match="plain relative path"):
        RemoteFile(REPO, "0" * 40, filename)


@pytest.mark.parametrize("repo", ["probe", "a/b/c", "../b", "a/..", "a b/c", ""])
def test_a_repository_is_organization_and_name(repo: str) -> None:
    with pytest.raises(InputError, match="organization/name"):
        RemoteFile(repo, "0" * 40, NAME)


def test_an_unlisted_file_has_a_length_limit(
    hub: HubServer, remote: RemoteFile, trusted: HubSettings
) -> None:
    with pytest.raises(IntegrityError, match="at most 1000 bytes"):
        fetch_unlisted(remote, trusted, max_bytes=1000)
    assert fetch_unlisted(remote, trusted, max_bytes=10**6).read_bytes() == BODY


def test_a_proxy_of_the_environment_is_used(
    hub: HubServer, remote: RemoteFile, settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", hub.url)
    monkeypatch.delenv("no_proxy", raising=False)
    behind = dataclasses.replace(settings, endpoint="http://hub.invalid")
    assert get(remote, behind) == BODY


def test_https_is_spoken_with_those_whose_certificate_is_known(
    hub: HubServer, remote: RemoteFile, settings: HubSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
    ]  # fmt: skip
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    if (
        shutil.which("openssl") is None
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        pytest.skip("needs openssl to make a certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    hub.wrap(context)
    secure = dataclasses.replace(settings, endpoint=hub.url.replace("http://127.0.0.1", "https://localhost"))
    with pytest.raises(WeightsUnavailable, match="certificate") as error:
        get(remote, secure)
    message(error)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert get(remote, secure) == BODY
    hub.fault(status=302, headers={"Location": hub.url})
    shutil.rmtree(settings.cache_dir)
    with pytest.raises(WeightsUnavailable, match="away from https"):
        get(remote, secure)
