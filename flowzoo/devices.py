"""From what a user calls a device to one that is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowzoo.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["find_device"]


def find_device(device: str | torch.device | None = None) -> torch.device:
    """The device that is meant, checked to be there before anything is built for it.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; None takes a GPU if there is one.

    Raises:
        InputError: There is no such kind of device, or none of it on this machine.
    """
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(
            f"{device!r} is no device; expected cpu, cuda, or one of several GPUs as cuda:1."
        ) from None
    if found.type == "cuda":
        # Asking for the count makes no CUDA context, which under torchrun would be one on the wrong GPU.
        count = torch.cuda.device_count()
        if (found.index or 0) >= count:
            there = f"{count} of them" if count else "none"
            raise InputError(
                f"device {str(found)!r} was asked for, and PyTorch {torch.__version__} sees {there} on this machine. "
                "Use cpu; if there is a GPU, check its driver and that PyTorch is built for CUDA."
            )
    elif found.type not in ("cpu", "meta"):
        try:
            torch.empty(0, device=found)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise InputError(
                f"device {str(found)!r} cannot be used here: {str(error).splitlines()[0]} Use cpu."
            ) from error
    return found
