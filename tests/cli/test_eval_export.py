"""``flowzoo eval`` of an exported directory: its own fingerprint is what it can be held to."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowzoo.cli.main import main
from flowzoo.weights.fingerprint import take_fingerprint
from tests.probe import Probe, trained, write_directory


@pytest.fixture
def images(tmp_path: Path) -> str:
    path = tmp_path / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8))
    return f"numpy:{path}"


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["eval", *arguments])
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out, captured.err


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes an export whose fingerprint is off by so much; None for an export without one."""

    def write(off: float | None) -> str:
        flow = trained()
        fingerprint = dataclasses.asdict(take_fingerprint(flow))
        first, *others = fingerprint["bpd"]
        stated = {} if off is None else {"fingerprint": fingerprint | {"bpd": [first + off, *others]}}
        write_directory(tmp_path / "export", flow, **stated)
        return str(tmp_path / "export")

    with Probe.installed(tmp_path / "site", monkeypatch):
        yield write


@pytest.mark.parametrize("prefix", ["", "path:"])
def test_the_fingerprint_of_an_export_is_compared(
    export: Any, images: str, capsys: pytest.CaptureFixture[str], prefix: str
) -> None:
    code, out, err = evaluated(capsys, prefix + export(0.0), "--data", images)
    assert code == 0, err
    assert "fingerprint" in out
    assert "verified; differs by" in out


def test_other_weights_or_code_are_not_verified(
    export: Any, images: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = export(0.01)
    code, out, _ = evaluated(capsys, where, "--data", images)
    assert code == 1
    assert "NOT VERIFIED" in out
    code, out, _ = evaluated(capsys, where, "--data", images, "--json")
    assert code == 1
    assert json.loads(out)["fingerprint"]["verified"] is False


def test_an_export_without_a_fingerprint_is_measured_all_the_same(
    export: Any, images: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = evaluated(capsys, export(None), "--data", images, "--json")
    assert code == 0
    assert "fingerprint" not in json.loads(out)
