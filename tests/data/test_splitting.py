"""Own images that nobody has split go by their content: what happens to one image moves no other one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowzoo.data import SPLITS, get_dataset
from flowzoo.data.portable import is_split_by_content
from flowzoo.errors import InputError
from flowzoo.evaluation.trained_model import find_target
from flowzoo.publishing.describe import measured_images
from flowzoo.training.export import export_weights
from flowzoo.training.train import train
from flowzoo.weights.external import read_card
from tests.data_files import Pixels, noise
from tests.trainings import save_images, tiny_recipe

COUNT = 120


def splits_of(name: str) -> dict[bytes, str]:
    """The split of every image, by its pixels."""
    return {image.numpy().tobytes(): split for split in SPLITS for image in get_dataset(name).load(split)[:]}


def write(folder: Path, images: Pixels, start: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images, start):
        Image.fromarray(image).save(folder / f"{number:03d}.png")


def test_all_three_splits_get_their_share() -> None:
    digests = [hashlib.sha256(bytes([number % 256, number // 256])).digest() for number in range(10_000)]
    tenths = np.array([int.from_bytes(digest, "big") % 10 for digest in digests])
    assert np.bincount(tenths).min() > 900


def test_adding_removing_or_moving_an_array_s_images_moves_no_other(tmp_path: Path) -> None:
    images = noise(COUNT, 4, 4)
    name = f"numpy:{tmp_path / 'a.npy'}"
    np.save(tmp_path / "a.npy", images)
    before = splits_of(name)
    assert set(before.values()) == set(SPLITS)
    assert len(before) == COUNT
    changed = np.concatenate([noise(7, 4, 4, seed=1), images[:0:-1]])
    np.save(tmp_path / "a.npy", changed)
    after = splits_of(name)
    assert len(after) == COUNT + 6
    assert all(after[image.tobytes()] == before[image.tobytes()] for image in images[1:])
    np.save(tmp_path / "a.npy", changed[:, None])
    assert splits_of(f"{name}?layout=nchw") == after


def test_adding_removing_or_renaming_files_moves_no_other(tmp_path: Path) -> None:
    images = noise(COUNT, 4, 4, 3)
    write(tmp_path / "set", images)
    name = f"folder:{tmp_path / 'set'}?size=4"
    before = splits_of(name)
    assert set(before.values()) == set(SPLITS)
    (tmp_path / "set" / "000.png").unlink()
    (tmp_path / "set" / "001.png").rename(tmp_path / "set" / "zzz.png")
    write(tmp_path / "set", noise(1, 4, 4, 3, seed=9), start=500)
    after = splits_of(name)
    gone = images[0].transpose(2, 0, 1).tobytes()
    assert all(after[image] == split for image, split in before.items() if image != gone)
    assert len(after) == COUNT


def test_copies_of_an_image_are_on_one_side(tmp_path: Path) -> None:
    write(tmp_path / "set", noise(40, 4, 4, 3))
    write(tmp_path / "set" / "more", noise(40, 4, 4, 3))
    by_split = [
        {image.numpy().tobytes() for image in get_dataset(f"folder:{tmp_path / 'set'}?size=4").load(split)[:]}
        for split in SPLITS
    ]
    assert sum(map(len, by_split)) == len(set.union(*by_split)) == 40


@pytest.mark.parametrize("kind", ["numpy", "folder"])
def test_a_split_that_would_be_empty_is_refused_with_the_numbers(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "set", noise(1, 4, 4, 3))
    np.save(tmp_path / "set.npy", noise(1, 4, 4))
    name = f"numpy:{tmp_path / 'set.npy'}" if kind == "numpy" else f"folder:{tmp_path / 'set'}?size=4"
    errors = []
    for split in SPLITS:
        try:
            get_dataset(name).load(split)
        except InputError as error:
            errors.append(f"{split}: {error}")
    assert len(errors) == 2
    for text in errors:
        split = text.partition(":")[0]
        assert f"The {split} split" in text
        assert f"{split} 0" in text
        assert "split=all" in text


def test_which_sets_are_split_by_content(tmp_path: Path) -> None:
    (tmp_path / "sorted" / "train").mkdir(parents=True)
    (tmp_path / "heap").mkdir()
    assert is_split_by_content(f"folder:{tmp_path / 'heap'}?size=4")
    assert is_split_by_content("numpy:x.npy")
    for name in (f"folder:{tmp_path / 'sorted'}?size=4", "numpy:x.npy?split=all", "mnist"):
        assert not is_split_by_content(name)


def go(dataset: str, out: Path, seconds: float | None = 0) -> None:
    recipe = tiny_recipe("glow-tiny", dataset, samples=0, steps=2, validate_every=2)
    train(recipe, out, device="cpu", progress=False, max_seconds=seconds)


@pytest.mark.parametrize("record", ["by position", "none"])
def test_a_run_that_was_split_by_position_is_told_so_and_not_continued(tmp_path: Path, record: str) -> None:
    dataset = save_images(tmp_path / "images.npy")
    go(dataset, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    header = json.loads(path.read_text())
    assert header["data"]["training"]["preprocessing"] == "numpy-as-is-v2"
    for role in ("training", "held-out"):
        del header["data"][role]["preprocessing"]
        header["data"][role] |= {"number": 3, "sha256": "0" * 64}
    if record == "none":
        del header["data"]
    path.write_text(json.dumps(header))
    with pytest.raises(
        InputError, match=r"split one's own images by their position.*another --out"
    ) as caught:
        go(dataset, tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_that_was_split_by_position_is_not_measured_unsaid(tmp_path: Path) -> None:
    dataset = save_images(tmp_path / "images.npy")
    go(dataset, tmp_path / "run", None)
    export_weights(tmp_path / "run", tmp_path / "export", name="mine")
    card = read_card(tmp_path / "export" / "flowzoo.json")
    assert measured_images(card, dataset, None).preprocessing == "numpy-as-is-v2"
    del card.details["training"]["stages"][0]["preprocessing"]
    with pytest.raises(InputError, match="by position"):
        measured_images(card, dataset, None)
    path = tmp_path / "run" / "run.json"
    header = json.loads(path.read_text())
    del header["data"]["training"]["preprocessing"]
    path.write_text(json.dumps(header))
    with pytest.warns(UserWarning, match="split by position"):
        find_target(str(tmp_path / "run"))
