"""A model of one's own images, from a folder to somebody else's ``load``: weights, fingerprint and digest, no image."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from flowzoo.cli.main import cli
from flowzoo.data import get_dataset
from flowzoo.manifest.raw import core_manifest_path
from flowzoo.training.train import train
from flowzoo.weights.external import read_card
from flowzoo.weights.load import load
from tests.hub_server import HubServer
from tests.trainings import made_up_images, tiny_recipe

NAME = "own-faces"


def save_folder(folder: Path, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    for number, pixels in enumerate(made_up_images(count, seed=seed).numpy()):
        Image.fromarray(np.asarray(pixels[0])).save(folder / f"{number:03}.png")


def trained(home: Path, folder: str) -> Path:
    dataset = f"folder:{home / folder}?size=8&channels=1"
    train(tiny_recipe("nice-tiny", dataset), home / "run", device="cpu", progress=False)
    return home / "run"


@pytest.fixture(scope="module")
def with_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images in folders train, valid and test."""
    home = tmp_path_factory.mktemp("folders")
    for seed, (split, count) in enumerate((("train", 64), ("valid", 12), ("test", 14))):
        save_folder(home / "faces" / split, count, seed)
    return trained(home, "faces")


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images in one folder, of which every tenth is held out for the test."""
    home = tmp_path_factory.mktemp("held-out")
    save_folder(home / "pile", 90, seed=3)
    return trained(home, "pile")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        server.large = "never"
        monkeypatch.setenv("FLOWZOO_HUB_ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        for name in ("FLOWZOO_OFFLINE", "HF_HUB_OFFLINE", "FLOWZOO_WEIGHTS_DIR"):
            monkeypatch.delenv(name, raising=False)
        yield server


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(cli, [str(word) for word in arguments])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


@pytest.mark.parametrize(("place", "test_images"), [("with_folders", 14), ("held_out", None)])
def test_it_is_published_and_loads_by_repository_and_commit(
    place: str, test_images: int | None, request: pytest.FixtureRequest, hub: HubServer, tmp_path: Path
) -> None:
    own: Path = request.getfixturevalue(place)
    core = core_manifest_path().read_bytes()
    words = ["publish", own, "--repo", f"me/{NAME}", "--name", NAME, "--stage", tmp_path / "stage", "--yes"]
    published = run(*words, "--json")
    assert core_manifest_path().read_bytes() == core, "nobody else's list is the place for one's own images"
    [found] = json.loads(published.stdout)
    entry = found["entry"]
    revision = entry["weights"]["revision"]
    assert f'flowzoo.load("hf:me/{NAME}@{revision}")' in published.stderr
    dataset = "folder:{}?size=8&channels=1".format("faces" if place == "with_folders" else "pile")
    here = f"folder:{own.parent / dataset[7:]}"
    test = get_dataset(here).load("test")
    assert entry["data"]["id"] == dataset
    assert (entry["data"]["num_images"], entry["data"]["digest"]) == (len(test), test.digest)
    assert 0 < len(test) < 90 and test_images in (None, len(test))
    files = hub.commits[f"me/{NAME}", revision]
    expected = {"README.md", "flowzoo.json", "config.json", f"{NAME}.safetensors", f"{NAME}.recipe.toml"}
    expected |= {"samples.png", "curve.png"}
    assert set(files) - {".gitattributes"} == expected
    for text in (files["README.md"], files["flowzoo.json"], files[f"{NAME}.recipe.toml"]):
        assert str(own.parent).encode() not in text
    card = files["README.md"].decode()
    assert entry["data"]["digest"] in card and "the author's own images" in card
    assert 'flowzoo.load("hf:me/' in card and f"{NAME}@1" not in card
    reference = f"hf:me/{NAME}@{revision}"
    shutil.rmtree(tmp_path / "stage")
    flow = load(reference)
    assert flow.image_shape == (1, 8, 8) and flow.sample(2, seed=0).shape == (2, 1, 8, 8)
    assert "verified" in run("verify", reference).stdout
    again = json.loads(run("eval", reference, "--data", here, "--json", "--device", "cpu").stdout)
    assert again["bpd"] == pytest.approx(entry["measured"]["bpd"], abs=1e-6)
    assert again["verdict"]["state"] == "verified"
    assert "card" in again["verdict"]["reason"]


def test_an_export_loads_and_proves_itself_anywhere(held_out: Path, tmp_path: Path) -> None:
    run("export", held_out, "-o", tmp_path / "there")
    reference = f"path:{tmp_path / 'there'}"
    assert load(reference).architecture == "nice"
    assert "verified" in run("verify", reference).stdout
    card = read_card(tmp_path / "there" / "flowzoo.json")
    assert card.details["dataset"] == "folder:pile?size=8&channels=1"
    shown = run("info", reference).stdout
    assert "stages" not in shown and "best_bpd" in shown
    assert "stages" in json.loads(run("info", reference, "--json").stdout)["training"]


def test_an_export_is_published_where_the_images_are_named(held_out: Path, tmp_path: Path) -> None:
    run("export", held_out, "-o", tmp_path / "there")
    where = f"folder:{held_out.parent / 'pile'}?size=8&channels=1"
    words = ["publish", tmp_path / "there", "--stage", tmp_path / "stage", "--name", NAME, "--data", where]
    [found] = json.loads(run(*words, "--json").stdout)
    assert found["entry"]["measured"]["num_images"] == len(get_dataset(where).load("test"))
    kept = json.loads(run(*words, "--json").stdout)[0]["entry"]["measured"]
    assert kept == found["entry"]["measured"], "measured once: the same bytes keep their figure"
    assert json.loads((tmp_path / "stage" / "flowzoo.json").read_text())["kind"] == "exact"


def test_it_goes_into_a_package_of_weights_alone(held_out: Path, tmp_path: Path) -> None:
    package = tmp_path / "flowzoo_faces"
    refused = CliRunner().invoke(cli, ["publish", str(held_out), "--package", str(package)])
    assert refused.exit_code != 0 and "is no directory" in str(refused.exception)
    package.mkdir()
    entry = json.loads(run("publish", held_out, "--package", package, "--name", NAME, "--json").stdout)
    listed = json.loads((package / "weights_manifest.json").read_text())["models"]
    assert [model["name"] for model in listed] == [NAME] == [entry["name"]]
    assert (package / "weights" / f"{NAME}.safetensors").stat().st_size == entry["weights"]["size"]
    assert str(tmp_path) not in (package / "weights_manifest.json").read_text()
