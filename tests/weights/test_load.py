"""``load`` gives the trained model or an error: where weights come from, and what is refused on the way."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flowzoo.errors import (
    ConfigError,
    FlowzooError,
    InputError,
    IntegrityError,
    ManifestError,
    UnknownArchitecture,
    UnknownModel,
    WeightsUnavailable,
)
from flowzoo.flow import Flow
from flowzoo.manifest.schema import Entry, Weights
from flowzoo.weights.external import Unlisted
from flowzoo.weights.load import load
from tests.hub_server import HubServer
from tests.probe import FILENAME, REPO, Probe, entry, save, trained, write_directory

IMAGES = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: HubServer) -> Iterator[Probe]:
    for name in ("FLOWZOO_OFFLINE", "HF_HUB_OFFLINE", "FLOWZOO_WEIGHTS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLOWZOO_HUB_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("flowzoo.weights.hub.client.RETRY_WAITS", (0.01,))
    with Probe.installed(tmp_path / "site", monkeypatch) as probe:
        yield probe


@pytest.fixture
def flow(probe: Probe) -> Flow:
    return trained()


def trusted(monkeypatch: pytest.MonkeyPatch, hub: HubServer) -> None:
    """Makes a server the Hub itself instead of a mirror of it."""
    monkeypatch.delenv("FLOWZOO_HUB_ENDPOINT", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)


def publish(hub: HubServer, probe: Probe, flow: Flow, tmp_path: Path) -> Entry:
    """Puts a flow on the Hub and into the manifest."""
    weights = save(flow, tmp_path / "made.safetensors")
    revision = hub.add(REPO, {FILENAME: (tmp_path / "made.safetensors").read_bytes()})
    found = entry(flow, dataclasses.replace(weights, repo_id=REPO, revision=revision))
    probe.list(found)
    return found


def same(a: Flow, b: Flow) -> bool:
    return torch.equal(a.encode(IMAGES), b.encode(IMAGES))


def test_a_model_comes_from_the_hub_whole_and_ready(
    hub: HubServer, probe: Probe, flow: Flow, tmp_path: Path
) -> None:
    published = publish(hub, probe, flow, tmp_path)
    loaded = load("probe-tiny")
    assert same(loaded, flow)
    assert not loaded.training
    assert loaded.card == published
    assert loaded.architecture == "probe"
    assert loaded.is_initialized
    assert loaded.encode(IMAGES).dtype == torch.float32
    assert hub.bytes_sent == published.weights.size if published.weights else False
    assert load("probe-tiny@1").card == published


def test_what_is_loaded_does_not_depend_on_the_random_state(
    hub: HubServer, probe: Probe, flow: Flow, tmp_path: Path
) -> None:
    publish(hub, probe, flow, tmp_path)
    torch.manual_seed(1)
    first = load("probe-tiny").state_dict()
    torch.manual_seed(2)
    second = load("probe-tiny").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in flow.state_dict())
    assert all(torch.equal(first[name], tensor) for name, tensor in flow.state_dict().items())


def test_float64_is_allowed_and_half_precision_is_not(
    hub: HubServer, probe: Probe, flow: Flow, tmp_path: Path
) -> None:
    publish(hub, probe, flow, tmp_path)
    assert load("probe-tiny", dtype=torch.float64).encode(IMAGES).dtype == torch.float64
    with pytest.raises(InputError, match="set_network_dtype"):
        load("probe-tiny", dtype=torch.float16)


def test_a_cached_model_costs_no_request(hub: HubServer, probe: Probe, flow: Flow, tmp_path: Path) -> None:
    publish(hub, probe, flow, tmp_path)
    load("probe-tiny")
    before = len(hub.requests)
    assert same(load("probe-tiny"), flow)
    assert len(hub.requests) == before
    hub.stop()
    assert same(load("probe-tiny"), flow)
    assert same(load("probe-tiny", offline=True), flow)


def test_overlay_comes_before_the_plugin_before_the_hub(
    hub: HubServer, probe: Probe, flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publish(hub, probe, flow, tmp_path)
    assert published.weights is not None
    bundled = probe.package / "weights" / FILENAME
    shutil.copy(tmp_path / "made.safetensors", bundled)
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    monkeypatch.setenv("FLOWZOO_WEIGHTS_DIR", str(overlay))
    assert same(load("probe-tiny"), flow)
    assert hub.requests == []
    # Another file of the wheel that has the name which ours has on the Hub is not ours.
    bundled.write_bytes(b"no weights")
    assert same(load("probe-tiny"), flow)
    asked = len(hub.requests)
    assert asked == 1
    # Without a place on the Hub, or in a folder of digests, a bad file is an error that names it.
    probe.list(dataclasses.replace(published, weights=dataclasses.replace(published.weights, revision=None)))
    with pytest.raises(IntegrityError, match=r"site.*pip install --force-reinstall"):
        load("probe-tiny")
    shutil.copy(tmp_path / "made.safetensors", overlay / f"{published.weights.sha256}.safetensors")
    assert same(load("probe-tiny"), flow)
    (overlay / f"{published.weights.sha256}.safetensors").write_bytes(b"no weights")
    with pytest.raises(IntegrityError, match=r"overlay.*flowzoo pull probe-tiny --to"):
        load("probe-tiny")
    assert len(hub.requests) == asked


def test_offline_without_weights_says_how_to_get_them(
    hub: HubServer, probe: Probe, flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, probe, flow, tmp_path)
    monkeypatch.setenv("FLOWZOO_OFFLINE", "1")
    with pytest.raises(WeightsUnavailable, match="flowzoo pull probe-tiny --to DIR"):
        load("probe-tiny")
    assert hub.requests == []
    assert same(load("probe-tiny", offline=False), flow)


def test_an_unpublished_model_names_the_command_that_trains_it(probe: Probe, flow: Flow) -> None:
    probe.list(entry(flow, None))
    with pytest.raises(WeightsUnavailable, match="flowzoo train probe-tiny") as error:
        load("probe-tiny")
    assert "\n" not in str(error.value)


def test_a_preset_without_weights_names_the_command_that_trains_it(probe: Probe) -> None:
    with pytest.raises(WeightsUnavailable, match=r"preset.*flowzoo train probe-tiny --out RUN"):
        load("probe-tiny")


def test_weights_that_are_neither_on_the_hub_nor_here_are_unavailable(
    probe: Probe, flow: Flow, tmp_path: Path
) -> None:
    probe.list(entry(flow, save(flow, tmp_path / "w.safetensors")))
    with pytest.raises(WeightsUnavailable, match="none on this machine"):
        load("probe-tiny")


def test_a_deprecated_model_loads_with_a_warning(
    hub: HubServer, probe: Probe, flow: Flow, tmp_path: Path
) -> None:
    probe.list(dataclasses.replace(publish(hub, probe, flow, tmp_path), status="deprecated"))
    with pytest.warns(FutureWarning, match="probe-tiny@1 is deprecated"):
        assert same(load("probe-tiny"), flow)


def test_an_unknown_name_gets_suggestions(probe: Probe, flow: Flow) -> None:
    probe.list(entry(flow, None))
    with pytest.raises(UnknownModel, match="Did you mean 'probe-tiny'"):
        load("prob-tiny")
    with pytest.raises(UnknownModel, match="no version '7'"):
        load("probe-tiny@7")


@pytest.mark.parametrize("name", ["org/repo", "./org/repo", "~/models/x", "here", "a\\b", "/abs/dir"])
def test_a_bare_path_or_repository_is_refused_with_both_spellings(
    probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(InputError) as error:
        load(name)
    assert f"'path:{name}'" in str(error.value)
    # Only what could be a repository is called one.
    repo = name if name == "org/repo" else "org/name"
    assert f"'hf:{repo}@<40 hex digits of a commit>'" in str(error.value)


def test_a_config_that_does_not_hash_to_what_the_entry_says_is_refused(
    hub: HubServer, probe: Probe, flow: Flow, tmp_path: Path
) -> None:
    published = publish(hub, probe, flow, tmp_path)
    probe.list(dataclasses.replace(published, config_hash="0" * 64))
    with pytest.raises(IntegrityError, match="expected config_hash 0000"):
        load("probe-tiny")
    assert hub.requests == []


def test_an_architecture_that_is_not_installed_is_named(
    hub: HubServer, probe: Probe, flow: Flow, tmp_path: Path
) -> None:
    probe.list(dataclasses.replace(publish(hub, probe, flow, tmp_path), architecture="absent"))
    with pytest.raises(UnknownArchitecture, match="absent"):
        load("probe-tiny")


def test_a_directory_loads(probe: Probe, flow: Flow, tmp_path: Path) -> None:
    write_directory(tmp_path / "mine", flow, extra={"kept": 1})
    loaded = load(f"path:{tmp_path / 'mine'}")
    assert same(loaded, flow)
    assert isinstance(loaded.card, Unlisted)
    assert loaded.card.details == {"extra": {"kept": 1}}


def test_a_pinned_repository_loads_and_then_needs_no_server(
    hub: HubServer, probe: Probe, flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted(monkeypatch, hub)
    write_directory(tmp_path / "mine", flow)
    files = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    revision = hub.add("some/one", files)
    assert same(load(f"hf:some/one@{revision}"), flow)
    hub.stop()
    assert same(load(f"hf:some/one@{revision}"), flow)


def test_a_mirror_cannot_bring_a_card(
    hub: HubServer, probe: Probe, flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_directory(tmp_path / "mine", flow)
    files = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    revision = hub.add("some/one", files)
    trusted(monkeypatch, hub)
    with HubServer() as mirror:
        mirror.add("some/one", files, revision=revision)
        with pytest.raises(InputError, match="set HF_ENDPOINT to a server that you trust") as error:
            load(f"hf:some/one@{revision}", endpoint=mirror.url)
        assert "\n" not in str(error.value)
        assert mirror.requests == []
        # With the Hub's own card, its digest decides, and the weights may come from anywhere.
        load(f"hf:some/one@{revision}")
        next((tmp_path / "cache").rglob("model.safetensors")).unlink()
        assert same(load(f"hf:some/one@{revision}", endpoint=mirror.url), flow)
        assert mirror.bytes_sent == len(files["model.safetensors"])


def test_a_card_from_another_server_is_never_taken_for_the_hubs(
    hub: HubServer, probe: Probe, flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_directory(tmp_path / "mine", flow)
    write_directory(tmp_path / "evil", trained(seed=1))
    revision = hub.add("some/one", {p.name: p.read_bytes() for p in (tmp_path / "mine").iterdir()})
    evil = {p.name: p.read_bytes() for p in (tmp_path / "evil").iterdir()}
    # In the layout of the Hub's own client, as another program or an older flowzoo left it.
    snapshot = tmp_path / "cache" / "models--some--one" / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for name, content in evil.items():
        (snapshot / name).write_bytes(content)
    with HubServer() as other:
        other.add("some/one", evil, revision=revision)
        trusted(monkeypatch, other)
        assert not same(load(f"hf:some/one@{revision}"), flow)
    trusted(monkeypatch, hub)
    assert same(load(f"hf:some/one@{revision}"), flow)


def test_a_spoilt_cached_card_is_replaced(
    hub: HubServer, probe: Probe, flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted(monkeypatch, hub)
    write_directory(tmp_path / "mine", flow)
    revision = hub.add("some/one", {p.name: p.read_bytes() for p in (tmp_path / "mine").iterdir()})
    load(f"hf:some/one@{revision}")
    cached = next((tmp_path / "cache").rglob("flowzoo.json")).resolve()
    cached.write_bytes(b"{")
    with pytest.raises(ConfigError, match="not JSON"):
        load(f"hf:some/one@{revision}", offline=True)
    assert same(load(f"hf:some/one@{revision}"), flow)
    assert same(load(f"hf:some/one@{revision}", offline=True), flow)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf:some/one", "names no commit"),
        ("hf:some/one@main", "40 hex digits"),
        ("hf:some/one@v1", "40 hex digits"),
        ("hf:one@" + "0" * 40, "organization/name"),
        ("hf:../one@" + "0" * 40, "organization/name"),
    ],
)
def test_a_repository_has_to_be_pinned(hub: HubServer, probe: Probe, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load(name)
    assert hub.requests == []


def test_a_directory_without_a_card_is_explained(probe: Probe, tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match=r"flowzoo\.json and model\.safetensors"):
        load(f"path:{tmp_path}")


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"schema": 2}, ConfigError, "schema 1"),
        ({"config": {"hidden_units": "many"}}, ConfigError, "hidden_units"),
        ({"config": {"surprise": 1}}, ConfigError, "unknown key 'surprise'"),
        ({"config_hash": "0" * 64}, IntegrityError, "config_hash"),
        ({"architecture": "absent"}, UnknownArchitecture, "absent"),
        ({"architecture": 1}, ConfigError, "expected str"),
        ({"weights": {}}, ManifestError, "missing"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(
    probe: Probe, flow: Flow, tmp_path: Path, changes: dict[str, object], kind: type[FlowzooError], words: str
) -> None:
    write_directory(tmp_path / "mine", flow, **changes)
    with pytest.raises(kind, match=words):
        load(f"path:{tmp_path / 'mine'}")


def test_a_card_cannot_reach_out_of_its_directory(probe: Probe, flow: Flow, tmp_path: Path) -> None:
    card = write_directory(tmp_path / "mine", flow)
    secret = save(flow, tmp_path / "secret.safetensors")
    for filename in ("../secret.safetensors", str(tmp_path / "secret.safetensors")):
        weights = card["weights"] | {"filename": filename, "sha256": secret.sha256, "size": secret.size}
        (tmp_path / "mine" / "flowzoo.json").write_text(json.dumps({**card, "weights": weights}))
        with pytest.raises(ManifestError, match="without directories"):
            load(f"path:{tmp_path / 'mine'}")


def test_a_card_in_another_encoding_or_of_another_kind_is_refused(probe: Probe, tmp_path: Path) -> None:
    for content in (b"\x80\x04K\x01.", b"[1]", b"", b'{"schema": 1', b"[" * 100_000):
        (tmp_path / "flowzoo.json").write_bytes(content)
        with pytest.raises(ConfigError):
            load(f"path:{tmp_path}")


def test_weights_stored_in_half_precision_load_as_float32(probe: Probe, flow: Flow, tmp_path: Path) -> None:
    from flowzoo.weights.checkpoint import save_weights

    card = write_directory(tmp_path / "mine", flow)
    sha256, size = save_weights(flow, tmp_path / "mine" / "model.safetensors", {}, dtype=torch.float16)
    half = Weights(filename="model.safetensors", sha256=sha256, size=size, dtype="float16")
    (tmp_path / "mine" / "flowzoo.json").write_text(json.dumps({**card, "weights": dataclasses.asdict(half)}))
    loaded = load(f"path:{tmp_path / 'mine'}")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.allclose(loaded.encode(IMAGES), flow.encode(IMAGES), atol=0.05)
