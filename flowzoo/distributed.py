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

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    """
    wanted = find_device(device)
    if "RANK" not in os.environ or dist.is_initialized():
        rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        yield World(rank, size, wanted)
        return
    if wanted.type == "cuda":
        wanted = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(wanted)
    dist.init_process_group("nccl" if wanted.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), wanted)
        # No process tears its connections down while another still uses them.
        dist.barrier()
    finally:
        # Wrappers in reference cycles hold the group; freed after it, their threads abort the process.
        gc.collect()
        dist.destroy_process_group()


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
