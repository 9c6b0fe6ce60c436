"""Images by name, and pictures with captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowzoo.analysis.captions import captioned_grid, save_gif, save_picture
from flowzoo.analysis.sources import choose, image_set
from flowzoo.data import get_dataset
from flowzoo.errors import FlowzooError, InputError
from flowzoo.factory import create
from flowzoo.testing.randomize import random_images, randomize
from tests.trainings import made_up_images, save_images

FLOW = randomize(create("nice-tiny"), 0, scale=0.02).eval()  # of images 1x8x8
DIGITS = randomize(create("nice-mnist"), 0, scale=0.001).eval()


def test_places_in_a_data_set() -> None:
    test = get_dataset("mnist").load("test")
    for source, places in {
        "mnist:test:12": [12],
        "mnist:test:3,1,1": [3, 1, 1],
        "mnist:test:9998-9999": [9998, 9999],
    }.items():
        chosen = choose(source, DIGITS)
        assert torch.equal(chosen.images, test[torch.tensor(places)])
        assert chosen.names == tuple(f"mnist:test:{i}" for i in places)
        assert torch.equal(image_set(source, DIGITS)[:], chosen.images)
    assert len(choose("mnist:test", DIGITS, limit=7)) == 7
    assert len(image_set("mnist:test", DIGITS)) == 10_000


def test_images_of_a_label(tmp_path: Path) -> None:
    test = get_dataset("mnist").load("test")
    labels = test.labels
    assert labels is not None
    chosen = choose("mnist:test:label=7", DIGITS, limit=5)
    assert torch.equal(chosen.images, test[(labels == 7).nonzero().flatten()[:5]])
    with pytest.raises(InputError, match="no image has this label"):
        choose("mnist:test:label=10", DIGITS)
    name = save_images(tmp_path / "x.npy", 20)
    with pytest.raises(InputError, match="no labels"):
        choose(f"{name}?split=all:test:label=1", FLOW)


def test_files_folders_and_arrays(tmp_path: Path) -> None:
    x = made_up_images(3)
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(x):
        Image.fromarray(image[0].numpy()).save(folder / f"{i}.png")
    np.save(tmp_path / "x.npy", x.numpy())
    assert torch.equal(choose(str(folder / "1.png"), FLOW).images, x[1:2])
    assert torch.equal(choose(str(folder), FLOW, limit=2).images, x[:2])
    assert torch.equal(choose(str(tmp_path / "x.npy"), FLOW).images, x)
    assert torch.equal(choose(f"folder:{folder}?size=8&channels=1&split=all:test", FLOW).images, x)


def test_made_images() -> None:
    assert torch.equal(
        choose("sample:3:2", FLOW, temperature=0.5).images, FLOW.sample(2, temperature=0.5, seed=3)
    )
    assert choose("grey:255", FLOW).images.unique().tolist() == [255]
    assert torch.equal(choose("noise:1:4", FLOW).images, choose("noise:1:4", FLOW).images)
    assert len(choose("noise:1:300", FLOW).images.unique()) == 256


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.png", "no source of images"),
        ("mnist:test:10000", "no image 10000"),
        ("mnist:test:0-10000", "no image 10000"),
        ("mnist:test:5-3", "ends before"),
        ("mnist:test:x", "no index"),
        ("mnits:test", "no data set"),
        ("sample:x", "SEED"),
        ("noise:1:0", "count"),
        ("grey:256", "grey level"),
        ("sample:1:2:3", "SEED"),
    ],
)
def test_what_names_no_images_is_one_line(source: str, message: str) -> None:
    with pytest.raises(FlowzooError, match=message) as caught:
        choose(source, DIGITS)
    assert "\n" not in str(caught.value)


def test_files_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand so on")
    Image.new("L", (9, 8)).save(tmp_path / "wide.png")
    np.save(tmp_path / "x.npy", np.zeros((2, 9, 9), dtype=np.uint8))
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("broken.png", "cannot be read"),
        ("wide.png", "9x8 pixels; this model takes 8x8"),
        ("x.npy", "1x9x9"),
        ("empty", "no images"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            choose(str(tmp_path / name), FLOW)
        assert "\n" not in str(caught.value)


# --- pictures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [False, True])
def test_every_image_is_in_the_picture_unchanged(words: bool) -> None:
    x = random_images(create("glow-tiny"), 6, seed=0)
    names = (
        {"title": "t" * 200, "rows": ["a", "b"], "headings": ["x", "y", "z"], "captions": ["1"] * 6}
        if words
        else {}
    )
    picture = np.asarray(captioned_grid(x, 3, scale=1, **names))  # type: ignore[arg-type]
    windows = np.lib.stride_tricks.sliding_window_view(picture, (8, 8, 3))[:, :, 0]
    places = []
    for image in x.permute(0, 2, 3, 1).numpy():
        found = np.argwhere((windows == image).all(axis=(2, 3, 4)))
        assert len(found) == 1
        places.append(tuple(found[0]))
    assert places == sorted(places)  # row by row
    assert len({row for row, _ in places}) == 2


def test_pictures_say_what_they_are_and_grey_ones_stay_grey(tmp_path: Path) -> None:
    grey, coloured = made_up_images(2), made_up_images(2, (3, 8, 8))
    for x, mode in ((grey, "L"), (coloured, "RGB")):
        save_picture(captioned_grid(x, 2, title="a title"), tmp_path / "p.png", {"seed": "3"})
        with Image.open(tmp_path / "p.png") as found:
            assert (found.mode, found.info["seed"]) == (mode, "3")
    with pytest.raises(InputError, match=r"\.png"):
        save_picture(captioned_grid(grey, 2), tmp_path / "p.jpg")


def test_an_animation_runs_there_and_back(tmp_path: Path) -> None:
    x = made_up_images(4)
    save_gif(x, tmp_path / "w.gif", scale=1)
    with Image.open(tmp_path / "w.gif") as found:
        assert found.n_frames == 6
        assert found.info["loop"] == 0
        frames = []
        for i in range(6):
            found.seek(i)
            frames.append(np.asarray(found.convert("L")).astype(int))
    assert all(np.abs(frames[i] - x[i, 0].numpy()).max() <= 2 for i in range(4))
    assert np.array_equal(frames[4], frames[2])
    with pytest.raises(InputError, match=r"\.gif"):
        save_gif(x, tmp_path / "w.png")
