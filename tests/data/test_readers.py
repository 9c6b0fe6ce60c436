"""Files of MNIST, ImageNet, CelebA, LSUN and folders give the pixels that were written, damaged ones errors."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowzoo.data import SPLITS, get_dataset
from flowzoo.data.readers.folder import FileImages
from flowzoo.errors import DataUnavailable, InputError, IntegrityError
from tests.data_files import noise, small, write_celeba, write_idx, write_mnist


def test_the_bundled_mnist_test_split_needs_no_files(tmp_path: Path) -> None:
    images = get_dataset("mnist").load("test", tmp_path)
    assert images.shape == (10_000, 1, 28, 28)
    assert images.digest == get_dataset("mnist").splits["test"].sha256


def test_fashion_mnist_in_torchvisions_layout(tmp_path: Path) -> None:
    train, test = write_mnist(tmp_path / "FashionMNIST" / "raw")
    dataset = small("fashion-mnist", valid=2)
    assert np.array_equal(dataset.load("train", tmp_path)[:].numpy()[:, 0], train[:5])
    assert np.array_equal(dataset.load("valid", tmp_path)[:].numpy()[:, 0], train[5:])
    assert np.array_equal(dataset.load("test", tmp_path)[:].numpy()[:, 0], test)


def test_gzipped_idx_files_are_read_and_damaged_ones_refused(tmp_path: Path) -> None:
    path, images = tmp_path / "some" / "images.gz", noise(3, 28, 28)
    write_idx(path, images)
    dataset = small("fashion-mnist", valid=1)
    test = dataclasses.replace(dataset.splits["test"], alternatives=(("some/images.gz",),))
    dataset = dataclasses.replace(dataset, splits={"test": test})
    assert np.array_equal(dataset.load("test", tmp_path)[:].numpy()[:, 0], images)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(IntegrityError, match="decompress"):
        dataset.load("test", tmp_path)
    write_idx(path, images[0])
    with pytest.raises(IntegrityError, match="idx image file"):
        dataset.load("test", tmp_path)


def test_files_that_are_not_the_official_ones_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    with pytest.raises(IntegrityError) as caught:
        get_dataset("mnist").load("train", tmp_path)
    message = str(caught.value)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    found = hashlib.md5(path.read_bytes()).hexdigest()
    assert all(part in message for part in (str(path), "6bbc9ace898e44ae57da46a324031adb", found))


def test_pixels_that_are_not_on_record_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path / "FashionMNIST" / "raw")
    for change, match in (({"size": 3}, "number of images"), ({"sha256": "0" * 64}, "sha256")):
        dataset = small("fashion-mnist", valid=2)
        test = dataclasses.replace(dataset.splits["test"], **change)
        with pytest.raises(IntegrityError, match=match):
            dataclasses.replace(dataset, splits={"test": test}).load("test", tmp_path)


@pytest.mark.parametrize("form", ["npy", "npz", "png"])
def test_the_pixelrnn_imagenet_in_every_form(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "imagenet32-oord"
    folder.mkdir()
    for part, count in (("train", 9), ("valid", 4)):
        images, path = noise(count, 32, 32, 3, seed=count), folder / f"{part}_32x32"
        if form == "npy":
            np.save(path.with_suffix(".npy"), images)
        elif form == "npz":
            np.savez(path.with_suffix(".npz"), images)
        else:
            path.mkdir()
            for number, image in enumerate(images):
                Image.fromarray(image).save(path / f"{number:03d}.png")
    dataset = small("imagenet32-oord", valid=2)
    train, test = (noise(count, 32, 32, 3, seed=count).transpose(0, 3, 1, 2) for count in (9, 4))
    for split, expected in (("train", train[:7]), ("valid", train[7:]), ("test", test)):
        assert np.array_equal(dataset.load(split, tmp_path)[:].numpy(), expected)


@pytest.mark.parametrize("form", ["npz", "pickle"])
def test_the_official_downsampled_imagenet_in_batches(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "imagenet32-chrabaszcz"
    folder.mkdir()
    rows = noise(11 * 2, 3 * 32 * 32)
    for name, part in zip(
        [*(f"train_data_batch_{number}" for number in range(1, 11)), "val_data"],
        np.split(rows, 11),
        strict=True,
    ):
        batch = {"data": part, "labels": [1, 2], "mean": part.mean(0)}
        if form == "npz":
            np.savez(folder / f"{name}.npz", **batch)
        else:
            (folder / name).write_bytes(pickle.dumps(batch, protocol=4))
    dataset, images = small("imagenet32-chrabaszcz", valid=3), rows.reshape(-1, 3, 32, 32)
    for split, expected in (("train", images[:17]), ("valid", images[17:20]), ("test", images[20:])):
        assert np.array_equal(dataset.load(split, tmp_path)[:].numpy(), expected)


def test_celeba_is_cropped_and_resized_as_stated(tmp_path: Path) -> None:
    files = write_celeba(tmp_path)
    for split in SPLITS:
        images = small("celeba64").load(split, tmp_path)
        assert len(images) == len(files[split])
        for found, path in zip(images[:], files[split], strict=True):
            whole = np.asarray(Image.open(path))
            square = Image.fromarray(whole[40:188, 15:163])
            expected = np.asarray(square.resize((64, 64), Image.Resampling.BILINEAR))
            assert np.array_equal(found.numpy(), expected.transpose(2, 0, 1))


def test_celeba_of_another_size_or_with_files_missing_is_refused(tmp_path: Path) -> None:
    files = write_celeba(tmp_path)
    Image.fromarray(noise(109, 89, 3)).save(files["valid"][0])
    with pytest.raises(IntegrityError, match="178x218"):
        small("celeba64").load("valid", tmp_path)
    files["train"][0].unlink()
    with pytest.raises(IntegrityError, match=files["train"][0].name):
        small("celeba64").load("train", tmp_path)
    (tmp_path / "celeba" / "list_eval_partition.txt").write_text("000001.jpg\n")
    with pytest.raises(IntegrityError, match="line 1"):
        small("celeba64").load("train", tmp_path)
    with pytest.raises(IntegrityError, match="d32c9cbf5e040fd4025c592c306e6668"):
        get_dataset("celeba64").load("train", tmp_path)


def write_pngs(folder: Path, count: int, seed: int = 0) -> list[Path]:
    paths = [folder / ("b" if number % 2 else "a") / f"{number:02d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(9 + number % 3, 8, 3, seed=seed + number)).save(path)
    (folder / "notes.txt").write_text("not an image")
    return sorted(paths)


def test_a_folder_of_images_is_sorted_cropped_and_resized(tmp_path: Path) -> None:
    paths = write_pngs(tmp_path, 12)
    images = get_dataset(f"folder:{tmp_path}?size=4&split=all").load("valid")
    assert images.shape == (12, 3, 4, 4)
    for found, path in zip(images[:], paths, strict=True):
        whole = np.asarray(Image.open(path))
        top = (whole.shape[0] - 8) // 2
        square = Image.fromarray(whole[top : top + 8])
        expected = np.asarray(square.resize((4, 4), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.array_equal(found.numpy(), expected)
    assert get_dataset(f"folder:{tmp_path}?size=4&channels=1").load("train").image_shape == (1, 4, 4)


def test_subfolders_named_like_splits_are_the_splits(tmp_path: Path) -> None:
    write_pngs(tmp_path / "train", 3)
    write_pngs(tmp_path / "test", 2, seed=9)
    dataset = get_dataset(f"folder:{tmp_path}?size=4")
    assert len(dataset.load("train")) == 3
    assert len(dataset.load("test")) == 2
    with pytest.raises(DataUnavailable, match="no subfolder valid"):
        dataset.load("valid")
    assert len(get_dataset(f"folder:{tmp_path}?size=4&split=all").load("valid")) == 5


def test_a_folder_without_usable_images_is_refused(tmp_path: Path) -> None:
    dataset = get_dataset(f"folder:{tmp_path / 'none'}?size=4&split=all")
    with pytest.raises(DataUnavailable, match="none"):
        dataset.load("train")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataUnavailable, match="no images"):
        dataset.load("train")
    (tmp_path / "none" / "a.png").write_bytes(b"broken")
    with pytest.raises(IntegrityError, match=r"a\.png"):
        dataset.load("train")


@pytest.mark.parametrize(
    "name",
    ["folder:", "folder:x", "folder:x?size=0", "folder:x?size=4&chanels=1", "folder:x?size=4&channels=2",
     "folder:x?size=4&split=some", "numpy:", "numpy:x.npy?layout=hwcn"],
)  # fmt: skip
def test_malformed_names_of_own_sets_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        get_dataset(name)


def test_lsun_is_read_from_folders(tmp_path: Path) -> None:
    write_pngs(tmp_path / "lsun" / "tower_train", 5)
    write_pngs(tmp_path / "lsun" / "tower_val", 2, seed=9)
    dataset = small("lsun-tower64", valid=2)
    assert [len(dataset.load(split, tmp_path)) for split in SPLITS] == [3, 2, 2]
    train, valid = (dataset.load(split, tmp_path)[:] for split in ("train", "valid"))
    paths = sorted((tmp_path / "lsun" / "tower_train").rglob("*.png"))
    whole = FileImages(paths, crop="square", size=64, channels=3).batch(torch.arange(5))
    assert torch.equal(torch.cat([train, valid]), whole)
