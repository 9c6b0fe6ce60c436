"""Measuring a model of vectors from the command line, and against what its own card states."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import flowzoo
from flowzoo.cli.main import cli, main
from flowzoo.data import get_dataset
from flowzoo.evaluation.trained_model import find_target
from flowzoo.testing import randomize

MOONS = "points:two-moons"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    flow = flowzoo.create("maf-moons", layers=2, hidden=(8,), normalization="none")
    randomize(flow, seed=0)
    flow.initialize(get_dataset(MOONS).load("train")[:512])
    directory = tmp_path_factory.mktemp("saved") / "moons"
    flowzoo.save(flow.eval(), directory)
    return directory


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, [str(word) for word in arguments], standalone_mode=False)
    assert result.exception is None, repr(result.exception)
    return result


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in arguments])
    assert caught.value.code not in (0, None)
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error")]
    return line


def test_the_distance_to_the_true_entropy_is_a_number(saved: Path) -> None:
    found = json.loads(run("eval", saved, "--data", MOONS, "--json").stdout)
    truth = get_dataset(MOONS).load("test")
    assert found["true_entropy"] == truth.true_entropy
    assert found["above_entropy"] == pytest.approx(found["nats"] - found["true_entropy"])
    assert found["above_entropy"] > 0
    assert found["divergence"] > 5 * found["divergence_stderr"] > 0
    apart = found["above_entropy"] - found["divergence"]
    assert 0 < abs(apart) < 4 * found["nats_stderr"], (
        "both estimate the distance; one by the points' own log-density"
    )
    text = run("eval", saved, "--data", MOONS, "--limit", 50).stdout
    assert "true entropy" in text and "50 vectors" in text and "nats" in text and "KL divergence" in text
    assert "images" not in text and "bits" not in text
    assert "true entropy" not in run("eval", "nice-mnist", "--limit", 5).stdout


def test_a_table_of_vectors_has_nats_and_no_bits(saved: Path, tmp_path: Path) -> None:
    run("eval", saved, "--data", MOONS, "--limit", 5, "--per-image", tmp_path / "each.csv")
    assert (tmp_path / "each.csv").read_text().splitlines()[0] == "index,log_prob_nats"


def test_samples_of_vectors_are_a_table(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "drawn.csv"
    run("sample", saved, "-n", 3, "--log-prob", "-o", out)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    flow = find_target(str(saved)).flow
    points = torch.tensor([[float(row["x1"]), float(row["x2"])] for row in rows])
    expected = flow.log_prob(points).tolist()
    assert [float(row["log_prob"]) for row in rows] == pytest.approx(expected, abs=1e-4)
    assert "samples.csv" in refusal(capsys, "sample", saved, "-o", tmp_path / "drawn.png")
    assert "draws images" in refusal(capsys, "sample", "nice-mnist", "-o", out)


def test_data_of_the_other_kind_are_refused_in_words(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a model of vectors, and mnist holds images" in refusal(capsys, "eval", saved, "--data", "mnist")
    assert "a model of images" in refusal(capsys, "eval", "nice-mnist", "--data", MOONS)


def stated(saved: Path, directory: Path, **changes: Any) -> Path:
    """The saved model with a card that states what it measures, as ``flowzoo publish`` writes it."""
    found = json.loads(run("eval", saved, "--data", MOONS, "--json").stdout)
    data, protocol = get_dataset(MOONS), found["protocol"]
    measured = {
        "nats": found["nats"], "stderr": found["nats_stderr"], "dequantization": "none",
        "samples": protocol["samples"], "seed": protocol["seed"], "dtype": protocol["dtype"],
        "num_images": found["num_images"], "tolerance": 1e-4, "versions": {}, "command": "flowzoo eval",
    }  # fmt: skip
    card = json.loads((saved / "flowzoo.json").read_text())
    card |= {
        "version": 1, "status": "released", "num_params": 1, "license": "MIT", "citations": [],
        "published_reason": "no paper has one", "valid_bpd": False, "measured": measured | changes,
        "data": {
            "id": MOONS, "preprocessing": data.preprocessing, "split": "test", "num_images": 10_000, "terms": "none",
        },
    }  # fmt: skip
    fields = {field for field in card if field not in ("fingerprint", "training")}
    directory.mkdir()
    (directory / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    (directory / "flowzoo.json").write_text(json.dumps({key: card[key] for key in fields}))
    return directory


def verdict(place: Path, *options: str) -> tuple[object, str, str]:
    result = run("eval", f"path:{place}", "--json", *options)
    found = json.loads(result.stdout)["verdict"]
    return result.return_value, found["state"], found["reason"]


def test_a_card_is_held_to_the_figure_that_it_states(saved: Path, tmp_path: Path) -> None:
    code, state, reason = verdict(stated(saved, tmp_path / "true"))
    assert (code, state) == (0, "verified")
    assert "own card" in reason
    assert verdict(tmp_path / "true", "--seed", "3")[:2] == (1, "other protocol")
    assert verdict(stated(saved, tmp_path / "better", nats=1.0))[:2] == (1, "not verified")


def test_a_card_that_states_nothing_sound_counts_as_none(saved: Path, tmp_path: Path) -> None:
    place = stated(saved, tmp_path / "lax", tolerance=10.0)
    assert verdict(place, "--data", MOONS)[:2] == (0, "no entry")


@pytest.mark.parametrize(
    ("dropout", "words"), [(False, "the average over all 3 labels"), (True, "without a label")]
)
def test_which_likelihood_of_a_conditional_model_is_said(tmp_path: Path, dropout: bool, words: str) -> None:
    images = torch.randint(
        0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    labels = torch.arange(40) % 3
    np.savez(tmp_path / "own.npz", x=images.numpy(), labels=labels.numpy())
    flow = flowzoo.create("glow-tiny", classes=3, label_dropout=dropout)
    flow.initialize(images, labels)
    flowzoo.save(flow.eval(), tmp_path / "saved")
    usual = ["eval", tmp_path / "saved", "--data", f"numpy:{tmp_path / 'own.npz'}?split=all", "--limit", 4]
    assert "log P(x|y), given the label" in run(*usual).stdout
    text = run(*usual, "--marginal").stdout
    assert "log P(x)," in text and words in text
    assert "P(x" not in run("eval", "nice-mnist", "--limit", 4).stdout
