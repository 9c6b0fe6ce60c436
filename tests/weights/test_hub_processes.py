"""Fetching with several processes, killed processes, full disks and caches that cannot be written."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flowzoo.errors import WeightsUnavailable
from flowzoo.weights.hub import FileId, RemoteFile, cached_file, fetch, hub_settings
from flowzoo.weights.hub.settings import HubSettings
from tests.hub_server import HubServer

REPO = "flowzoo/probe"
NAME = "probe.safetensors"
BODY = random.Random(0).randbytes(200_000)
EXPECTED = FileId(hashlib.sha256(BODY).hexdigest(), len(BODY))


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


def get(remote: RemoteFile, settings: HubSettings) -> bytes:
    return fetch(remote, EXPECTED, settings, "probe").read_bytes()


def test_threads_that_ask_at_once_download_once(
    hub: HubServer, remote: RemoteFile, settings: HubSettings
) -> None:
    hub.fault(method="GET", seconds_per_chunk=0.02)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: get(remote, settings), range(8))) == {BODY}
    assert hub.bytes_sent == len(BODY)


FETCH = """
import sys
from flowzoo.weights.hub import FileId, RemoteFile, fetch, hub_settings
url, cache, revision, sha256, size = sys.argv[1:]
settings = hub_settings(endpoint=url, cache_dir=cache, offline=False)
remote = RemoteFile("flowzoo/probe", revision, "probe.safetensors")
print(fetch(remote, FileId(sha256, int(size)), settings, "probe"))
"""


def start(remote: RemoteFile, settings: HubSettings) -> subprocess.Popen[str]:
    arguments = [str(settings.endpoint), str(settings.cache_dir), remote.revision, EXPECTED.sha256]
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, *arguments, str(EXPECTED.size)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("count", [2, 8])
def test_processes_that_ask_at_once_download_once(
    hub: HubServer, remote: RemoteFile, settings: HubSettings, count: int
) -> None:
    hub.fault(method="GET", seconds_per_chunk=0.1)
    processes = [start(remote, settings) for _ in range(count)]
    paths = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0] * count
    assert hub.bytes_sent == len(BODY)
    assert {Path(path).read_bytes() for path in paths} == {BODY}


def test_a_download_that_was_killed_is_done_again(
    hub: HubServer, remote: RemoteFile, settings: HubSettings
) -> None:
    slow = hub.fault(method="GET", seconds_per_chunk=0.5)
    process = start(remote, settings)
    deadline = time.monotonic() + 30
    while hub.bytes_sent == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert cached_file(remote, settings) is None
    slow.seconds_per_chunk = 0
    assert get(remote, settings) == BODY


LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000));"


def test_a_file_too_large_for_the_disk_is_one_line(
    hub: HubServer, remote: RemoteFile, settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "FETCH", LIMITED + FETCH)
    process = start(remote, settings)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "WeightsUnavailable" in error
    assert "is full" in error
    assert cached_file(remote, settings) is None
    assert [
        path for path in settings.cache_dir.rglob("*") if path.is_file() and path.stat().st_size > 1000
    ] == []
    assert get(remote, settings) == BODY


def mounted(directory: Path, options: str) -> bool:
    """Mounts a small file system there, if this machine lets us."""
    directory.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    return os.name == "posix" and os.geteuid() == 0 and subprocess.run(command, check=False).returncode == 0


def test_a_full_disk_is_one_line(hub: HubServer, remote: RemoteFile, tmp_path: Path) -> None:
    cache = tmp_path / "small"
    if not mounted(cache, "size=100k"):
        pytest.skip("needs the right to mount a small file system")
    try:
        with pytest.raises(WeightsUnavailable, match="free some space") as error:
            get(remote, hub_settings(endpoint=hub.url, cache_dir=cache, offline=False))
        assert str(len(BODY)) in str(error.value)
        assert "\n" not in str(error.value)
        assert hub.bytes_sent == 0
    finally:
        subprocess.run(["umount", str(cache)], check=True)


def test_a_read_only_cache_serves_what_it_holds_and_explains_what_it_lacks(
    hub: HubServer, remote: RemoteFile, tmp_path: Path
) -> None:
    cache = tmp_path / "frozen"
    if not mounted(cache, "size=1m"):
        pytest.skip("needs the right to mount a read-only file system")
    settings = hub_settings(endpoint=hub.url, cache_dir=cache, offline=False)
    try:
        get(remote, settings)
        subprocess.run(["mount", "-o", "remount,ro", str(cache)], check=True)
        assert get(remote, settings) == BODY
        other = RemoteFile(REPO, hub.add(REPO, {"other.safetensors": BODY}), "other.safetensors")
        with pytest.raises(WeightsUnavailable, match=r"cannot be written .* HF_HUB_CACHE") as error:
            fetch(other, EXPECTED, settings, "probe")
        assert "\n" not in str(error.value)
    finally:
        subprocess.run(["umount", str(cache)], check=True)
