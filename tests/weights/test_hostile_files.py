"""Cards, headers and configs made to hang, to exhaust or to crash whoever reads them; loading in threads."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from flowzoo.config import config_hash
from flowzoo.errors import ConfigError, FlowzooError, InputError, IntegrityError, WeightsUnavailable
from flowzoo.flow import Flow
from flowzoo.registry import reset_registry
from flowzoo.weights.checkpoint import load_weights, read_metadata, save_weights
from flowzoo.weights.load import load
from flowzoo.weights.plain_files import parse_json
from flowzoo.weights.safetensors_header import read_header
from flowzoo.weights.skip_init import build_to_load
from tests.probe import FILENAME, Probe, entry, save, trained, write_directory


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Probe]:
    with Probe.installed(tmp_path / "site", monkeypatch) as probe:
        yield probe


@pytest.fixture
def flow(probe: Probe) -> Flow:
    return trained()


def refused(name: object, kind: type[FlowzooError], words: str) -> None:
    started = time.monotonic()
    with pytest.raises(kind, match=words) as error:
        load(name)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 900 + "]" * 900, "nested"),
        ("[" * 10**6, "nested"),
        ('{"a":' * 400 + "1" + "}" * 400, "nested"),
        ("1" * 5000, "5000 digits"),
        ("[1e999]", "no finite number"),
        ("[NaN]", "no finite number"),
    ],
)
def test_json_has_bounds(text: str, words: str, probe: Probe, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)
    (tmp_path / "flowzoo.json").write_text(text)
    refused(f"path:{tmp_path}", ConfigError, words)
    header = (
        b'{"__metadata__":{"flowzoo":"{}"},"x":{"dtype":"F32","shape":%s,"data_offsets":[0,0]}}'
        % text.encode()
    )
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(IntegrityError, match=words):
        read_header(tmp_path / "w.safetensors")
    save_weights({"x": torch.zeros(1)}, tmp_path / "m.safetensors", {})
    sound = (tmp_path / "m.safetensors").read_bytes()
    length = int.from_bytes(sound[:8], "little")
    fields = json.loads(sound[8 : 8 + length])
    fields["__metadata__"]["flowzoo"] = text
    changed = json.dumps(fields).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(changed)) + changed + sound[8 + length :])
    with pytest.raises(IntegrityError, match=words):
        read_metadata(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    "shape", [[2**62] * 50_000, [0] * 100, [1] * 65], ids=["long and large", "zeros", "too many axes"]
)
def test_a_shape_has_few_axes(shape: list[int], tmp_path: Path) -> None:
    text = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(IntegrityError, match="impossible shape") as error:
        read_header(tmp_path / "w.safetensors")
    assert len(str(error.value)) < 600


def test_a_name_twice_among_many_is_found_at_once(tmp_path: Path) -> None:
    one = '"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    text = ("{" + ",".join(one % i for i in [*range(100_000), 99_999]) + "}").encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    started = time.monotonic()
    with pytest.raises(IntegrityError, match="'t99999' twice"):
        read_header(tmp_path / "w.safetensors")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "link to a pipe"])
@pytest.mark.parametrize("filename", ["flowzoo.json", "model.safetensors"])
def test_what_is_no_regular_file_is_not_waited_for(
    kind: str, filename: str, probe: Probe, flow: Flow, tmp_path: Path
) -> None:
    write_directory(tmp_path / "mine", flow)
    path = tmp_path / "mine" / filename
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    expected = WeightsUnavailable if filename == "flowzoo.json" else IntegrityError
    refused(f"path:{tmp_path / 'mine'}", expected, "directory|regular")


def test_a_card_without_end_is_refused(probe: Probe, flow: Flow, tmp_path: Path) -> None:
    write_directory(tmp_path / "mine", flow, padding="x" * 2_000_000)
    refused(f"path:{tmp_path / 'mine'}", ConfigError, "longer than 1000000 bytes")


DEEP_MODEL = """
from torch import nn
from flowzoo.bijectors import Chain, DiagonalScaling, Flatten
from flowzoo.flow import Flow
def build(config):
    c, h, w = config.image_shape
    stack = Chain(Flatten(config.image_shape), *(DiagonalScaling((c * h * w,)) for _ in range(config.hidden_units)))
    return Flow(image_shape=config.image_shape, n_bits=config.n_bits, bijector=stack)
