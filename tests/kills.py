"""Kills trainings with SIGKILL at random moments, resumes them, and compares the weights byte by byte.

``python -m tests.kills DIRECTORY NUMBER_OF_KILLS`` prints one JSON line per kill. torch is imported once,
each training runs in a forked child.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import torch

import flowzoo.atomic
from flowzoo.analysis.curves import save_curve
from flowzoo.training.optim import build_optimizer
from flowzoo.training.run_dir import RunDir
from flowzoo.training.state import list_checkpoints
from flowzoo.training.train import build_model, load_data, train
from flowzoo.training.validation import validate
from tests.trainings import CPU, save_images, tiny_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowzoo.training.recipe import Recipe

STEPS = 20


def the_recipe(dataset: str) -> Recipe:
    """Many checkpoints, two validations."""
    return tiny_recipe("glow-tiny", dataset, steps=STEPS, checkpoint_every=2, validate_every=10, samples=0)


def run_training(out: Path, dataset: str) -> None:
    """One session of the training, from scratch or from a checkpoint."""
    train(the_recipe(dataset), out, device="cpu", progress=False)


def import_everything(directory: Path, dataset: str) -> None:
    """Imports here what children would import lazily: each is faster, and all run the same code.

    No backward pass: autograd refuses to work in children of a process that used it.
    """
    recipe = the_recipe(dataset)
    flow = build_model(recipe).eval()
    build_optimizer(recipe.optimizer, flow).zero_grad()
    validate(flow, load_data(recipe, None)[1], CPU)
    save_curve([], directory / "curve.png")


def cpu_seconds(process: int, began: float) -> float:
    """CPU time of a running process, which does not depend on how busy the machine is."""
    stat = Path(f"/proc/{process}/stat")
    if not stat.exists():
        return time.monotonic() - began
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_child(work: Callable[[], None], *, kill_after: float | None = None) -> tuple[int, float]:
    """Runs ``work`` in a forked child and kills it after some CPU seconds.

    Returns:
        Its wait status, and the CPU seconds it took.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, 2)
            work()
            status = 0
        finally:
            os._exit(status)
    began = time.monotonic()
    while kill_after is not None and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if cpu_seconds(child, began) >= kill_after:
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.002)
    _, status, usage = os.wait4(child, 0)
    return status, usage.ru_utime + usage.ru_stime


def kill_inside_write(number: int) -> None:
    """Arms the write layer: write number ``number`` puts half its bytes down and dies."""
    whole = flowzoo.atomic.write_all
    left = [number]

    def write_half(handle: BinaryIO, chunk: flowzoo.atomic.Chunk) -> None:
        left[0] -= 1
        if left[0] == 0:
            view = memoryview(chunk).cast("B")
            handle.write(view[: len(view) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        whole(handle, chunk)

    flowzoo.atomic.write_all = write_half


def main(directory: Path, kills: int) -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    directory.mkdir(parents=True, exist_ok=True)
    dataset = save_images(directory / "images.npy")
    import_everything(directory, dataset)
    status, seconds = in_child(lambda: run_training(directory / "whole", dataset))
    if status != 0:
        raise SystemExit("the unbroken training failed")
    whole = RunDir(directory / "whole")
    chooser = random.Random(0)
    for number in range(kills):
        run = RunDir(directory / f"run{number}")
        inside = number % 2 == 1

        def session(run: RunDir = run, write: int = chooser.randint(1, 2200), armed: bool = inside) -> None:
            if armed:
                kill_inside_write(write)
            run_training(run.path, dataset)

        moment = chooser.uniform(0.05, 0.95) * seconds
        status, _ = in_child(session, kill_after=None if inside else moment)
        found = [path.name for path in list_checkpoints(run.checkpoints)]
        partial = len(list(run.path.rglob(".partial-*")))
        resumed, _ = in_child(lambda run=run: run_training(run.path, dataset))  # type: ignore[misc]
        same = all(
            getattr(run, name).read_bytes() == getattr(whole, name).read_bytes() for name in ("best", "last")
        )
        row = {
            "kill": number + 1,
            "moment": "inside a write" if inside else f"after {100 * moment / seconds:.0f} % of its time",
            "killed": os.WIFSIGNALED(status),
            "checkpoint": int(found[0]) if found else None,
            "partial_files": partial,
            "resumed": resumed == 0,
            "identical": same,
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
