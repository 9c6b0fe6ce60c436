"""Data files that claim, nest or compute too much, and pipes in their place, end in one error in bounded time."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from flowzoo.cli.data import data
from flowzoo.data import get_dataset
from flowzoo.data.pickled_arrays import read_pickled_arrays
from flowzoo.data.readers.npz import open_npz_array
from flowzoo.data.survey import survey
from flowzoo.errors import DataUnavailable, InputError, IntegrityError
from tests.data_files import noise, small, write_celeba, write_mnist


def write_npy(path: Path, header: str, content: bytes = b"") -> Path:
    text = header.encode("latin-1") + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content)
    return path


def header(shape: str, descr: str = "'|u1'", fortran: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


# --- pipes in the place of files ---------------------------------------------------------------------------


def check(*arguments: str) -> Result:
    return CliRunner().invoke(data, ["check", *arguments], standalone_mode=False)


def test_a_pipe_in_the_place_of_a_listed_file_is_no_file(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    pipe = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    pipe.unlink()
    os.mkfifo(pipe)
    dataset = get_dataset("mnist")
    assert not dataset.is_present("train", tmp_path)
    with pytest.raises(DataUnavailable, match=r"idx3-ubyte \(there, but not a regular file\)"):
        dataset.load("train", tmp_path)
    done = check("mnist", "--root", str(tmp_path))
    assert done.return_value == 0, done.stderr
    assert "as on record" in done.stdout
    assert "train split is not there" in done.stderr


def test_pipes_as_own_images_are_no_images(tmp_path: Path) -> None:
    for name in ("a.npy", "pictures"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(DataUnavailable, match="not a regular file"):
        get_dataset(f"numpy:{tmp_path}/a.npy")
    with pytest.raises(DataUnavailable, match="not a regular file"):
        get_dataset(f"folder:{tmp_path}/pictures?size=4&split=all").load("train")
    (tmp_path / "file.png").write_bytes(b"x")
    with pytest.raises(DataUnavailable, match="not a folder"):
        get_dataset(f"folder:{tmp_path}/file.png?size=4").load("train")
    with pytest.raises(DataUnavailable, match="not there"):
        get_dataset(f"folder:{tmp_path}/{'n' * 5000}?size=4").load("train")


def test_a_pipe_in_the_place_of_a_prepared_copy_or_a_partition_is_not_opened(tmp_path: Path) -> None:
    write_celeba(tmp_path)
    dataset = small("celeba64")
    copy = tmp_path / "prepared" / dataset.preprocessing / "celeba64-train.npy"
    copy.parent.mkdir(parents=True)
    os.mkfifo(copy)
    assert len(dataset.load("train", tmp_path)) == 2
    partition = tmp_path / "celeba" / "list_eval_partition.txt"
    partition.unlink()
    os.mkfifo(partition)
    with pytest.raises(DataUnavailable, match="not a regular file"):
        get_dataset("celeba64").load("train", tmp_path)


# --- arrays ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    ["(10**30, 8, 8)", f"({10**30}, 8, 8)", "(True, 8, 8)", f"({2**62}, 8, 8)", "(-1, 8, 8)", "(1, 8.0, 8)",
     f"({2**39}, 0, 8)", "5", "(1, 8, 8", "(" * 3000, f"({'1, ' * 60})"],
)  # fmt: skip
def test_headers_of_nonsense_shapes_are_refused(tmp_path: Path, shape: str) -> None:
    path = write_npy(tmp_path / "a.npy", header(shape), bytes(64))
    with pytest.raises(IntegrityError, match=r"a\.npy"):
        get_dataset(f"numpy:{path}")


def test_an_array_larger_than_its_file_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    path = write_npy(tmp_path / "a.npy", header("(1099511627776, 8, 8)"), bytes(64))
    with pytest.raises(IntegrityError, match="promises 70368744177664 bytes of numbers, 64 are there"):
        get_dataset(f"numpy:{path}")


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([print], dtype=object))
    with pytest.raises(IntegrityError, match="objects"):
        get_dataset(f"numpy:{tmp_path / 'a.npy'}")


def test_fortran_order_gives_the_same_images(tmp_path: Path) -> None:
    array = noise(40, 5, 6, 3)
    np.save(tmp_path / "c.npy", array)
    np.save(tmp_path / "f.npy", np.asfortranarray(array))
    found = [get_dataset(f"numpy:{tmp_path}/{name}.npy").load("train")[:] for name in "cf"]
    assert torch.equal(*found)


@pytest.mark.parametrize("kept", [-1, -200, 10])
def test_a_file_cut_while_it_is_open_is_an_error_and_not_a_crash(
    tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowzoo.data.readers.npy.IN_MEMORY_BYTES", 0)
    path = tmp_path / "a.npy"
    np.save(path, noise(50, 8, 8))
    images = get_dataset(f"numpy:{path}?split=all").load("train")
    assert not images.in_memory
    assert np.array_equal(images[torch.tensor([3, 4, 49, 0])][:, 0].numpy(), noise(50, 8, 8)[[3, 4, 49, 0]])
    os.truncate(path, kept if kept > 0 else path.stat().st_size + kept)
    with pytest.raises(IntegrityError, match="become shorter"):
        images.batch(torch.arange(50))


def bomb(path: Path, claimed: int, kind: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive of zeros that claims ``claimed`` images of 64x64x3."""
    with zipfile.ZipFile(path, "w", kind) as archive, archive.open("data.npy", "w", force_zip64=True) as file:
        write_npy(path.with_suffix(".head"), header(f"({claimed}, 64, 64, 3)"))
        file.write(path.with_suffix(".head").read_bytes())
        file.write(bytes(8 << 20))
    return path


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2])
def test_an_archive_that_claims_more_than_it_holds_is_refused(tmp_path: Path, kind: int) -> None:
    with pytest.raises(IntegrityError, match=r"claims|deflated"):
        open_npz_array(bomb(tmp_path / "a.npz", 1_000_000, kind), ["data"])


