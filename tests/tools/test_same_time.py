"""The comparison after the same time: it trains for the time it is given, and keeps what it has found."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flowzoo.data import get_dataset
from flowzoo.training.train import find_recipe
from tools import same_time, which_flow


def test_the_rate_rises_and_falls_to_zero() -> None:
    factors = [same_time.factor(share / 100) for share in range(101)]
    assert factors[0] == 0
    assert max(factors) == factors[5] == 1
    assert factors[100] == pytest.approx(0, abs=1e-12)
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert same_time.factor(1.2) == same_time.factor(1.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processor time that goes on by a second whenever somebody looks."""
    ticks = itertools.count()
    monkeypatch.setattr(time, "process_time", lambda: float(next(ticks)))


@pytest.mark.usefixtures("clock")
def test_a_training_takes_its_time_and_learns() -> None:
    recipe = find_recipe("cdf-mnist", ["train.batch_size=50"])
    images = get_dataset("mnist").load("test").take(200)
    flow, updates = same_time.trained(recipe, images, 30.0)
    assert updates == 29
    assert not flow.training
    found = same_time.tested(flow, images, 60.0)
    assert found["images"] == 200
    # Eight bits before, of a uniform histogram.
    assert found["bpd"] < 7


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("seconds", "images"), [(60.0, 50), (1.5, 17), (2.5, 34)])
def test_images_are_measured_while_there_is_time(
    seconds: float, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(same_time, "BATCH", 20)
    flow = same_time.build_model(find_recipe("cdf-mnist")).eval()
    test = get_dataset("mnist").load("test").take(50)
    assert same_time.tested(flow, test, seconds)["images"] == images


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """As much of the repository as the page is made of, with two architectures."""
    known = which_flow.read_rows(which_flow.ROOT)
    rows = {name: {**known[name], "trained": None} for name in ("glow", "residual")}
    for row in rows.values():
        del row["trained"]
    (tmp_path / "docs").mkdir()
    (tmp_path / which_flow.ROWS).write_text(json.dumps(rows), encoding="utf-8")
    for name in rows:
        (tmp_path / "plugins" / name).mkdir(parents=True)
    return tmp_path


def figure(seconds: float, bpd: float, images: int = 1000) -> dict[str, Any]:
    rest = {"stderr": 0.01, "updates": 7, "date": "2026-01-01", "machine": "one"}
    return {"seconds": seconds, "bpd": bpd, "images": images, **rest}


def test_a_run_that_was_cut_short_goes_on(root: Path) -> None:
    asked = []

    def measured(name: str, seconds: float) -> dict[str, Any]:
        asked.append(name)
        if asked == ["glow-mnist", "residual-mnist"]:
            raise KeyboardInterrupt
        return figure(seconds, 1.5, 100 if "residual" in name else 1000)

    with pytest.raises(KeyboardInterrupt):
        same_time.update(root, 60.0, (), measured)
    same_time.update(root, 60.0, (), measured)
    same_time.update(root, 60.0, ("glow",), measured)
    assert asked == ["glow-mnist", "residual-mnist", "residual-mnist", "glow-mnist"]
    page = (root / which_flow.PAGE).read_text(encoding="utf-8")
    assert "| bits/dim after 60 s |" in page
    # Glow's is a bound, and the residual flow was measured on fewer images.
    assert "| ≤ 1.50 ± 0.01 |" in page
    assert "| 1.50 ± 0.01 (of 100) |" in page


def test_figures_of_another_time_are_not_in_the_column(root: Path) -> None:
    rows = which_flow.read_rows(root)
    rows["glow"]["trained"], rows["residual"]["trained"] = figure(60.0, 1.23), figure(30.0, 1.45)
    text = which_flow.render(rows)
    assert "after 60 s" in text
    assert "1.23" in text
    assert "1.45" not in text


def test_an_unknown_architecture_is_refused() -> None:
    outcome = CliRunner().invoke(same_time.main, ["--only", "nowhere"])
    assert outcome.exit_code == 1
    assert "nowhere" in outcome.output
