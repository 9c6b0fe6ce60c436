"""What the checks are asked: the device, and how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from flowzoo.registry import list_architectures


@dataclass(frozen=True, slots=True)
class Settings:
    """How the checks run.

    Attributes:
        device: ``"cuda"``, ``"cuda:1"`` or ``"cpu"``.
        smallest: Whether every check shrinks to its smallest form, to see that it works.
    """

    device: str = "cuda"
    smallest: bool = False

    @property
    def place(self) -> torch.device:
        """The device."""
        return torch.device(self.device)

    @property
    def is_cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.place.type == "cuda"

    def architectures(self) -> list[str]:
        """The architectures that are tried: all that are usable."""
        return ["glow"] if self.smallest else list_architectures()

    def wait(self) -> None:
        """Waits until the device has done everything."""
        if self.is_cuda:
            torch.cuda.synchronize(self.place)


class Skipped(Exception):
    """A check that this machine, or this device, cannot make; the message says why."""


Check = Callable[[Settings], str]
"""Returns a detail with its figures; raises an AssertionError that says what is wrong, or :class:`Skipped`."""
