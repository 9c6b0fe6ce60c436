"""Arrays in npy and npz files, prepared copies, and sets that are missing."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowzoo.data import SPLITS, get_dataset
from flowzoo.data.prepared import prepare
from flowzoo.data.readers.npy import ArrayImages
from flowzoo.data.readers.npz import open_npz_array
from flowzoo.data.stored import StoredArray
from flowzoo.errors import DataUnavailable, InputError, IntegrityError
from tests.data_files import Hostile, noise, small, write_celeba


@pytest.mark.parametrize("shape", [(23, 5, 6), (23, 5, 6, 1), (23, 5, 6, 3), (23, 3, 5, 6)])
def test_numpy_files_of_every_layout(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path, array = tmp_path / "a.npy", noise(*shape)
    np.save(path, array)
    expected = array.reshape(23, 1, 5, 6) if array.size == 23 * 30 else array
    if shape[-1] == 3:
        expected = array.transpose(0, 3, 1, 2)
    whole = get_dataset(f"numpy:{path}?split=all").load("test")[:].numpy()
    assert np.array_equal(whole, expected)
    parts = {split: get_dataset(f"numpy:{path}").load(split)[:].numpy() for split in SPLITS}
    tenths = np.array([int(hashlib.sha256(image.tobytes()).hexdigest(), 16) % 10 for image in expected])
    for split, chosen in (("train", tenths < 8), ("valid", tenths == 8), ("test", tenths == 9)):
        assert np.array_equal(parts[split], expected[chosen])


def test_numpy_files_that_hold_no_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with pytest.raises(DataUnavailable, match="no file"):
        get_dataset(f"numpy:{path}")
    for array, match in (
        (np.zeros((4, 5, 6)), "float64"),
        (noise(4, 5), "shape"),
        (noise(4, 5, 6, 7), "channels"),
    ):
        np.save(path, array)
        with pytest.raises(InputError, match=match):
            get_dataset(f"numpy:{path}")
    np.save(path, noise(4, 3, 5, 3))
    with pytest.raises(InputError, match="layout=nhwc"):
        get_dataset(f"numpy:{path}")
    assert get_dataset(f"numpy:{path}?layout=nchw").image_shape == (3, 5, 3)
    path.write_bytes(b"not an array")
    with pytest.raises(IntegrityError):
        get_dataset(f"numpy:{path}")
    np.save(path, noise(2, 5, 5))
    with pytest.raises(InputError, match="empty"):
        get_dataset(f"numpy:{path}").load("test")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_arrays_are_left_in_the_file_if_stored_and_read_if_compressed(tmp_path: Path, save: Any) -> None:
    path, array = tmp_path / "a.npz", noise(5, 4, 4, 3)
    save(path, data=array, labels=np.arange(5))
    found = open_npz_array(path, ["images", "data"])
    assert np.array_equal(found[np.arange(5)], array)
    assert isinstance(found, StoredArray) is (save is np.savez)
    with pytest.raises(IntegrityError, match="labels"):
        open_npz_array(path, ["images"])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(IntegrityError, match="npz"):
        open_npz_array(path, ["data"])


def test_npz_archives_of_objects_are_refused(tmp_path: Path) -> None:
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", data=np.array([Hostile(tmp_path / "trace")], dtype=object))
        with pytest.raises(IntegrityError):
            open_npz_array(tmp_path / "a.npz", ["data"])
    assert not (tmp_path / "trace").exists()


def test_several_arrays_are_one_source() -> None:
    array = noise(10, 4, 4, 3)
    source = ArrayImages([array[:3], array[3:4], array[4:]], "nhwc")
    order = torch.tensor([9, 0, 3, 2, 4, 4])
    assert np.array_equal(source.batch(order).numpy(), array.transpose(0, 3, 1, 2)[order.numpy()])


def test_a_prepared_copy_replaces_the_files(tmp_path: Path) -> None:
    files = write_celeba(tmp_path)
    dataset = small("celeba64")
    before = dataset.load("train", tmp_path)
    progress: list[tuple[int, int]] = []
    path = prepare(dataset, "train", tmp_path, lambda done, total: progress.append((done, total)))
    assert progress[-1] == (len(before), len(before))
    assert path.with_suffix(".sha256").read_text().strip() == before.digest
    for file in files["train"]:
        file.unlink()
    assert dataset.is_present("train", tmp_path)
    assert dataset.load("train", tmp_path).digest == before.digest
    with pytest.raises(IntegrityError):
        prepare(dataset, "train", tmp_path)
    assert path.exists(), "a failed preparation took the good copy away"
    assert sorted(path.parent.iterdir()) == sorted((path, path.with_suffix(".sha256")))
    with pytest.raises(InputError, match="nothing to prepare"):
        prepare(get_dataset("mnist"), "test", tmp_path)


def test_a_failed_preparation_leaves_no_copy(tmp_path: Path) -> None:
    files = write_celeba(tmp_path)
    files["train"][-1].write_bytes(b"broken")
    with pytest.raises(IntegrityError):
        prepare(small("celeba64"), "train", tmp_path)
    assert not list(tmp_path.rglob("*.npy"))
    assert not list(tmp_path.rglob(".partial-*"))


@pytest.mark.parametrize("name", ["mnist", "cifar10", "celeba64", "imagenet64-oord", "lsun-bedroom64"])
def test_a_missing_set_says_where_it_was_looked_for_and_how_to_get_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = get_dataset(name)
    monkeypatch.setenv("FLOWZOO_DATA", str(tmp_path))
    for root in (None, tmp_path):
        with pytest.raises(DataUnavailable) as caught:
            dataset.load("train", root)
        message = str(caught.value)
        assert dataset.hint(root) in message
        assert all(str(path) in message for paths in dataset.looked_for("train") for path in paths)
        assert ("$FLOWZOO_DATA" in message) is (root is None)


def test_nothing_in_the_package_unpickles() -> None:
    import flowzoo.data

    for path in Path(flowzoo.data.__path__[0]).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "pickle.load" not in text
        assert "allow_pickle=True" not in text


def test_a_damaged_array_inside_an_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.npy", b"\x93NUMPY\x01\x00 nonsense")
    with pytest.raises(IntegrityError):
        open_npz_array(path, ["data"])
