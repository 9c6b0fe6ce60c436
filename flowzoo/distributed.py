"""One process or many: everything that knows about ``torch.distributed``."""

from __future__ import annotations

import contextlib
import gc
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from flowzoo.devices import find_device
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator


TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that torchrun sets and joining needs."""


@dataclass(frozen=True, slots=True)
class World:
    """Which process this is.

    Attributes:
        rank: This process, 0 to size - 1.
        size: Number of processes.
        device: This process's device.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0


def is_main_process() -> bool:
    """Whether this process writes results: the first that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def world(device: str | torch.device | None = None) -> Iterator[World]:
    """Joins the processes that ``torchrun`` started, or stands alone.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; None takes a GPU if there is one. Under torchrun
            ``"cuda"`` is the GPU of the local rank. NCCL connects GPUs, gloo everything else.

    Raises:
        InputError: The device is not there, or ``RANK`` is set without the rest of what torchrun sets.
    """
    wanted = find_device(device, computing=True)
    if "RANK" not in os.environ or dist.is_initialized():
        rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        yield World(rank, size, wanted)
        return
    _check_torchrun()
    if wanted.type == "cuda":
        wanted = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(wanted)
    _join("nccl" if wanted.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), wanted)
        # No process tears its connections down while another still uses them.
        dist.barrier()
    finally:
        # Wrappers in reference cycles hold the group; freed after it, their threads abort the process.
        gc.collect()
        dist.destroy_process_group()


def _check_torchrun() -> None:
    """Checks that whoever set ``RANK`` set everything that joining takes.

    Raises:
        InputError: Something is missing or no number, or there is no such rank.
    """
    missing = [name for name in TORCHRUN if not os.environ.get(name)]
    wrong = [
        f"{name}={os.environ[name]}"
        for name in TORCHRUN
        if name not in missing and name != "MASTER_ADDR" and not os.environ[name].isdecimal()
    ]
    if not missing and not wrong and int(os.environ["RANK"]) >= int(os.environ["WORLD_SIZE"]):
        wrong = [f"WORLD_SIZE={os.environ['WORLD_SIZE']}"]
    if missing or wrong:
        what = f"{', '.join(missing)} not" if missing else f"so is {', '.join(wrong)}, which does not fit"
        raise InputError(
            f"RANK={os.environ['RANK']} is set, as torchrun does, and {what}. Start several processes with torchrun "
            "(docs/training.md), or unset RANK to run alone."
        )


def _join(backend: str) -> None:
    try:
        dist.init_process_group(backend)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"Joining the other processes failed: {str(error).splitlines()[0]} Start all of them with torchrun, "
            "or unset RANK to run alone."
        ) from error


@torch.no_grad()
def broadcast_state(module: nn.Module, where: World) -> None:
    """Gives every process the parameters and buffers of process 0."""
    if where.size == 1:
        return
    for tensor in [*module.parameters(), *module.buffers()]:
        # gloo and NCCL have no bool; a byte carries the same.
        carrier = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor.detach().contiguous()
        dist.broadcast(carrier, src=0)
        tensor.copy_(carrier.to(tensor.dtype))


def all_mean(value: Tensor, where: World) -> Tensor:
    """The mean of a scalar over the processes."""
    if where.size == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / where.size


def largest(value: int, where: World) -> int:
    """The largest of the processes' values of a small integer."""
    if where.size == 1:
        return value
    found = torch.tensor(value, device=where.device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def share(value: Any, where: World) -> Any:
    """Process 0's value of a small picklable object, in every process."""
    if where.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(tensor: Tensor, where: World) -> list[Tensor]:
    """Every process's tensor, in order of rank; sizes may differ in the first dimension."""
    if where.size == 1:
        return [tensor]
    boxes: list[Any] = [None] * where.size
    dist.all_gather_object(boxes, tensor.cpu())
    return boxes


def barrier(where: World) -> None:
    """Waits for all processes."""
    if where.size > 1:
        dist.barrier()