"""


def with_config(directory: Path, flow: Flow, **changes: Any) -> dict[str, Any]:
    card = write_directory(directory, flow)
    config = {**card["config"], **changes}
    card |= {"config": config, "config_hash": config_hash("probe", config)}
    (directory / "flowzoo.json").write_text(json.dumps(card))
    return card


def test_a_config_that_asks_for_endless_depth_ends(probe: Probe, flow: Flow, tmp_path: Path) -> None:
    with_config(tmp_path / "mine", flow, hidden_units=10**7)
    (probe.package / "model.py").write_text(DEEP_MODEL)
    program = f"import flowzoo; flowzoo.load('path:{tmp_path / 'mine'}')"
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], env=probe.environment(), capture_output=True, text=True, check=False
    )
    assert "IntegrityError" in done.stderr
    assert "do not belong together" in done.stderr
    assert time.monotonic() - started < 30


MEASURED = """
import resource, sys
import torch, flowzoo
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    flowzoo.load(sys.argv[1])
except flowzoo.errors.IntegrityError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1000, "MB")
"""


@pytest.mark.parametrize("listed", [True, False])
def test_a_header_is_compared_before_the_model_is_allocated(
    listed: bool, probe: Probe, flow: Flow, tmp_path: Path
) -> None:
    card = with_config(tmp_path / "mine", flow, hidden_units=50_000_000)
    weights = save(flow, probe.package / "weights" / FILENAME)
    probe.list(
        dataclasses.replace(entry(flow, weights), config=card["config"], config_hash=card["config_hash"])
    )
    name = "probe-tiny" if listed else f"path:{tmp_path / 'mine'}"
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, name],
        env=probe.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    message, used = done.stdout.splitlines()
    assert "the model's is (50000000" in message
    assert int(used.split()[0]) < 1000


def test_a_file_that_is_cut_while_it_is_read_is_an_error_and_no_crash(
    probe: Probe, flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(flow, path, {})

    def cut_after_the_header(where: Path) -> Any:
        header = read_header(where)
        os.truncate(where, header.data_begin + 10)
        return header

    monkeypatch.setattr("flowzoo.weights.checkpoint.read_header", cut_after_the_header)
    before = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    with pytest.raises(IntegrityError, match="cut while it was read"):
        load_weights(flow, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in flow.state_dict().items())


def test_loading_in_threads_leaves_the_random_state_alone(probe: Probe, flow: Flow, tmp_path: Path) -> None:
    write_directory(tmp_path / "mine", flow)
    for _ in range(5):
        torch.manual_seed(7)
        expected = torch.rand(1)
        torch.manual_seed(7)
        threads = [threading.Thread(target=load, args=(f"path:{tmp_path / 'mine'}",)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torch.equal(torch.rand(1), expected)


LOOKS_AT_VALUES = """
    import torch
    assert float(torch.nn.Linear(4, 4).weight.detach().std()) > 0
"""


def test_a_build_that_has_to_draw_leaves_the_random_state_alone(probe: Probe, flow: Flow) -> None:
    model = probe.package / "model.py"
    model.write_text(model.read_text().replace("def build(config):", f"def build(config):{LOOKS_AT_VALUES}"))
    sys.modules.pop("flowzoo_probe.model")
    reset_registry()
    before = torch.get_rng_state()
    build_to_load("probe", flow.config)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", [Path("some/dir"), 1, None, b"glow-mnist"])
def test_a_name_is_a_text(name: object) -> None:
    refused(name, InputError, "path:some/dir" if isinstance(name, Path) else "expected a text")


def test_a_directory_in_nobodys_home_is_one_line() -> None:
    refused("path:~nosuchuser/x", InputError, "write the whole path")
