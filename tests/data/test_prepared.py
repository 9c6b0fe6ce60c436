"""Prepared copies are vouched for at every load, and writers never share a temporary name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from flowzoo.data.prepared import digest_path, prepare
from flowzoo.errors import IntegrityError
from tests.data_files import noise, small, write_celeba


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_a_copy_that_has_changed_is_noticed_at_every_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr("flowzoo.data.readers.npy.IN_MEMORY_BYTES", limit)
    write_celeba(tmp_path)
    dataset = small("celeba64")
    copy = prepare(dataset, "train", tmp_path)
    good = dataset.load("train", tmp_path).digest
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    for _ in range(2):
        with pytest.raises(IntegrityError, match="changed since it was prepared"):
            dataset.load("train", tmp_path)
    copy.unlink()
    assert dataset.load("train", tmp_path, prepared=False).digest == good


def test_another_array_in_the_copy_s_place_is_noticed(tmp_path: Path) -> None:
    write_celeba(tmp_path)
    dataset = small("celeba64")
    copy = prepare(dataset, "train", tmp_path)
    np.save(copy, noise(2, 3, 64, 64))
    with pytest.raises(IntegrityError, match="changed since it was prepared"):
        dataset.load("train", tmp_path)
    prepare(dataset, "train", tmp_path)
    digest_path(copy).unlink()
    with pytest.raises(IntegrityError, match="nothing vouches for it"):
        dataset.load("train", tmp_path)


def test_two_writers_of_one_process_number_do_not_share_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every container's first process has number 1: while one writes, another may write the same copy."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    write_celeba(tmp_path)
    dataset = small("celeba64")
    expected = dataset.load("train", tmp_path).digest
    during: list[Path] = []

    def meanwhile(done: int, total: int) -> None:
        if not during:
            during.append(tmp_path)
            during.append(prepare(dataset, "train", tmp_path))

    copy = prepare(dataset, "train", tmp_path, meanwhile)
    assert during[1] == copy
    assert dataset.load("train", tmp_path).digest == expected
    assert sorted(path.name for path in copy.parent.iterdir()) == sorted((copy.name, digest_path(copy).name))
