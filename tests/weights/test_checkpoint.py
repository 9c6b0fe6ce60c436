"""Weights files and atomic writes: reproducible, strict, whole or absent."""

from __future__ import annotations

import errno
import json
import os
import resource
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, BinaryIO

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import flowzoo.atomic
from flowzoo.atomic import new_directory, remove_leftovers, sha256_file, write_chunks, write_text
from flowzoo.errors import CheckpointError, IntegrityError
from flowzoo.weights.checkpoint import load_weights, read_metadata, save_weights, write_tensors

if TYPE_CHECKING:
    from pathlib import Path


class Model(nn.Module):
    """Every kind of state: weights, a buffer of integers, a flag."""

    def __init__(self, seed: int = 0, initialized: bool = True) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(3, 4)
        self.conv = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
        self.register_buffer("order", torch.arange(5))
        self.register_buffer("empty", torch.empty(0, 2))
        self.register_buffer("initialized", torch.tensor(initialized))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


METADATA = {"architecture": "x", "config": {"b": [1, 2.5, None], "a": "é"}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_round_trip(path: Path) -> None:
    model, other = Model(), Model(seed=1)
    digest, size = save_weights(model, path, METADATA)
    assert (digest, size) == (sha256_file(path), path.stat().st_size)
    assert load_weights(other, path) == METADATA == read_metadata(path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_the_safetensors_library_reads_the_same(path: Path) -> None:
    model = Model()
    save_weights(model, path, METADATA)
    for name, tensor in load_file(path).items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_bytes_depend_on_the_arguments_alone(path: Path, tmp_path: Path) -> None:
    model, again = Model(), tmp_path / "again.safetensors"
    save_weights(model, path, METADATA)
    state = dict(reversed(model.state_dict().items()))
    save_weights(state, again, dict(reversed(METADATA.items())))
    assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_stored_types_are_cast_back(path: Path, dtype: torch.dtype) -> None:
    model, other = Model(), Model(seed=1)
    save_weights(model, path, METADATA, dtype=dtype)
    load_weights(other, path, stored_dtype=str(dtype).removeprefix("torch."))
    assert torch.equal(other.linear.weight, model.linear.weight.to(dtype).float())
    with pytest.raises(IntegrityError, match="expected float32"):
        load_weights(other, path, stored_dtype="float32")


def test_a_meta_model_gets_the_files_tensors(path: Path) -> None:
    model = Model()
    save_weights(model, path, METADATA)
    with torch.device("meta"):
        other = Model()
    load_weights(other, path)
    assert torch.equal(other.conv.weight, model.conv.weight)


def state_without(name: str) -> dict[str, torch.Tensor]:
    return {key: tensor.contiguous() for key, tensor in Model().state_dict().items() if key != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("linear.bias"), r"tensors missing: linear\.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "does not have: extra"),
        (lambda s: s.update({"linear.bias": torch.zeros(5)}), "shape"),
        (lambda s: s.update({"order": torch.arange(5).float()}), "float32; the model's is int64"),
        (lambda s: s.update({"linear.bias": torch.full((4,), float("nan"))}), "NaN"),
        (lambda s: s.update({"linear.bias": torch.full((4,), float("inf"))}), "NaN or infinity"),
        (lambda s: s.update({"initialized": torch.tensor(False)}), "before the model saw data"),
    ],
)
def test_what_differs_is_refused_and_the_model_unchanged(path: Path, change: object, words: str) -> None:
    state = state_without("")
    change(state)  # type: ignore[operator]
    save_file(state, path)
    model, before = Model(seed=2), Model(seed=2).state_dict()
    with pytest.raises(IntegrityError, match=words):
        load_weights(model, path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: data[:100],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: struct.pack("<Q", 2**60) + data[8:],
        lambda data: data[:8] + b"x" + data[9:],
    ],
)
def test_damaged_files_are_refused(path: Path, spoil: object) -> None:
    save_weights(Model(), path, METADATA)
    path.write_bytes(spoil(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(IntegrityError):
        load_weights(Model(), path)
    with pytest.raises(IntegrityError):
        load_weights(Model(), path.with_name("absent"))


def test_foreign_metadata(path: Path) -> None:
    save_file(state_without(""), path)
    assert read_metadata(path) == {}
    save_file(state_without(""), path, {"flowzoo": "[1]"})
    with pytest.raises(IntegrityError, match="not a JSON object"):
        read_metadata(path)


def test_what_is_not_finite_is_not_written(path: Path) -> None:
    with pytest.raises(IntegrityError, match="NaN or infinity"):
        save_weights({"big": torch.tensor([1e30])}, path, {}, dtype=torch.float16)
    assert not path.exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [[float("nan")], [float("inf")], [float("inf"), -float("inf")]])
def test_nothing_but_what_is_not_finite_is_refused(path: Path, dtype: torch.dtype, bad: list[float]) -> None:
    largest = torch.finfo(dtype).max
    sound = torch.tensor([largest] * 50 + [-largest] * 3, dtype=dtype)  # its sum overflows
    save_weights({"a": sound, "empty": sound[:0]}, path, {})
    with pytest.raises(IntegrityError, match="NaN or infinity"):
        save_weights({"a": torch.cat([sound[:7], torch.tensor(bad, dtype=dtype), sound])}, path, {})


def test_a_failed_write_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_weights(Model(), path, METADATA)
    before, whole = path.read_bytes(), flowzoo.atomic.write_all
    for number in range(1, 12):
        left = [number]

        def fail(handle: BinaryIO, chunk: flowzoo.atomic.Chunk, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            whole(handle, chunk)

        monkeypatch.setattr(flowzoo.atomic, "write_all", fail)
        if number <= len(Model().state_dict()):
            with pytest.raises(CheckpointError, match="full"):
                save_weights(Model(seed=3), path, METADATA)
            assert path.read_bytes() == before
            assert names(path.parent) == [path.name]


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from flowzoo.atomic import write_chunks
from flowzoo.errors import CheckpointError
from pathlib import Path
try:
    write_chunks(Path(sys.argv[1]), [bytes(1000)] * 10)
except CheckpointError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no file size limits here")
def test_the_systems_own_limit_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", LIMITED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "is full" in done.stdout
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["big"]


def test_directories_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    with new_directory(path) as temporary:
        write_text(temporary / "a", "1")
        assert not path.exists()
    with pytest.raises(CheckpointError), new_directory(path) as temporary:
        write_text(temporary / "a" / "under a file that is not there" / ("x" * 300), "2")
    assert (path / "a").read_text() == "1"
    with new_directory(path) as temporary:
        write_text(temporary / "b", "3")
    assert names(path) == ["b"]
    assert names(tmp_path) == ["thing"]


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".partial-1-x").mkdir()
    (tmp_path / ".partial-2-y").write_text("")
    (tmp_path / "kept").write_text("")
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "absent")
    assert names(tmp_path) == ["kept"]


def test_an_unwritable_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="Cannot write"):
        write_chunks(tmp_path / "file" / "below", [b"x"])


def test_metadata_is_one_key_of_canonical_json(path: Path) -> None:
    write_tensors(path, {}, {"b": 1, "a": [True]})
    raw = path.read_bytes()
    header = json.loads(raw[8:])
    assert header["__metadata__"] == {"flowzoo": '{"a":[true],"b":1}'}
    assert (len(raw) - 8) % 8 == 0
