"""Readers: small files in the official formats give the pixels that were written, damaged and hostile ones errors."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from flowzoo.data import SPLITS, Dataset, get_dataset
from flowzoo.data.pickled_arrays import read_pickled_arrays
from flowzoo.data.prepared import prepare
from flowzoo.data.readers.folder import FileImages
from flowzoo.data.readers.npy import MappedImages, open_npz_array
from flowzoo.errors import DataUnavailable, InputError, IntegrityError

Pixels = NDArray[np.uint8]


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def small(name: str, **options: Any) -> Dataset:
    """A built-in data set without the official sizes and digests, for small files in its formats."""
    dataset = get_dataset(name)
    splits = {
        key: dataclasses.replace(split, size=None, sha256=None) for key, split in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=splits, md5={}, options={**dataset.options, **options})


def write_idx(path: Path, array: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    content += array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: Path) -> tuple[Pixels, Pixels]:
    train, test = noise(7, 28, 28), noise(4, 28, 28, seed=1)
    for name, images in (("train", train), ("t10k", test)):
        write_idx(folder / f"{name}-images-idx3-ubyte", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte", np.zeros(len(images), dtype=np.uint8))
    return train, test


# ---- MNIST and Fashion-MNIST


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


# ---- CIFAR-10 and pickles


class Python2Pickle:
    """Writes a CIFAR-10 batch with the opcodes of Python 2, as the official files have them."""

    @staticmethod
    def text(value: bytes) -> bytes:
        short = len(value) < 256
        return (b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<I", len(value))) + value

    @classmethod
    def batch(cls, rows: Pixels, after: bytes = b"") -> bytes:
        count = struct.pack("<H", len(rows))
        return b"".join(
            [
                b"\x80\x02}q\x01(" + cls.text(b"batch_label") + cls.text(b"testing"),
                cls.text(b"labels") + b"]q\x02(" + b"K\x03" * len(rows) + b"e" + cls.text(b"data"),
                b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85",
                cls.text(b"b") + b"\x87Rq\x05(K\x01M" + count + b"M\x00\x0c\x86cnumpy\ndtype\nq\x06",
                cls.text(b"u1") + b"K\x00K\x01\x87Rq\x07(K\x03" + cls.text(b"|"),
                b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + cls.text(rows.tobytes()) + b"tb",
                after + b"u.",
            ]
        )


def write_cifar(root: Path, encode: Callable[[Pixels], bytes], folder: str, suffix: str = "") -> Pixels:
    rows = noise(6 * 3, 3072)
    (root / folder).mkdir()
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for name, part in zip(names, np.split(rows, 6), strict=True):
        (root / folder / f"{name}{suffix}").write_bytes(encode(part))
    return rows.reshape(-1, 3, 32, 32)


def as_binary(rows: Pixels) -> bytes:
    return np.concatenate([np.full((len(rows), 1), 9, dtype=np.uint8), rows], axis=1).tobytes()


@pytest.mark.parametrize(
    ("encode", "folder", "suffix"),
    [
        (Python2Pickle.batch, "cifar-10-batches-py", ""),
        (lambda rows: pickle.dumps({b"data": rows, b"labels": [1]}, protocol=2), "cifar-10-batches-py", ""),
        (lambda rows: pickle.dumps({"data": rows, "labels": [1]}, protocol=4), "cifar-10-batches-py", ""),
        (as_binary, "cifar-10-batches-bin", ".bin"),
    ],
)
def test_cifar10_releases_give_the_same_pixels(
    tmp_path: Path, encode: Callable[[Pixels], bytes], folder: str, suffix: str
) -> None:
    images = write_cifar(tmp_path, encode, folder, suffix)
    dataset = small("cifar10", valid=4)
    assert np.array_equal(dataset.load("train", tmp_path)[:].numpy(), images[:11])
    assert np.array_equal(dataset.load("valid", tmp_path)[:].numpy(), images[11:15])
    assert np.array_equal(dataset.load("test", tmp_path)[:].numpy(), images[15:])


class Hostile:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    hostile = pickle.dumps({"data": noise(2, 3072), "more": Hostile(trace)}, protocol=protocol)
    write_cifar(tmp_path, lambda rows: hostile, "cifar-10-batches-py")
    with pytest.raises(IntegrityError, match="nothing in it was run"):
        small("cifar10").load("test", tmp_path)
    with pytest.raises(IntegrityError, match="md5"):
        get_dataset("cifar10").load("test", tmp_path)
    assert not trace.exists()
    pickle.loads(hostile)
    assert trace.exists(), "the pickle was not hostile, and the test proved nothing"


def test_a_call_hidden_in_a_genuine_batch_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    call = b"U\x04morecos\nmkdir\n" + Python2Pickle.text(os.fsencode(trace)) + b"\x85R"
    with pytest.raises(IntegrityError, match=r"os\.mkdir"):
        read_pickled_arrays(Python2Pickle.batch(noise(2, 3072), call), tmp_path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "value",
    [
        [1, 2],
        {"data": np.array([print, len], dtype=object)},
        {"data": np.asfortranarray(noise(3, 4))},
        {"data": np.zeros(2, dtype="datetime64[s]")},
        {"data": {1, 2}},
        {"data": 1 + 2j},
        {"data": Path("x")},
    ],
)
def test_pickles_of_anything_but_plain_arrays_are_refused(value: object) -> None:
    with pytest.raises(IntegrityError):
        read_pickled_arrays(pickle.dumps(value, protocol=4), Path("file"))


@settings(max_examples=50, deadline=None)
@given(
    dtype=st.sampled_from(["u1", "<i4", ">f8", "<f4", "?", "i8"]),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    protocol=st.integers(2, 4),
)
def test_arrays_survive_a_pickle(dtype: str, shape: list[int], protocol: int) -> None:
    array = noise(*shape).astype(dtype)
    content = pickle.dumps(
        {"a": array, b"b": array, "c": [1, 2.5, "x", None, True, b"y", (1,)]}, protocol=protocol
    )
    found = read_pickled_arrays(content, Path("file"))
    assert found.keys() == {"a", "b"}
    for copy in found.values():
        assert copy.dtype == array.dtype
        assert np.array_equal(copy, array)


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, 6400), position=st.integers(0, 6400), byte=st.integers(0, 255))
def test_damaged_pickles_give_pixels_or_the_right_error(cut: int, position: int, byte: int) -> None:
    content = bytearray(Python2Pickle.batch(noise(2, 3072)))
    content[position % len(content)] = byte
    with contextlib.suppress(IntegrityError):
        read_pickled_arrays(bytes(content[: len(content) - cut % 200]), Path("file"))


@pytest.mark.parametrize("content", [b"", b"\x80\x02}q\x01.", b"x" * 3073 + b"y"])
@pytest.mark.parametrize("suffix", ["", ".bin"])
def test_files_without_cifar_images_are_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    folder = "cifar-10-batches-bin" if suffix else "cifar-10-batches-py"
    write_cifar(tmp_path, lambda rows: content, folder, suffix)
    with pytest.raises(IntegrityError):
        small("cifar10").load("test", tmp_path)


# ---- arrays


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
    rest = np.arange(23) % 10
    for split, chosen in (("train", rest < 8), ("valid", rest == 8), ("test", rest == 9)):
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
def test_npz_arrays_are_mapped_if_stored_and_read_if_compressed(tmp_path: Path, save: Any) -> None:
    path, array = tmp_path / "a.npz", noise(5, 4, 4, 3)
    save(path, data=array, labels=np.arange(5))
    found = open_npz_array(path, ["images", "data"])
    assert np.array_equal(found, array)
    assert isinstance(found, np.memmap) is (save is np.savez)
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
    source = MappedImages([array[:3], array[3:4], array[4:]], "nhwc")
    order = torch.tensor([9, 0, 3, 2, 4, 4])
    assert np.array_equal(source.batch(order).numpy(), array.transpose(0, 3, 1, 2)[order.numpy()])


# ---- ImageNet, CelebA, LSUN, folders


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


def write_celeba(root: Path) -> dict[str, list[Path]]:
    folder, lines = root / "celeba" / "img_align_celeba", []
    folder.mkdir(parents=True)
    files: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for number in range(1, 8):
        path, part = folder / f"{number:06d}.jpg", number % 3
        Image.fromarray(noise(218, 178, 3, seed=number)).save(path, quality=95)
        files[SPLITS[part]].append(path)
        lines.append(f"{path.name} {part}")
    (root / "celeba" / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return files


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
    by_tenths = {split: len(get_dataset(f"folder:{tmp_path}?size=4").load(split)) for split in SPLITS}
    assert by_tenths == {"train": 10, "valid": 1, "test": 1}
    assert get_dataset(f"folder:{tmp_path}?size=4&channels=1").load("test").image_shape == (1, 4, 4)


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


# ---- prepared copies and missing sets


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
    assert list(path.parent.glob("*.part")) == []
    with pytest.raises(InputError, match="nothing to prepare"):
        prepare(get_dataset("mnist"), "test", tmp_path)


def test_a_failed_preparation_leaves_no_copy(tmp_path: Path) -> None:
    files = write_celeba(tmp_path)
    files["train"][-1].write_bytes(b"broken")
    with pytest.raises(IntegrityError):
        prepare(small("celeba64"), "train", tmp_path)
    assert not list(tmp_path.rglob("*.npy"))
    assert not list(tmp_path.rglob("*.part"))


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
        assert dataset.how_to_get in message
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
