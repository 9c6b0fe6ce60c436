"""``flowzoo pull``, ``cache`` and ``verify`` as a user runs them: one line and an exit code for every fault."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowzoo.cli.main import main
from flowzoo.manifest.schema import Entry, Fingerprint, Weights
from flowzoo.registry import reset_registry
from tests.first_party import PLUGINS
from tests.hub_server import HubServer
from tests.probe import FILENAME, REPO, Probe, entry, fingerprinted, save, trained, write_directory


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Probe]:
    with Probe.installed(tmp_path / "site", monkeypatch) as probe:
        yield probe


@pytest.fixture
def content(probe: Probe, tmp_path: Path) -> bytes:
    save(trained(), tmp_path / "made.safetensors")
    return (tmp_path / "made.safetensors").read_bytes()


@pytest.fixture
def listed(probe: Probe, hub: HubServer, content: bytes, tmp_path: Path) -> Entry:
    """A model on the Hub and in the manifest, with its fingerprint."""
    flow = trained()
    weights = save(flow, tmp_path / "made.safetensors")
    revision = hub.add(REPO, {FILENAME: content})
    found = fingerprinted(flow, dataclasses.replace(weights, repo_id=REPO, revision=revision))
    probe.list(found)
    return found


@pytest.fixture
def reach(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    return {"FLOWZOO_HUB_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache")}


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Runs the command line in this process, which has torch already; returns exit code and stdout."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code, capsys.readouterr().out


def weights_of(listed: Entry) -> Weights:
    assert listed.weights is not None
    return listed.weights


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ({"status": 403, "headers": {"X-Error-Code": "GatedRepo"}}, 6, "gated"),
        ({"status": 404, "headers": {"X-Error-Code": "EntryNotFound"}}, 6, "no file"),
        ({"method": "GET", "body": "flipped"}, 5, "expected sha256"),
        ({"method": "GET", "body": "cut"}, 5, "bytes announced"),
    ],
    ids=["gated", "no file", "flipped bit", "cut short"],
)
def test_a_fault_of_the_server_ends_in_one_line_and_a_code(
    fault: dict[str, object],
    code: int,
    words: str,
    hub: HubServer,
    probe: Probe,
    listed: Entry,
    reach: dict[str, str],
    content: bytes,
) -> None:
    bodies = {"flipped": flipped(content), "cut": content[:-10]}
    hub.fault(
        **{key: bodies.get(str(value), value) if key == "body" else value for key, value in fault.items()}
    )
    result = probe.run("pull", "probe-tiny", **reach)
    assert result.returncode == code
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["pull", "prob-tiny"], 3, "Did you mean 'probe-tiny'"),
        (["pull", "some/repo"], 8, "'path:some/repo'"),
        (["pull", "path:"], 8, "'path:DIR'"),
        (["pull", "hf:some/repo@main"], 8, "40 hex digits"),
        (["pull", "--offline", "probe-tiny"], 6, "flowzoo pull probe-tiny --to DIR"),
        (["pull", "--endpoint", "nowhere", "probe-tiny"], 8, "web address"),
        (["pull"], 2, "Missing argument"),
        (["verify"], 2, "--all"),
        (["cache", "rm"], 2, "--all"),
    ],
)
def test_a_mistake_ends_in_one_line_and_a_code(
    arguments: list[str], code: int, words: str, probe: Probe, listed: Entry, reach: dict[str, str]
) -> None:
    result = probe.run(*arguments, **reach)
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert words in result.stderr
    assert code == 2 or len(result.stderr.splitlines()) == 1


def test_a_dead_server_ends_in_one_line_within_seconds(
    hub: HubServer, probe: Probe, listed: Entry, reach: dict[str, str]
) -> None:
    hub.stop()
    result = probe.run("pull", "probe-tiny", **reach)
    assert result.returncode == 6
    [line] = result.stderr.splitlines()
    assert "Check the network" in line


def test_pull_fetches_copies_and_the_copy_loads_on_another_machine(
    hub: HubServer,
    probe: Probe,
    listed: Entry,
    reach: dict[str, str],
    content: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usb = tmp_path / "usb"
    result = probe.run("pull", "probe-tiny", "--to", str(usb), "--json", **reach)
    assert result.returncode == 0, result.stderr
    [row] = json.loads(result.stdout)
    weights = weights_of(listed)
    assert row == {
        "name": "probe-tiny",
        "sha256": weights.sha256,
        "size": len(content),
        "path": str(usb / f"{weights.sha256}.safetensors"),
    }
    assert f"FLOWZOO_WEIGHTS_DIR={usb}" in result.stderr
    elsewhere = {
        "FLOWZOO_WEIGHTS_DIR": str(usb),
        "FLOWZOO_OFFLINE": "1",
        "HF_HUB_CACHE": str(tmp_path / "no"),
    }
    hub.stop()
    for name, value in elsewhere.items():
        monkeypatch.setenv(name, value)
    code, out = call(capsys, "verify", "probe-tiny")
    assert code == 0
    assert "verified" in out


def test_pull_brings_unlisted_models_along(
    hub: HubServer, probe: Probe, reach: dict[str, str], tmp_path: Path
) -> None:
    write_directory(tmp_path / "mine", trained())
    revision = hub.add("some/one", {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()})
    trusted = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": reach["HF_HUB_CACHE"]}
    result = probe.run("pull", f"hf:some/one@{revision}", "--to", str(tmp_path / "usb"), "--json", **trusted)
    assert result.returncode == 0, result.stderr
    [row] = json.loads(result.stdout)
    hub.stop()
    assert f'flowzoo.load("path:{row["path"]}")' in result.stderr
    assert probe.run("pull", f"path:{row['path']}", FLOWZOO_OFFLINE="1").returncode == 0


def test_cache_lists_checks_and_removes(
    probe: Probe,
    listed: Entry,
    reach: dict[str, str],
    content: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in reach.items():
        monkeypatch.setenv(name, value)

    def downloaded() -> list[dict[str, object]]:
        rows: list[dict[str, object]] = json.loads(call(capsys, "cache", "ls", "--json")[1])
        return [row for row in rows if row["source"] == "hub cache"]

    assert downloaded() == []
    assert call(capsys, "pull", "probe-tiny")[0] == 0
    [row] = downloaded()
    assert (row["name"], row["size"]) == ("probe-tiny@1", len(content))
    assert call(capsys, "cache", "verify", "probe-tiny")[0] == 0
    Path(str(row["path"])).resolve().write_bytes(flipped(content))
    code, out = call(capsys, "cache", "verify", "probe-tiny")
    assert code == 5
    assert "BAD: expected sha256" in out
    place = Path(str(row["path"]))
    leftover = place.with_name(".partial-0123-x")
    leftover.write_bytes(b"1234567")
    foreign = tmp_path / "cache" / "models--flowzoo--probe" / "blobs" / "x.incomplete"
    foreign.parent.mkdir()
    foreign.write_bytes(b"another program is at it")
    code, out = call(capsys, "cache", "rm", "probe-tiny")
    assert code == 0
    assert str(len(content) + 7) in out
    assert not leftover.exists()
    assert foreign.exists()
    assert downloaded() == []
    assert call(capsys, "cache", "rm", "--all") == (0, "")


def test_verify_tells_right_from_wrong(
    probe: Probe,
    listed: Entry,
    reach: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in reach.items():
        monkeypatch.setenv(name, value)
    # The zoo's own models are another test's business: here they are left out.
    monkeypatch.setenv("FLOWZOO_DISABLE_PLUGINS", ",".join(PLUGINS))
    reset_registry()
    assert listed.fingerprint is not None
    bpd = (listed.fingerprint.bpd[0] + 0.01, *listed.fingerprint.bpd[1:])
    wrong = dataclasses.replace(listed, name="probe-wrong", fingerprint=Fingerprint(bpd=bpd, tolerance=1e-5))
    silent = dataclasses.replace(listed, name="probe-silent", fingerprint=None)
    untrained = entry(trained(), None, name="probe-untrained")
    probe.list(listed, wrong, silent, untrained)
    worst, out = call(capsys, "verify", "--all", "--json")
    rows = {row["model"]: row for row in json.loads(out)}
    left_out = [rows.pop(name) for name in list(rows) if not name.startswith("probe")]
    assert {row["result"] for row in left_out} == {"skipped"}
    assert {row["detail"] for row in left_out} == {"its plugin is disabled"}
    assert rows["probe-tiny@1"]["result"] == "verified"
    assert float(rows["probe-tiny@1"]["difference"]) < 1e-9
    assert rows["probe-wrong@1"]["result"] == "NOT VERIFIED"
    assert rows["probe-silent@1"]["result"] == "ERROR"
    assert set(rows) == {"probe-tiny@1", "probe-wrong@1", "probe-silent@1"}
    assert worst != 0
    assert call(capsys, "verify", "probe-wrong")[0] == 1
    monkeypatch.setenv("FLOWZOO_DISABLE_PLUGINS", ",".join([*PLUGINS, "probe"]))
    reset_registry()
    code, out = call(capsys, "verify", "--all", "--json")
    assert {row["result"] for row in json.loads(out)} == {"skipped"}
    assert code == 1, "nothing verified is no success"
    monkeypatch.setenv("FLOWZOO_DISABLE_PLUGINS", ",".join(PLUGINS))
    reset_registry()
    assert call(capsys, "verify", "probe-untrained")[0] == 6
