"""The real sets, where FLOWZOO_DATA holds them: their digests are those on record."""

from __future__ import annotations

import numpy as np
import pytest

from flowzoo.data import SPLITS, get_dataset


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "celeba64-half"])
@pytest.mark.parametrize("split", SPLITS)
def test_the_real_pixels_are_those_on_record(name: str, split: str) -> None:
    dataset = get_dataset(name)
    if not dataset.is_present(split):
        pytest.skip(f"{name} is not under FLOWZOO_DATA")
    images = dataset.load(split)
    assert images.digest == dataset.splits[split].sha256
    assert len(images) == dataset.splits[split].size


@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar10_equals_what_torchvision_reads(split: str) -> None:
    dataset = get_dataset("cifar10")
    if not dataset.is_present(split):
        pytest.skip("cifar10 is not under FLOWZOO_DATA")
    datasets = pytest.importorskip("torchvision.datasets")
    path = dataset.find(split)[0]
    if path.suffix == ".bin":
        pytest.skip("torchvision does not read the binary release")
    theirs = datasets.CIFAR10(str(path.parent.parent), train=split == "train").data.transpose(0, 3, 1, 2)
    ours = dataset.load(split)[:].numpy()
    assert np.array_equal(ours, theirs[: len(ours)])
