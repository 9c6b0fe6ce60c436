"""The commands that do something with a model and images: what they write, and what they refuse."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import flowzoo
import flowzoo.evaluation.progress
from flowzoo.cli import model_options
from flowzoo.cli.main import cli
from flowzoo.errors import FlowzooError
from flowzoo.evaluation.progress import Bar
from flowzoo.weights.external import Unlisted

MODEL = "nice-mnist"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert result.exception is None, (arguments, result.exception)
    return result


def refusal(*arguments: str) -> str:
    """The line of an error of ours; any other exception fails."""
    result = CliRunner().invoke(cli, arguments)
    if result.exit_code == 2:
        return result.stderr
    assert isinstance(result.exception, FlowzooError), (arguments, result.exception)
    text = str(result.exception)
    assert "\n" not in text
    return text


def table(name: str) -> list[dict[str, str]]:
    """The rows of a CSV."""
    return list(csv.DictReader(Path(name).read_text(encoding="utf-8").splitlines()))


# --- sample -------------------------------------------------------------------------------------------------


def test_an_array_a_folder_and_a_grid_hold_the_same_samples() -> None:
    run("sample", MODEL, "-n", "3", "-o", "x.npy", "--log-prob")
    run("sample", MODEL, "-n", "3", "-o", "folder", "--log-prob")
    x = flowzoo.load(MODEL).sample(3, temperature=0.8, seed=0)
    assert np.array_equal(np.load("x.npy"), x.numpy())
    for i in range(3):
        assert np.array_equal(np.asarray(Image.open(f"folder/{i:05d}.png")), x[i, 0].numpy())
    rows = [table(name) for name in ("x.csv", "folder/samples.csv")]
    assert [row["log_prob"] for row in rows[0]] == [row["log_prob"] for row in rows[1]]
    bits = flowzoo.load(MODEL).bits_per_dim(x, seed=0)
    assert [float(row["bits_per_dim"]) for row in rows[0]] == pytest.approx(bits.tolist(), abs=0.1)
    assert "not empty" in refusal("sample", MODEL, "-n", "1", "-o", "folder")


def test_rows_are_models_and_temperatures_from_the_same_latents() -> None:
    found = json.loads(
        run(
            "sample", MODEL, "realnvp-mnist", "--temperature", "0.5,1", "-n", "2", "-o", "x.npy", "--json"
        ).stdout
    )
    assert [(row["model"], row["temperature"]) for row in found["samples"][::2]] == [
        (MODEL, 0.5), (MODEL, 1.0), ("realnvp-mnist", 0.5), ("realnvp-mnist", 1.0),
    ]  # fmt: skip
    x = torch.from_numpy(np.load("x.npy"))
    flow = flowzoo.load("realnvp-mnist")
    for first, temperature in ((4, 0.5), (6, 1.0)):
        assert torch.equal(x[first : first + 2], flow.sample(2, temperature=temperature, seed=0))
    run("sample", MODEL, "--temperature", "0.5,1", "-n", "2")
    with Image.open("samples.png") as grid:
        assert grid.info == {"model": MODEL, "temperature": "0.5, 1", "seed": "0"}


def test_captions_may_be_left_out() -> None:
    run("sample", MODEL, "-n", "4", "--no-captions", "-o", "plain.png")
    run("sample", MODEL, "-n", "4", "-o", "captioned.png")
    plain, captioned = (Image.open(name).convert("L") for name in ("plain.png", "captioned.png"))
    assert plain.getpixel((0, 0)) == 128
    assert captioned.getpixel((0, 0)) == 255


@pytest.fixture
def labelled(monkeypatch: pytest.MonkeyPatch) -> flowzoo.Flow:
    from flowzoo.evaluation import trained_model

    torch.manual_seed(0)
    flow = flowzoo.create("glow-tiny", classes=3)
    flow.initialize(torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8), torch.randint(3, (64,)))
    target = trained_model.Target(name="labelled", flow=flow.eval(), entry=None, dataset="")
    assert not isinstance(flow.card, Unlisted)
    monkeypatch.setattr(trained_model, "find_target", lambda _: target)
    return flow


def test_a_column_for_each_label(labelled: flowzoo.Flow) -> None:
    done = run("sample", "labelled", "-n", "6", "--each-label", "--json", "-o", "x.npy")
    expected = labelled.sample(6, torch.tensor([0, 1, 2, 0, 1, 2]), seed=0)
    assert np.array_equal(np.load("x.npy"), expected.numpy())
    assert [row["label"] for row in json.loads(done.stdout)["samples"]] == [0, 1, 2, 0, 1, 2]
    run("sample", "labelled", "--each-label", "--no-captions", "-o", "x.png")
    with Image.open("x.png") as grid:
        assert grid.width * 8 < grid.height * 3.2  # eight rows of three
    assert "one of the two" in refusal("sample", "labelled", "--each-label", "--label", "1")


def test_a_conditional_model_takes_a_label(labelled: flowzoo.Flow) -> None:
    flow = labelled
    run("sample", "labelled", "-n", "2", "--label", "1", "-o", "x.npy")
    expected = flow.sample(2, 1, seed=0)
    assert np.array_equal(np.load("x.npy"), expected.numpy())
    assert "label" in refusal("sample", "labelled", "-n", "2", "--label", "7")


# --- the others ---------------------------------------------------------------------------------------------


def test_interpolation_draws_both_ways_and_an_animation() -> None:
    done = run(
        "interpolate", MODEL, "mnist:test:1", "sample:2", "--way", "both", "--steps", "4", "--gif", "w.gif", "-o",
        "w.png",
    )  # fmt: skip
    assert done.stdout.split() == ["w.png", "w.gif"]
    with Image.open("w.gif") as animation:
        assert animation.n_frames == 6
    with Image.open("w.png") as grid:
        assert grid.width > 4 * 56
        assert grid.height > 2 * 56


def test_a_direction_is_kept_and_refused_by_another_model() -> None:
    run(
        "manipulate",
        MODEL,
        "--with",
        "mnist:test:0-9",
        "--without",
        "mnist:test:10-19",
        "--save",
        "d.safetensors",
    )
    done = run(
        "manipulate", MODEL, "mnist:test:0-1", "--direction", "d.safetensors", "--strengths", "-0.1,0,0.1"
    )
    assert done.stdout == "manipulation.png\n"
    again = refusal("manipulate", "realnvp-mnist", "mnist:test:0", "--direction", "d.safetensors")
    assert "another model" in again
    assert "--without" in refusal("manipulate", MODEL, "mnist:test:0", "--with", "mnist:test:1")


def test_levels_add_up() -> None:
    found = json.loads(run("reconstruct", "realnvp-mnist", "mnist:test:0-1", "--json").stdout)
    assert sum(row["dimensions"] for row in found["levels"]) == 784
    assert found["levels"][0]["change"] > 0
    assert Path("levels.png").is_file()
    assert "single level" in refusal("reconstruct", MODEL, "mnist:test:0")


def test_a_black_image_is_the_likeliest_digit() -> None:
    found = json.loads(
        run(
            "score", "realnvp-mnist", "mnist:test", "--limit", "40", "--against", "grey:0", "--csv", "s.csv",
            "--histogram", "h.png", "--json",
        ).stdout
    )  # fmt: skip
    assert found["auroc"]["likelihood"] == 0
    assert found["auroc"]["typicality"] == 1
    rows = table("s.csv")
    assert len(rows) == len(found["images"]) == 41
    assert float(rows[40]["bits_per_dim"]) == found["images"][40]["bits_per_dim"]
    for row in found["images"]:
        assert row["typicality"] == pytest.approx(abs(row["bits_per_dim"] - found["entropy"]))
    assert found["entropy"] == pytest.approx(1.0595, abs=1e-4)  # the manifest's
    reference = json.loads(
        run("score", "realnvp-mnist", "mnist:test:5", "--reference", "mnist:test:0-9", "--json").stdout
    )
    first = [row["bits_per_dim"] for row in found["images"][:10]]
    assert reference["entropy"] == pytest.approx(sum(first) / 10, abs=1e-5)


def test_neighbours_of_images_of_the_set_are_themselves() -> None:
    done = run("nearest", MODEL, "mnist:test:3,8", "--among", "mnist:test:0-99", "-k", "2", "--json")
    found = json.loads(done.stdout)
    assert [(row["nearest"], row["distance"], row["copy"]) for row in found["images"]] == [
        (3, 0, True),
        (8, 0, True),
    ]
    assert found["copies"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("interpolate", MODEL, "mnist:test:0-1", "mnist:test:3"), "expected as many"),
        (("interpolate", MODEL, "nowhere.png", "mnist:test:3"), "no such file"),
        (("interpolate", MODEL, "mnist:test:0", "mnist:test:1", "-o", "x.gif"), "--gif"),
        (("score", MODEL, "mnist:test:10000"), "no image 10000"),
        (("score", MODEL, "mnist:test:0", "--histogram", "x.jpg"), ".png"),
        (("sample", MODEL, "glow-celeba64"), "models of one shape"),
        (("sample", MODEL, "--temperature", "0.5,hot"), "not a number"),
        (("sample", MODEL, "--temperature", "-1"), "at least 0"),
        (("sample", MODEL, "-o", "x.jpg"), ".npy"),
        (("sample", MODEL, "--label", "3"), "labels were given"),
        (("sample", MODEL, "--each-label"), "has no labels"),
        (("manipulate", MODEL, "mnist:test:0", "--direction", "none.safetensors"), "no file"),
        (("nearest", MODEL, "--fid", "--among", "mnist:test"), "Inception"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert message in refusal(*arguments)
    assert not list(tmp_path.glob("*.png"))


class Terminal(io.StringIO):
    """A stderr that somebody looks at."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("delay", [0.0, 60.0])
def test_a_bar_appears_after_the_delay_and_counts_the_images(
    delay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model_options.DELAY == 2.0, "two seconds"
    monkeypatch.setattr(model_options, "DELAY", delay)
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with model_options.progress(5) as advance:
        for _ in range(5):
            advance(1)
    assert ("5/5" in screen.getvalue()) == (delay == 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ("sample", MODEL, "-n", "2"),
        ("interpolate", MODEL, "mnist:test:0", "mnist:test:1"),
        ("score", MODEL, "mnist:test:0-3"),
        ("nearest", MODEL, "mnist:test:0", "--among", "mnist:test:0-9"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_bar_of_a_command_reaches_its_end(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[int, int]] = []

    class Counted(Bar):
        def close(self) -> None:
            ends.append((self._done, self._total))
            super().close()

    monkeypatch.setattr(flowzoo.evaluation.progress, "Bar", Counted)
    run(*arguments)
    assert ends
    assert all(done == total > 0 for done, total in ends)


def test_help_is_in_groups() -> None:
    text = CliRunner().invoke(cli, ["--help"]).stdout
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings[:3] == ["Options:", "Models:", "Use a model:"]
    assert text.index("Use a model:") < text.index("\n  score ") < text.index("Measure and verify:")
