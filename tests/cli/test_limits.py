"""Limits of the machine and values beyond all limits: one line and a documented code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import torch

from flowzoo.cli import main as frame
from flowzoo.devices import MAX_THREADS, has_bfloat16_units, set_threads
from flowzoo.errors import InputError
from flowzoo.evaluation.noise import MAX_SEED, keyed_noise
from tests.trainings import save_images


def code_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Runs the command line in this process; returns exit code and stderr."""
    with pytest.raises(SystemExit) as caught:
        frame.main(arguments)
    code = caught.value.code
    return code if isinstance(code, int) else 0, capsys.readouterr().err


def too_much_memory() -> None:
    torch.empty(10**15)


def too_much_numpy() -> None:
    np.empty(10**15)


def too_many_threads() -> None:
    # As CPython does when the system refuses; that many threads would hurt the tests beside this one.
    raise RuntimeError("can't start new thread")


def no_home() -> None:
    Path("~nosuchuser/x").expanduser()


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (too_much_memory, "out of memory"),
        (too_much_numpy, "out of memory"),
        (too_many_threads, "no more threads"),
        (no_home, "there is no home directory"),
    ],
)
def test_a_limit_is_not_a_bug(
    cause: Callable[[], None], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame.LazyGroup, "get_command", lambda *_: click.command()(cause))
    code, err = code_of(capsys, "list")
    assert code == 8
    assert words in err
    assert "bug" not in err


TRAIN = ("train", "glow-tiny", "--set", "data.dataset=mnist")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((*TRAIN, "--out", "run", "--threads", "1000000"), 8, "expected 1 to 1024"),
        (("eval", "glow-mnist", "--threads", "1000000"), 8, "expected 1 to 1024"),
        ((*TRAIN, "--out", "run", "--device", "meta"), 8, "Use cpu"),
        ((*TRAIN, "--dry-run", "--device", "meta"), 8, "Use cpu"),
        (("sample", "glow-mnist", "-n", "1", "-o", "x.png", "--device", "meta"), 8, "Use cpu"),
        (("eval", "glow-mnist", "--device", "meta"), 8, "Use cpu"),
        (("sample", "glow-mnist", "-n", "1", "-o", "x.png", "--seed", str(2**64)), 2, "not in the range"),
        (("eval", "glow-mnist", "--seed", str(2**64)), 2, "not in the range"),
        ((*TRAIN, "--out", "run", "--set", f"train.seed={2**64}"), 8, "64 bits"),
        ((*TRAIN, "--out", "run", "--max-seconds", "nan"), 8, "max_seconds is nan"),
        ((*TRAIN, "--out", "run", "--set", "data.split=test"), 8, "flowzoo eval"),
        (("train", "glow-tiny", "--out", "run", "--set", "data.dataset=numpy:~nosuchuser/x.npy"), 8, "home"),
    ],
)
def test_impossible_arguments(
    arguments: tuple[str, ...],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path / "images.npy", 80, (3, 8, 8))
    replaced = [text.replace("dataset=mnist", "dataset=numpy:images.npy") for text in arguments]
    found, err = code_of(capsys, *replaced)
    assert found == code
    assert words in err
    assert [path.name for path in tmp_path.iterdir()] == ["images.npy"]


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "0"},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"RANK": "x", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
        {"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
    ],
    ids=str,
)
def test_a_rank_without_torchrun(
    variables: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, err = code_of(capsys, *TRAIN, "--out", str(tmp_path / "run"))
    assert code == 8
    assert f"RANK={variables['RANK']} is set" in err
    assert not any(tmp_path.iterdir())


def test_seeds_are_told_apart_or_refused() -> None:
    low, high = (keyed_noise("uniform", (1, 2, 2), seed, [0], 0) for seed in (0, MAX_SEED))
    assert not torch.equal(low, high)
    for seed in (-1, MAX_SEED + 1):
        with pytest.raises(InputError, match="out of range"):
            keyed_noise("uniform", (1, 2, 2), seed, [0], 0)


def test_threads_are_bounded() -> None:
    before = torch.get_num_threads()
    for count in (0, MAX_THREADS + 1):
        with pytest.raises(InputError, match="expected 1 to"):
            set_threads(count)
    set_threads(before)
    assert torch.get_num_threads() == before


def test_a_processor_is_asked_for_its_units(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_bfloat16_units(torch.device("cpu")) is bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert has_bfloat16_units(torch.device("cpu")) is False
    assert has_bfloat16_units(torch.device("meta")) is False
