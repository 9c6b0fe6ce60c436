"""Kills a training before chosen ones of its file-system events, resumes it, and looks for what was lost.

``python -m tests.training_kills DIRECTORY FIRST EVERY`` prints one JSON line per kill. Of a training that keeps one
checkpoint a first session is stopped half-way, so that the second saves a step anew.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from flowzoo.training.run_dir import RunDir
from flowzoo.training.state import list_checkpoints
from flowzoo.training.train import train
from tests.kills import import_everything, in_child
from tests.trainings import save_images, tiny_recipe

CHANGES = frozenset({"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "shutil.rmtree"})


def run_training(out: Path, dataset: str) -> None:
    """One session, from scratch or from a checkpoint."""
    recipe = tiny_recipe(
        "glow-tiny", dataset, steps=4, checkpoint_every=2, validate_every=2, samples=0, keep=1
    )
    train(recipe, out, device="cpu", progress=False, max_seconds=None)


def watch(inside: Path, kill_at: int, log: Path) -> None:
    """Counts what is done to files under ``inside``; dies before event number ``kill_at``, or writes the number."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        writing = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if (writing or event in CHANGES) and str(arguments[0]).startswith(str(inside)):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if kill_at == 0:
                log.write_text(str(count))

    sys.addaudithook(hook)


def main(directory: Path, first: int, every: int) -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    directory.mkdir(parents=True, exist_ok=True)
    dataset = save_images(directory / "images.npy")
    import_everything(directory, dataset)
    log = directory / "events"

    def session(run: RunDir, kill_at: int) -> None:
        watch(run.path, kill_at, log)
        run_training(run.path, dataset)

    whole = RunDir(directory / "whole")
    in_child(lambda: session(whole, 0))
    events = int(log.read_text())
    for number in range(first, events + 1, every):
        run = RunDir(directory / f"run{number}")
        status, _ = in_child(lambda run=run, number=number: session(run, number))  # type: ignore[misc]
        had = [path.name for path in list_checkpoints(run.checkpoints)]
        # A second session is killed too: it saves steps that are there already.
        in_child(lambda run=run, number=number: session(run, number // 2 + 1))  # type: ignore[misc]
        left = [path.name for path in list_checkpoints(run.checkpoints)]
        resumed, _ = in_child(lambda run=run: run_training(run.path, dataset))  # type: ignore[misc]
        rows = run.rows()
        row = {
            "event": number,
            "of": events,
            "killed": os.WIFSIGNALED(status),
            "kept": bool(left) or not had,
            "resumed": resumed == 0,
            "identical": run.best.read_bytes() == whole.best.read_bytes()
            and run.last.read_bytes() == whole.last.read_bytes(),
            "rows": [row["kind"] for row in rows if row["kind"] != "end"]
            == [row["kind"] for row in whole.rows() if row["kind"] != "end"],
            "leftovers": len(list(run.path.rglob(".partial-*"))),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
