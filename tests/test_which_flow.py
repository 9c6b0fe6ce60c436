"""The page that compares all architectures: its facts hold, and its measurements measure something."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import flowzoo
from flowzoo.manifest.read import Manifest
from flowzoo.registry import get_architecture
from tools import which_flow
from tools.which_flow import (
    PAGE,
    ROWS,
    costs,
    differences,
    facts,
    kept_of_an_image,
    main,
    mnist_preset,
    render,
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """As much of the repository as the page is made of."""
    for name in (PAGE, ROWS, "weights_manifest.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for plugin in (ROOT / "plugins").glob("*/pyproject.toml"):
        (tmp_path / "plugins" / plugin.parent.name).mkdir(parents=True)
    return tmp_path


def rows(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / ROWS).read_text(encoding="utf-8"))
    return found


def test_the_page_is_up_to_date() -> None:
    assert differences(ROOT) == []
    assert CliRunner().invoke(main, ["--check"]).exit_code == 0


def test_another_fact_is_found(copy: Path) -> None:
    assert differences(copy) == []
    changed = rows(copy)
    changed["glow"]["parameters"] += 1
    (copy / ROWS).write_text(json.dumps(changed), encoding="utf-8")
    assert differences(copy) == ["glow: parameters"]
    del changed["glow"]
    (copy / ROWS).write_text(json.dumps(changed), encoding="utf-8")
    assert differences(copy)[0].startswith("glow: preset")


def test_an_edited_page_is_found_and_another_time_is_not_a_fact(copy: Path) -> None:
    (copy / PAGE).write_text((copy / PAGE).read_text(encoding="utf-8") + "more\n", encoding="utf-8")
    assert differences(copy) == [PAGE]
    changed = rows(copy)
    changed["glow"]["log_prob_ms"] = 98765.0
    (copy / ROWS).write_text(json.dumps(changed), encoding="utf-8")
    (copy / PAGE).write_text(render(changed), encoding="utf-8")
    assert differences(copy) == []
    assert "99,000" in (copy / PAGE).read_text(encoding="utf-8")


def test_renewing_keeps_measurements_and_drops_plugins_that_are_gone(copy: Path) -> None:
    before = rows(copy)
    gone = {**before, "nowhere": before["glow"]}
    gone["glow"] = {**before["glow"], "parameters": 1}
    (copy / ROWS).write_text(json.dumps(gone), encoding="utf-8")
    which_flow.update(copy, (), measure=False)
    assert rows(copy) == before
    assert differences(copy) == []


def test_a_row_has_what_the_model_says() -> None:
    row = facts(get_architecture("glow"), Manifest())
    assert row is not None
    flow = flowzoo.create("glow-mnist", device="meta")
    assert row["parameters"] == sum(p.numel() for p in flow.parameters())
    assert (row["log_det"], row["bound"], row["inverse"]) == ("exact", True, "analytic")
    assert row["bpd"] is None


def test_costs_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(which_flow, "ENOUGH_SECONDS", 0.01)
    threads = torch.get_num_threads()
    found = costs("glow-tiny")
    assert torch.get_num_threads() == threads
    assert found["log_prob_ms"] > 0 and found["sample_ms"] > 0
    assert set(found["kept_bytes"]) == {"store", "checkpoint", "invertible"}


def test_kept_memory_grows_with_depth_only_if_it_is_stored() -> None:
    x = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)

    def kept(depth: int, mode: Any) -> int:
        return kept_of_an_image(flowzoo.create("glow-tiny", depth=depth), x, mode)

    assert kept(8, "store") > 2 * kept(2, "store") > 0
    assert kept(8, "invertible") == kept(2, "invertible") > 0
    assert kept(8, "invertible") < kept(8, "checkpoint") < kept(8, "store")


def test_every_first_party_architecture_has_a_model_for_mnist() -> None:
    names = [path.parent.name for path in (ROOT / "plugins").glob("*/pyproject.toml")]
    known = set(flowzoo.list_architectures())
    assert all(mnist_preset(get_architecture(name)) for name in names if name in known)
