"""Files made to deceive: every one is refused with an error that names it, and none of them runs anything."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from flowzoo.errors import FlowzooError, IntegrityError, UnknownModel
from flowzoo.flow import Flow
from flowzoo.manifest.schema import Entry, Weights
from flowzoo.weights.load import load
from flowzoo.weights.safetensors_header import MAX_HEADER_BYTES, parse_header, read_header
from tests.probe import FILENAME, REPO, Probe, entry, fingerprinted, save, trained, write_directory

Json = dict[str, Any]


@pytest.fixture
def overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "overlay"
    directory.mkdir()
    monkeypatch.setenv("FLOWZOO_WEIGHTS_DIR", str(directory))
    monkeypatch.setenv("FLOWZOO_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return directory


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlay: Path) -> Iterator[Probe]:
    with Probe.installed(tmp_path / "site", monkeypatch) as probe:
        yield probe


@pytest.fixture
def flow(probe: Probe) -> Flow:
    return trained()


@pytest.fixture
def sound(flow: Flow, tmp_path: Path) -> bytes:
    save(flow, tmp_path / "sound.safetensors")
    return (tmp_path / "sound.safetensors").read_bytes()


def vouched(content: bytes) -> Weights:
    """What a manifest that believes in a file says of it."""
    digest = hashlib.sha256(content).hexdigest()
    return Weights(filename=FILENAME, sha256=digest, size=max(1, len(content)), dtype="float32")


def offer(probe: Probe, overlay: Path, flow: Flow, content: bytes) -> Entry:
    """Lists a file and puts it where it is found; size and digest are right, whatever it holds."""
    listed = entry(flow, vouched(content))
    assert listed.weights is not None
    probe.list(listed)
    (overlay / f"{listed.weights.sha256}.safetensors").write_bytes(content)
    return listed


def split(content: bytes) -> tuple[Json, bytes]:
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: Json | bytes, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def tensors(header: Json) -> list[str]:
    names = [name for name in header if name != "__metadata__"]
    return sorted(names, key=lambda name: header[name]["data_offsets"])


def weight(header: Json) -> str:
    """Name of a matrix that is not square."""
    return next(name for name in tensors(header) if len(set(header[name]["shape"])) == 2)


def edited(edit: Callable[[Json], object]) -> Callable[[bytes], bytes]:
    """A hostile file from an edit of the header alone."""

    def make(content: bytes) -> bytes:
        header, body = split(content)
        edit(header)
        return joined(header, body)

    return make


def overlapping(content: bytes) -> bytes:
    header, body = split(content)
    last, before = tensors(header)[-1], tensors(header)[-2]
    size = header[last]["data_offsets"][1] - header[last]["data_offsets"][0]
    end = header[before]["data_offsets"][1] - 1
    header[last]["data_offsets"] = [end, end + size]
    return joined(header, body[: end + size])


def hole(content: bytes) -> bytes:
    header, body = split(content)
    first, *others = tensors(header)
    end = header[first]["data_offsets"][1]
    for name in others:
        header[name]["data_offsets"] = [offset + 8 for offset in header[name]["data_offsets"]]
    return joined(header, body[:end] + bytes(8) + body[end:])


def without_a_tensor(content: bytes) -> bytes:
    header, body = split(content)
    begin, end = header.pop(tensors(header)[-1])["data_offsets"]
    return joined(header, body[:begin] + body[end:])


def with_another_tensor(content: bytes) -> bytes:
    header, body = split(content)
    header["surprise"] = {"dtype": "U8", "shape": [4], "data_offsets": [len(body), len(body) + 4]}
    return joined(header, body + bytes(4))


def value(number: float) -> Callable[[bytes], bytes]:
    def make(content: bytes) -> bytes:
        header, body = split(content)
        begin = header[weight(header)]["data_offsets"][0]
        return joined(header, body[:begin] + struct.pack("<f", number) + body[begin + 4 :])

    return make


def uninitialized(content: bytes) -> bytes:
    header, body = split(content)
    begin = next(header[name]["data_offsets"][0] for name in header if name.endswith("initialized"))
    return joined(header, body[:begin] + b"\0" + body[begin + 1 :])


def stored_as_half(content: bytes) -> bytes:
    header, body = split(content)
    last = next(n for n in reversed(tensors(header)) if header[n]["dtype"] == "F32")
    begin, end = header[last]["data_offsets"]
    header[last] |= {"dtype": "F16", "data_offsets": [begin, (begin + end) // 2]}
    for other in tensors(header)[tensors(header).index(last) + 1 :]:
        header[other]["data_offsets"] = [o - (end - begin) // 2 for o in header[other]["data_offsets"]]
    return joined(header, body[: (begin + end) // 2] + body[end:])


def twice(content: bytes) -> bytes:
    header, body = split(content)
    name = tensors(header)[0]
    again = f', "{name}": {json.dumps(header[name])}}}'
    return joined(json.dumps(header)[:-1].encode() + again.encode(), body)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["FLOWZOO_TEST_MARKER"],)


def zip_bomb(content: bytes) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save({"weight": Bomb()}, buffer)
    return buffer.getvalue()


HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "fewer than the 8|expected 1 bytes"),
    "seven bytes": (lambda c: c[:7], "fewer than the 8"),
    "truncated header": (lambda c: c[:100], "claims a header of"),
    "truncated body": (lambda c: c[:-1], "1 fewer than its header describes"),
    "bytes after the end": (lambda c: c + b"x", "1 more than its header describes"),
    "header over 100 MB": (
        lambda c: struct.pack("<Q", MAX_HEADER_BYTES + 1) + c[8:],
        f"the most allowed is {MAX_HEADER_BYTES}",
    ),
    "header longer than the file": (lambda c: struct.pack("<Q", len(c)) + c[8:], "in all"),
    "header of 2^64-1 bytes": (lambda c: b"\xff" * 8 + c[8:], "the most allowed"),
    "header is a list": (lambda c: joined(b"[]", split(c)[1]), r"start with '\{'"),
    "header is not JSON": (lambda c: joined(b"{" + b"'a': 1}", split(c)[1]), "not JSON"),
    "header is not UTF-8": (lambda c: joined(b'{"\xff": 1}', split(c)[1]), "not JSON"),
    "header nested a million deep": (lambda c: joined(b'{"a":' * 10**6, split(c)[1]), "not JSON"),
    "number of a million digits": (lambda c: joined(b'{"a":' + b"9" * 10**6 + b"}", split(c)[1]), "not JSON"),
    "metadata of numbers": (edited(lambda h: h.update(__metadata__={"a": 1})), "__metadata__"),
    "name twice": (twice, "twice"),
    "overlapping offsets": (overlapping, "overlaps"),
    "hole": (hole, "8 bytes between .* belong to nothing"),
    "negative offset": (
        edited(lambda h: h[weight(h)].update(data_offsets=[-4, 0])),
        "impossible data_offsets",
    ),
    "reversed offsets": (edited(lambda h: h[weight(h)]["data_offsets"].reverse()), "impossible data_offsets"),
    "offsets beyond the end": (
        edited(lambda h: h[weight(h)].update(data_offsets=[2**40, 2**40 + 1024])),
        "belong to nothing|needs",
    ),
    "shape that overflows": (edited(lambda h: h[weight(h)].update(shape=[2**62, 2**62])), "needs"),
    "shape of booleans": (edited(lambda h: h[weight(h)].update(shape=[True, 256])), "impossible shape"),
    "unknown dtype": (edited(lambda h: h[weight(h)].update(dtype="OBJECT")), "unknown dtype"),
    "another key": (edited(lambda h: h[weight(h)].update(code="x")), "exactly dtype, shape and data_offsets"),
    "missing tensor": (without_a_tensor, "tensors missing: "),
    "extra tensor": (with_another_tensor, "does not have: surprise"),
    "renamed tensor": (edited(lambda h: h.update(renamed=h.pop(weight(h)))), "tensors missing: .*renamed"),
    "transposed tensor": (edited(lambda h: h[weight(h)]["shape"].reverse()), "the model's is"),
    "tensor of integers": (edited(lambda h: h[weight(h)].update(dtype="I32")), "int32"),
    "tensor of another float type": (stored_as_half, "stored as float16; expected float32"),
    "NaN": (value(float("nan")), "NaN or infinity"),
    "infinity": (value(float("inf")), "NaN or infinity"),
    "not initialized": (uninitialized, "before the model saw data"),
    "pickle": (lambda _: pickle.dumps(Bomb()), "pickle"),
    "torch.save archive": (zip_bomb, "pickle or a zip archive"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_even_when_the_manifest_vouches_for_it(
    name: str, probe: Probe, overlay: Path, flow: Flow, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = overlay / "was run"
    monkeypatch.setenv("FLOWZOO_TEST_MARKER", str(marker))
    make, words = HOSTILE[name]
    offer(probe, overlay, flow, make(sound))
    with pytest.raises(IntegrityError, match=words) as error:
        load("probe-tiny")
    assert str(overlay) in str(error.value)
    assert "\n" not in str(error.value)
    assert not marker.exists()


def test_the_bomb_would_go_off_if_anything_unpickled_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "was run"
    monkeypatch.setenv("FLOWZOO_TEST_MARKER", str(marker))
    pickle.loads(pickle.dumps(Bomb()))
    assert marker.exists()


def test_the_sound_file_loads(probe: Probe, overlay: Path, flow: Flow, sound: bytes) -> None:
    offer(probe, overlay, flow, sound)
    images = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8)
    assert torch.equal(load("probe-tiny").encode(images), flow.encode(images))


@pytest.mark.parametrize("what", ["wrong file", "dangling", "directory", "device", "pipe"])
def test_what_is_not_the_file_in_the_overlay_is_refused(
    what: str, probe: Probe, overlay: Path, flow: Flow, sound: bytes
) -> None:
    listed = offer(probe, overlay, flow, sound)
    assert listed.weights is not None
    place = overlay / f"{listed.weights.sha256}.safetensors"
    place.unlink()
    if what == "pipe":
        os.mkfifo(place)
    else:
        (overlay / "other").write_bytes(bytes(len(sound)))
        targets = {"wrong file": "other", "dangling": "absent", "directory": ".", "device": "/dev/zero"}
        place.symlink_to(targets[what])
    with pytest.raises(IntegrityError, match=r"overlay.*expected"):
        load("probe-tiny")


def test_a_link_in_the_overlay_to_the_right_file_is_the_right_file(
    probe: Probe, overlay: Path, flow: Flow, sound: bytes, tmp_path: Path
) -> None:
    listed = offer(probe, overlay, flow, sound)
    assert listed.weights is not None
    place = overlay / f"{listed.weights.sha256}.safetensors"
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert load("probe-tiny").is_initialized


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"filename": "../../etc/passwd.safetensors"}, "without directories"),
        ({"filename": "/etc/passwd.safetensors"}, "without directories"),
        ({"filename": "model.pkl"}, "ends in .safetensors"),
        ({"revision": "main"}, "40 lower-case hexadecimal"),
        ({"revision": "v1.0"}, "40 lower-case hexadecimal"),
        ({"sha256": "0" * 63}, "64 lower-case hexadecimal"),
        ({"repo_id": "../up"}, "organisation/name"),
        ({"size": -1}, "at least 1"),
    ],
)
def test_a_manifest_that_reaches_out_is_not_read(
    change: dict[str, Any], words: str, probe: Probe, overlay: Path, flow: Flow, sound: bytes
) -> None:
    listed = offer(probe, overlay, flow, sound)
    assert listed.weights is not None
    pinned = dataclasses.replace(listed.weights, repo_id=REPO, revision="0" * 40)
    probe.list(dataclasses.replace(listed, weights=dataclasses.replace(pinned, **change)))
    with pytest.raises(UnknownModel, match=words):
        load("probe-tiny")


def test_a_file_under_another_entrys_hash_is_refused(
    probe: Probe, overlay: Path, flow: Flow, sound: bytes, tmp_path: Path
) -> None:
    save(trained(1), tmp_path / "other.safetensors")
    other = (tmp_path / "other.safetensors").read_bytes()
    assert len(other) == len(sound)
    mine, theirs = entry(flow, vouched(sound)), entry(flow, vouched(other), name="probe-other")
    probe.list(mine, theirs)
    assert theirs.weights is not None
    (overlay / f"{theirs.weights.sha256}.safetensors").write_bytes(sound)
    with pytest.raises(IntegrityError, match=f"expected sha256 {theirs.weights.sha256}, found sha256"):
        load("probe-other")


def test_an_entry_with_another_entrys_hash_is_refused_or_fails_verification(
    probe: Probe, overlay: Path, flow: Flow, sound: bytes
) -> None:
    wide = trained(hidden_units=16, image_shape=(1, 8, 8))
    offer(probe, overlay, flow, sound)
    probe.list(entry(wide, vouched(sound)))
    with pytest.raises(IntegrityError, match="the model's is"):
        load("probe-tiny")
    # The same shapes: the file is sound and the wrong one, which only the fingerprint can tell.
    from flowzoo.weights.fingerprint import compare

    swapped = fingerprinted(trained(1), vouched(sound))
    probe.list(swapped)
    assert swapped.fingerprint is not None
    assert not compare(load("probe-tiny"), swapped.fingerprint).verified
    assert compare(trained(1), swapped.fingerprint).verified


def test_a_flipped_header_that_is_vouched_for_never_ends_in_another_error(
    probe: Probe, flow: Flow, sound: bytes, tmp_path: Path
) -> None:
    card = write_directory(tmp_path / "mine", flow)
    draw = random.Random(1)
    header_end = 8 + struct.unpack("<Q", sound[:8])[0]
    refused = 0
    for _ in range(200):
        spoilt = bytearray(sound)
        spoilt[draw.randrange(header_end)] ^= draw.randrange(1, 256)
        weights = dataclasses.replace(vouched(bytes(spoilt)), filename="model.safetensors")
        (tmp_path / "mine" / "model.safetensors").write_bytes(spoilt)
        (tmp_path / "mine" / "flowzoo.json").write_text(
            json.dumps({**card, "weights": dataclasses.asdict(weights)})
        )
        try:
            load(f"path:{tmp_path / 'mine'}")
        except FlowzooError as error:
            assert isinstance(error, IntegrityError)  # noqa: PT017 - a flip in the padding is no error
            refused += 1
    assert refused > 150


def test_the_header_parser_agrees_with_the_file_it_reads(sound: bytes, tmp_path: Path) -> None:
    header = parse_header(sound, len(sound), "sound")
    assert header == read_header(tmp_path / "sound.safetensors")
    last = next(reversed(header.tensors.values()))
    assert last.end == header.size == len(sound)
    assert header.num_values == sum(tensor.numel() for tensor in trained().state_dict().values())
