"""Ways to stop: signals to any of the processes, and a time that is up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flowzoo.errors import InputError
from flowzoo.training.interrupt import stop_requests
from flowzoo.training.run_dir import RunDir
from flowzoo.training.state import list_checkpoints, load_checkpoint
from flowzoo.training.train import build_model, train_flow
from tests.trainings import CPU, image_set, save_images, tiny_recipe

IMAGES = (image_set(160), image_set(40, seed=1))


def command(out: Path, dataset: str) -> list[str]:
    sets = ["train.steps=100000", "train.samples=0", f"data.dataset={dataset}", "model.image_shape=[1,8,8]"]
    sets += ["train.log_every=5", "train.batch_size=16"]
    words = ["-m", "flowzoo", "train", "glow-tiny", "--out", str(out), "--device", "cpu"]
    return words + [part for text in sets for part in ("--set", text)]


def wait_for_rows(out: Path) -> None:
    deadline = time.monotonic() + 120
    while len(RunDir(out).rows()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)


def check_checkpoint(out: Path) -> None:
    step = load_checkpoint(list_checkpoints(RunDir(out).checkpoints)[0])[0].step
    assert step > 0
    last = RunDir(out).rows()[-1]
    assert (last["kind"], last["step"], last["state"]) == ("end", step, "interrupted")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_scheduler_s_signals_leave_a_checkpoint(number: signal.Signals, tmp_path: Path) -> None:
    dataset, out = save_images(tmp_path / "images.npy"), tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, *command(out, dataset)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    wait_for_rows(out)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    check_checkpoint(out)


def test_a_signal_to_one_process_of_several_stops_them_all(tmp_path: Path) -> None:
    dataset, out = save_images(tmp_path / "images.npy"), tmp_path / "run"
    shared = os.environ | {"OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(20_000 + os.getpid() % 20_000)}
    processes = [
        subprocess.Popen(
            [sys.executable, *command(out, dataset)],
            stderr=subprocess.PIPE,
            text=True,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        wait_for_rows(out)
        processes[1].send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=90)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [130, 130], said
    check_checkpoint(out)


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert request.signal is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def go(out: Path, slow_at: int | None = None, **options: Any) -> Any:
    recipe = tiny_recipe("glow-tiny", "made-up", "optimizer.lr=0.05", samples=0, checkpoint_every=2)
    flow, steps = build_model(recipe), [0]

    def pause(*_: Any) -> None:
        steps[0] += flow.training
        if steps[0] == slow_at:
            time.sleep(2)

    flow.register_forward_pre_hook(pause)
    return train_flow(flow, recipe, out, IMAGES, CPU, progress=False, **options)


def test_time_that_is_up_ends_with_a_validation_that_resuming_does_not_know_of(tmp_path: Path) -> None:
    """The weights at the end are those of a training that was left alone, however good the pause was."""
    whole, parts = RunDir(tmp_path / "whole"), RunDir(tmp_path / "parts")
    go(whole.path)
    for step in (4, 4):  # before the first regular validation, and after it
        outcome = go(parts.path, slow_at=step, max_seconds=1.9)
        [paused] = [row for row in parts.rows() if row.get("pause")]
        assert (outcome.state, outcome.step) == ("out of time", paused["step"])
        assert paused["kind"] == "valid"
        assert parts.best.is_file()
        assert outcome.best_bpd is not None
        assert outcome.best_bpd <= paused["bpd"]
    go(parts.path)
    assert not any(row.get("pause") for row in parts.rows())
    for name in ("best", "last"):
        assert getattr(parts, name).read_bytes() == getattr(whole, name).read_bytes()
    assert not parts.regular.exists()


def test_a_run_stops_after_so_many_updates_and_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    whole, parts = RunDir(tmp_path / "whole"), RunDir(tmp_path / "parts")
    go(whole.path)
    said: list[str] = []
    outcome = go(parts.path, stop_after=5, say=said.append)
    assert (outcome.state, outcome.step, outcome.best_step) == ("stopped", 5, 5)
    assert parts.rows()[-1]["reason"] == "after 5 updates, as asked"
    assert said[-1].endswith("without stop_after, the same command goes on from there.")
    rates = [row["lr"] for row in parts.rows() if row["kind"] == "train"]
    assert rates == [row["lr"] for row in whole.rows() if row["kind"] == "train"][: len(rates)]
    with pytest.raises(InputError, match=r"from 5 on: .* has had 5"):
        go(parts.path, stop_after=4)
    go(parts.path, stop_after=10_000)
    for name in ("best", "last"):
        assert getattr(parts, name).read_bytes() == getattr(whole, name).read_bytes()
