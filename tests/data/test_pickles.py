"""Pickled batches are read without running anything in them."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowzoo.data import get_dataset
from flowzoo.data.pickled_arrays import read_pickled_arrays
from flowzoo.errors import IntegrityError
from tests.data_files import Hostile, Pixels, noise, small


def classes(rows: Pixels) -> Pixels:
    """A label for every row, in the order of the rows."""
    return rows[:, 0] % 10


class Python2Pickle:
    """Writes a CIFAR-10 batch with the opcodes of Python 2, as the official files have them."""

    @staticmethod
    def text(value: bytes) -> bytes:
        short = len(value) < 256
        return (b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<I", len(value))) + value

    @classmethod
    def batch(cls, rows: Pixels, after: bytes = b"") -> bytes:
        count = struct.pack("<H", len(rows))
        labels = b"".join(b"K" + bytes([label]) for label in classes(rows).tolist())
        return b"".join(
            [
                b"\x80\x02}q\x01(" + cls.text(b"batch_label") + cls.text(b"testing"),
                cls.text(b"labels") + b"]q\x02(" + labels + b"e" + cls.text(b"data"),
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


def pickled(rows: Pixels, data: object, labels: object, protocol: int) -> bytes:
    return pickle.dumps({data: rows, labels: classes(rows).tolist()}, protocol=protocol)


def as_binary(rows: Pixels) -> bytes:
    return np.concatenate([classes(rows)[:, None], rows], axis=1).tobytes()


@pytest.mark.parametrize(
    ("encode", "folder", "suffix"),
    [
        (Python2Pickle.batch, "cifar-10-batches-py", ""),
        (lambda rows: pickled(rows, b"data", b"labels", 2), "cifar-10-batches-py", ""),
        (lambda rows: pickled(rows, "data", "labels", 4), "cifar-10-batches-py", ""),
        (as_binary, "cifar-10-batches-bin", ".bin"),
    ],
)
def test_cifar10_releases_give_the_same_pixels_and_labels(
    tmp_path: Path, encode: Callable[[Pixels], bytes], folder: str, suffix: str
) -> None:
    images = write_cifar(tmp_path, encode, folder, suffix)
    dataset = small("cifar10", valid=4)
    for split, part in (("train", images[:11]), ("valid", images[11:15]), ("test", images[15:])):
        found = dataset.load(split, tmp_path)
        assert np.array_equal(found[:].numpy(), part)
        assert np.array_equal(found.needed_labels().numpy(), classes(part.reshape(-1, 3072)))


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
