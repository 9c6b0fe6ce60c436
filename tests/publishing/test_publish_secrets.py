"""The token that publishing needs: who is told it, and that no error repeats it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowzoo.errors import InputError, WeightsUnavailable
from flowzoo.publishing import Staged, upload
from flowzoo.weights.hub import hub_settings
from tests.hub_server import HubServer
from tests.probe import Probe, entry, save, trained

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in ("FLOWZOO_OFFLINE", "HF_HUB_OFFLINE", "FLOWZOO_HUB_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with HubServer() as server:
        yield server


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Staged]:
    with Probe.installed(tmp_path / "site", monkeypatch):
        flow = trained()
        (tmp_path / "stage").mkdir()
        weights = save(flow, tmp_path / "stage" / "probe.safetensors")
        (tmp_path / "stage" / "README.md").write_text("")
        (tmp_path / "stage" / "samples.png").write_bytes(b"")
        for name in ("flowzoo.json", "config.json"):
            (tmp_path / "stage" / name).write_text("{}")
        yield Staged(entry(flow, dataclasses.replace(weights, repo_id="org/probe")), tmp_path / "stage")


def test_a_mirror_is_not_published_to(
    hub: HubServer, staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWZOO_HUB_ENDPOINT", hub.url)
    with pytest.raises(InputError, match=f"set HF_ENDPOINT={hub.url}") as error:
        upload(staged, hub_settings())
    assert "\n" not in str(error.value)
    assert hub.requests == []


@pytest.mark.parametrize("status", [400, 404, 409, 418, 500])
def test_an_error_that_echoes_the_token_is_shown_without_it(
    hub: HubServer, staged: Staged, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    headers = {"X-Error-Message": f"no Bearer {TOKEN}", "Content-Type": "application/json"}
    hub.fault(
        path="/api/", status=status, headers=headers, body=json.dumps({"error": f"{TOKEN} " * 99}).encode()
    )
    with pytest.raises(WeightsUnavailable, match="was not published") as error:
        upload(staged, hub_settings())
    text = str(error.value)
    assert any(TOKEN in str(request.headers) for request in hub.requests)
    assert TOKEN not in text
    assert "\n" not in text
    assert len(text) < 800
