"""Devices: what is not there is an error of input, on the command line and off it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import flowzoo
from flowzoo.cli.main import main
from flowzoo.devices import find_device
from flowzoo.errors import InputError

ABSENT = ["gpu", "cuda:99", "cpu:x", "xpu:7", ""]


def test_what_is_there_is_found() -> None:
    assert find_device("cpu") == find_device(torch.device("cpu")) == torch.device("cpu")
    assert find_device("meta").type == "meta"
    assert find_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ABSENT)
def test_what_is_not_there_is_refused_by_name(name: str) -> None:
    with pytest.raises(InputError, match="cpu") as caught:
        find_device(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_no_model_is_put_where_nothing_is(name: str) -> None:
    with pytest.raises(InputError, match=name):
        flowzoo.create("glow-tiny", device=name)
    with pytest.raises(InputError, match=name):
        flowzoo.load("glow-mnist", device=name)


@pytest.mark.parametrize(
    "arguments",
    [
        ("eval", "glow-mnist", "--limit", "1"),
        ("sample", "glow-mnist", "-n", "1", "-o", "x.png"),
        ("train", "glow-tiny", "--out", "run", "--set", "data.dataset=mnist"),
        ("train", "glow-tiny", "--dry-run", "--set", "data.dataset=mnist"),
    ],
    ids=lambda value: f"{value[0]}-{value[2]}",
)
def test_a_command_names_the_device_it_lacks(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--device", "gpu"])
    captured = capsys.readouterr()
    assert (caught.value.code, captured.out) == (8, "")
    assert (
        captured.err == "Error: 'gpu' is no device; expected cpu, cuda, or one of several GPUs as cuda:1.\n"
    )
    assert not any(tmp_path.iterdir())
