"""One of the processes of :func:`tools.cuda.trainings.two_processes`: ``python -m tools.cuda.process DEVICE``."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist

from flowzoo.data import ImageSet, TrainBatches
from flowzoo.distributed import World, broadcast_state, world
from flowzoo.testing.randomize import randomize
from flowzoo.training.step import GradientStep
from flowzoo.training.train import build_model
from tools.cuda.settings import Settings, full_float32
from tools.cuda.trainings import made_up, recipe


def gradient(where: World) -> float:
    """The norm of the gradient of a joint batch, in each process that it is shared by."""
    wanted = recipe(Settings(str(where.device), smallest=True))
    flow = randomize(build_model(wanted), seed=where.rank).to(where.device)
    broadcast_state(flow, where)
    data = ImageSet(made_up(64), id="made-up", split="train")
    batches = TrainBatches(
        data, wanted.train.batch_size, 0, device=where.device, rank=where.rank, world_size=where.size
    )
    return GradientStep(flow, wanted.train, where)(next(batches)).norm


def main(device: str) -> None:
    """Prints, from the first process, the backend, the number of processes and the gradient's norm."""
    torch.set_num_threads(1)
    full_float32()  # as the process that compares
    with world(device) as where:
        norm = gradient(where)
        if where.main:
            sys.stdout.write(f"{dist.get_backend()} {where.size} {norm!r}\n")


if __name__ == "__main__":
    main(sys.argv[1])
