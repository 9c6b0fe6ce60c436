"""Labels: every set that has them gives the right ones, batches carry them, wrong and missing ones are one line."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from flowzoo.data import SPLITS, Dataset, ImageSet, Split, TrainBatches, VectorSet, eval_batches, get_dataset
from flowzoo.data.prepared import prepare
from flowzoo.errors import ConfigError, FlowzooError, InputError, IntegrityError
from tests.data_files import noise, small, write_idx

IMAGES = torch.from_numpy(noise(30, 1, 4, 4))
LABELS = torch.arange(30) % 3


def read(dataset: Dataset, split: str, paths: tuple[Path, ...]) -> tuple[Any, ...]:
    """The reader of the sets below: whatever their options say."""
    found: tuple[Any, ...] = dataset.options["found"]
    return found


def made(*found: Any, **changes: Any) -> Dataset:
    fields: dict[str, Any] = {
        "id": "made", "title": "Made", "release": "1", "preprocessing": "made-v1", "preprocessing_note": "None.",
        "image_shape": (1, 4, 4), "splits": {"train": Split(description="all")}, "reader": f"{__name__}:read",
        "terms": "CC0", "attribution": "nobody", "how_to_get": "it is made on the spot", "options": {"found": found},
    }  # fmt: skip
    return Dataset(**{**fields, **changes})


def one_line(error: pytest.ExceptionInfo[FlowzooError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_bundled_labels_are_the_official_ones(tmp_path: Path) -> None:
    mnist = get_dataset("mnist")
    labels = mnist.load("test", tmp_path).needed_labels()
    official = b"\x00\x00\x08\x01\x00\x00\x27\x10" + labels.to(torch.uint8).numpy().tobytes()
    assert hashlib.md5(official).hexdigest() == mnist.md5["MNIST/raw/t10k-labels-idx1-ubyte"]
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_fashion_mnist_gives_the_labels_of_its_splits(tmp_path: Path) -> None:
    for part, count in (("train", 7), ("t10k", 4)):
        raw = tmp_path / "FashionMNIST" / "raw"
        write_idx(raw / f"{part}-images-idx3-ubyte", noise(count, 28, 28))
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8))
    dataset = small("fashion-mnist", valid=2)
    found = [dataset.load(split, tmp_path).needed_labels().tolist() for split in SPLITS]
    assert found == [[0, 1, 2, 3, 4], [5, 6], [0, 1, 2, 3]]
    assert dataset.label_names[9] == "ankle boot"


def test_idx_labels_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    images, labels = tmp_path / "images.gz", tmp_path / "labels.gz"
    write_idx(images, noise(3, 28, 28))
    write_idx(labels, noise(2, 28, 28))
    test = Split(description="", alternatives=(("images.gz", "labels.gz"),))
    dataset = dataclasses.replace(small("fashion-mnist"), splits={"test": test})
    with pytest.raises(IntegrityError, match="idx file of labels"):
        dataset.load("test", tmp_path)


def test_downsampled_imagenet_counts_from_one(tmp_path: Path) -> None:
    folder = tmp_path / "imagenet32-chrabaszcz"
    folder.mkdir()
    np.savez(folder / "val_data.npz", data=noise(3, 3072), labels=[1, 1000, 7])
    dataset = small("imagenet32-chrabaszcz")
    assert dataset.load("test", tmp_path).needed_labels().tolist() == [0, 999, 6]
    prepare(dataset, "test", tmp_path)
    (folder / "val_data.npz").unlink()
    assert dataset.load("test", tmp_path).needed_labels().tolist() == [0, 999, 6]


def test_a_reader_may_return_labels_and_their_names() -> None:
    found = made(IMAGES, LABELS.tolist(), ("a", "b", "c")).load("train")
    assert torch.equal(found.needed_labels(), LABELS)
    assert (found.label_names, found.num_classes) == (("a", "b", "c"), 3)
    assert found.needed_labels().dtype == torch.int64
    assert torch.equal(found.take(4).needed_labels(), LABELS[:4])
    assert torch.equal(found.subset(torch.tensor([5, 1])).needed_labels(), LABELS[[5, 1]])


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ([0] * 29, "29 labels for the 30 items"),
        ([0] * 7 + [3] + [0] * 22, r"Item 7 .* label 3; expected 0 to 2"),
        ([-1] + [0] * 29, r"Item 0 .* label -1"),
        ([0.5] * 30, "float64"),
        ([[0]] * 30, "shape"),
    ],
)
def test_wrong_labels_are_one_line(labels: Any, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        ImageSet(IMAGES, labels=labels, label_names=("a", "b", "c"))
    one_line(caught)
    with pytest.raises(IntegrityError, match=match) as broken:
        made(IMAGES, labels, ("a", "b", "c")).load("train")
    one_line(broken)


def test_labels_of_a_set_without_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'custom' has no labels") as caught:
        ImageSet(IMAGES).needed_labels()
    one_line(caught)
    with pytest.raises(InputError, match="hold no labels, as the release does") as missing:
        ImageSet(IMAGES, label_names=("a", "b")).needed_labels()
    one_line(missing)


def test_a_set_is_of_images_or_of_vectors() -> None:
    for changes in ({"image_shape": None}, {"dims": 2}, {"kind": "vectors"}, {"kind": "sounds"}):
        with pytest.raises(InputError, match="expected kind"):
            made(IMAGES, None, **changes)


def batches(world: int = 1, rank: int = 0, **options: Any) -> TrainBatches:
    return TrainBatches(ImageSet(IMAGES, labels=LABELS), 6, 0, rank=rank, world_size=world, **options)


@pytest.mark.parametrize("resident", [False, True])
def test_training_batches_carry_the_labels_of_their_images(resident: bool) -> None:
    stream = batches(resident=resident, augment="flip")
    for _ in range(7):
        batch = next(stream)
        assert batch.labels is not None
        assert torch.equal(batch.labels, LABELS[batch.indices])
    stream.close()
    shares = [next(batches(2, rank)).labels for rank in range(2)]
    whole = next(batches()).labels
    assert whole is not None
    assert torch.equal(torch.cat([share for share in shares if share is not None]), whole)
    assert next(TrainBatches(ImageSet(IMAGES), 6, 0)).labels is None


def test_evaluation_batches_carry_them_too() -> None:
    for batch in eval_batches(ImageSet(IMAGES, labels=LABELS), 7, 1, 2):
        indices, images = batch
        assert torch.equal(images, IMAGES[indices])
        assert batch.labels is not None
        assert torch.equal(batch.labels, LABELS[indices])
    assert next(iter(eval_batches(ImageSet(IMAGES), 7))).labels is None


def test_vectors_go_through_batches_and_are_not_augmented() -> None:
    vectors = VectorSet(torch.randn(20, 3), labels=torch.arange(20) % 2)
    batch = next(TrainBatches(vectors, 5, 0))
    assert torch.equal(batch.images, vectors.vectors[batch.indices])
    seen: list[Tensor] = [batch.images for batch in eval_batches(vectors, 8)]
    assert torch.equal(torch.cat(seen), vectors.vectors)
    with pytest.raises(ConfigError, match="'flip' is of images"):
        TrainBatches(vectors, 5, 0, augment="flip")


# --- the user's own -----------------------------------------------------------------------------------------


def write_classes(folder: Path, counts: dict[str, int]) -> None:
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for position in range(count):
            pixels = noise(5, 5, 3, seed=100 * number + position)
            pixels[:] = pixels // 4 + 60 * number
            Image.fromarray(pixels).save(folder / name / f"{position}.png")


def test_folders_are_classes_where_that_is_asked_for(tmp_path: Path) -> None:
    write_classes(tmp_path, {"cat": 30, "dog": 25, "eel": 1})
    name = f"folder:{tmp_path}?size=4"
    labelled, plain = get_dataset(f"{name}&labels=folders"), get_dataset(name)
    assert labelled.label_names == ("cat", "dog", "eel")
    total = 0
    for split in SPLITS:
        found = labelled.load(split)
        # The brightness tells the classes apart, and no image changes its split by having a label.
        classes = (found[:].float().mean((1, 2, 3)) // 60).long().clamp(max=2)
        assert torch.equal(found.needed_labels(), classes)
        assert sorted(image.numpy().tobytes() for image in found[:]) == sorted(
            image.numpy().tobytes() for image in plain.load(split)[:]
        )
        total += len(found)
    assert total == 56
    assert plain.load("train").labels is None
    assert len(get_dataset(f"{name}&labels=folders&split=all").load("test")) == 56


def test_folders_are_classes_inside_split_folders(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 2, "b": 2, "c": 1})
    write_classes(tmp_path / "test", {"b": 1})
    dataset = get_dataset(f"folder:{tmp_path}?size=4&labels=folders")
    assert dataset.load("train").needed_labels().tolist() == [0, 0, 1, 1, 2]
    assert dataset.load("test").needed_labels().tolist() == [1]
    whole = get_dataset(f"folder:{tmp_path}?size=4&labels=folders&split=all").load("valid")
    assert whole.needed_labels().tolist() == [0, 0, 1, 1, 1, 2]
    write_classes(tmp_path / "valid", {"zebra": 1})
    with pytest.raises(InputError, match="in no folder of a class"):
        dataset.load("valid")


def test_folders_without_classes_are_refused(tmp_path: Path) -> None:
    name = f"folder:{tmp_path}?size=4&labels="
    with pytest.raises(InputError, match="no folders"):
        get_dataset(f"{name}folders")
    with pytest.raises(InputError, match="only value of labels"):
        get_dataset(f"{name}files")


def test_an_archive_holds_images_or_vectors_with_labels(tmp_path: Path) -> None:
    pictures, labels = noise(60, 4, 4, 3), np.arange(60) % 4
    np.savez(tmp_path / "a.npz", x=pictures, labels=labels, label_names=np.array(["n", "e", "s", "w"]))
    dataset = get_dataset(f"numpy:{tmp_path / 'a.npz'}")
    assert (dataset.image_shape, dataset.label_names) == ((3, 4, 4), ("n", "e", "s", "w"))
    parts = [dataset.load(split) for split in SPLITS]
    assert sum(map(len, parts)) == 60
    by_pixels = {
        image.tobytes(): label
        for image, label in zip(pictures.transpose(0, 3, 1, 2).copy(), labels, strict=True)
    }
    for part in parts:
        found = [by_pixels[image.numpy().tobytes()] for image in part[:]]
        assert part.needed_labels().tolist() == found
    np.savez(tmp_path / "b.npz", x=np.ones((5, 2)), y=np.arange(5))
    vectors = get_dataset(f"numpy:{tmp_path / 'b.npz'}?split=all").load("train")
    assert isinstance(vectors, VectorSet)
    assert vectors.needed_labels().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"pixels": np.zeros((2, 4, 4), np.uint8), "more": np.zeros(1)}, "holds the arrays pixels, more"),
        ({"x": np.zeros((2, 4, 4))}, "expected uint8 images"),
        ({"x": np.zeros((2, 4, 4), np.uint8), "y": np.zeros(3, int)}, "2 items and 3 labels"),
    ],
)
def test_archives_of_anything_else_are_refused(tmp_path: Path, arrays: dict[str, Any], match: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises((InputError, IntegrityError), match=match):
        get_dataset(f"numpy:{tmp_path / 'a.npz'}?split=all").load("train")
