"""From what a user calls a device to one that is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowzoo.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["MAX_THREADS", "find_device", "has_bfloat16_units", "set_threads"]

MAX_THREADS = 1024
"""CPU threads that may be asked for; some hundred thousand end the process with a segmentation fault."""


def find_device(device: str | torch.device | None = None, *, computing: bool = False) -> torch.device:
    """The device that is meant, checked to be there before anything is built for it.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; None takes a GPU if there is one.
        computing: Whether numbers are wanted from it; ``"meta"`` has shapes only, and is refused then.

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
    if computing and found.type == "meta":
        raise InputError(
            "device 'meta' has shapes and no numbers, so nothing can be computed there. Use cpu."
        )
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


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 on a device; a processor without units for it emulates slowly."""
    import torch

    if device.type == "cuda":
        # Compute capability 8.0, Ampere, is the first with units for it.
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    # torch has no public name for the question; a version without this one gets the safe answer.
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and bool(supported())


def set_threads(count: int) -> None:
    """Sets the number of CPU threads of this process.

    Raises:
        InputError: There cannot be so many.
    """
    import torch

    if not 1 <= count <= MAX_THREADS:
        raise InputError(
            f"{count} CPU threads were asked for; expected 1 to {MAX_THREADS}. More than there are cores slow it down."
        )
    torch.set_num_threads(count)