def test_an_archive_that_inflates_as_no_images_do_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bomb(tmp_path / "a.npz", 600)
    assert open_npz_array(path, ["data"]).shape == (600, 64, 64, 3)
    monkeypatch.setattr("flowzoo.data.readers.npz.IN_MEMORY_BYTES", 1 << 20)
    with pytest.raises(IntegrityError, match="which no images are"):
        open_npz_array(path, ["data"])


# --- folders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "levels", "reason"), [("d", 110, "more than 100 deep"), ("d" * 200, 30, "File name too long")]
)
def test_folders_nested_without_end_are_refused(tmp_path: Path, name: str, levels: int, reason: str) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(levels):  # the whole path may be longer than the system takes
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        with pytest.raises(DataUnavailable, match=reason) as caught:
            get_dataset(f"folder:{tmp_path}?size=4&split=all").load("train")
        assert len(str(caught.value)) < 500
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / name)], check=True)


def test_loops_of_links_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "up").symlink_to("..")
    (tmp_path / "self.png").symlink_to("self.png")
    found = survey(tmp_path / "up" / tmp_path.name)
    assert found.files == ()
    assert found.skipped["link to nowhere"] == ("a", "b", "self.png")


# --- pickles -----------------------------------------------------------------------------------------------


def nested(levels: int) -> bytes:
    return b"K\x01\x85" + b"q\x00h\x00\x86" * levels


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}(" + nested(60) + b"K\x01u.",  # a key whose hash takes 2^60 steps
        b"\x80\x02}" + nested(60) + b"K\x01s.",
        b"\x80\x04" + nested(60) + nested(60) + b"\x93.",  # a name made of them
        b"\x80\x02cnumpy\ndtype\n" + nested(60) + b"\x85R.",
        b"\x80\x02c_codecs\nencode\nU\x01x" + nested(60) + b"\x86R.",
        b"\x80\x02cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03" + nested(60) + b"tb.",
        b"\x80\x02}(" + b"".join(b"\x8a\x0c" + (n * (2**61 - 1) + 5).to_bytes(12, "little") + b"N"
                                  for n in range(40_000)) + b"u.",  # numbers of one hash
        b"\x80\x02](" + b"K\x01" * 510_000 + b"e.",
    ],
    ids=["key", "key alone", "name", "type", "encoding", "byte order", "one hash", "many opcodes"],
)  # fmt: skip
def test_pickles_that_would_compute_for_ever_are_refused(content: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        read_pickled_arrays(content, Path("file"))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "shape",
    [b"(U\x04aaaaJ\xff\xff\xff\x7ft", nested(60), b"(\x8a\xc8" + b"\x7f" * 200 + b"t", b"(" + b"K\x01" * 9 + b"t"],
    ids=["text", "nested", "huge", "many"],
)  # fmt: skip
def test_shapes_that_would_compute_for_ever_are_refused(shape: bytes) -> None:
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01" + shape + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R\x89U\x01xtb."
    )
    with pytest.raises(IntegrityError, match="whole numbers"):
        read_pickled_arrays(content, Path("file"))


def test_one_text_cannot_fill_many_arrays() -> None:
    honest = pickle.dumps({"data": noise(100, 100)}, protocol=2)
    assert read_pickled_arrays(honest, Path("file"))["data"].shape == (100, 100)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01M\x10\x27\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R\x89"
    )
    text = b"X" + struct.pack("<I", 10_000) + b"a" * 10_000
    content = b"\x80\x02}(U\x01a" + array + text + b"q\x00tb" + (b"U\x01b" + array + b"h\x00tb") * 30 + b"u."
    with pytest.raises(IntegrityError, match="share their bytes"):
        read_pickled_arrays(content, Path("file"))


def test_hostile_arrays_end_in_one_line_on_the_command_line(tmp_path: Path) -> None:
    write_npy(tmp_path / "a.npy", header(f"({10**30}, 8, 8)"), bytes(64))
    error = check(f"numpy:{tmp_path / 'a.npy'}").exception
    assert isinstance(error, IntegrityError)
    assert len(str(error).splitlines()) == 1
    np.save(tmp_path / "b.npy", noise(3, 8, 8))
    done = check(f"numpy:{tmp_path / 'b.npy'}", "--json")
    assert done.return_value == IntegrityError.exit_code
    assert {row["verdict"] for row in json.loads(done.stdout)} >= {"no images"}


def test_a_set_without_images_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise(0, 8, 8))
    for query in ("", "?split=all"):
        with pytest.raises(InputError, match="empty"):
            get_dataset(f"numpy:{tmp_path / 'a.npy'}{query}").load("train")
