"""What the checks are asked, the device and how much, and what they find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from flowzoo.registry import list_architectures


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check has found so far, so that one that is cut short, or finds a fault, has not been for nothing.

    Attributes:
        details: What is right, with its figures.
        wrong: What is not.
    """

    details: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def hold(self, what: str, found: float, allowed: float, unit: str = "") -> None:
        """Notes a figure that is above what is allowed; NaN is."""
        # Written so that NaN is noted.
        if not found <= allowed:
            self.wrong.append(f"{what}: {found:.1e}{unit}, allowed {allowed:.1e}")

    def result(self, separator: str = "; ") -> str:
        """All details in one line.

        Raises:
            AssertionError: Something is wrong; the message names all that is.
        """
        assert not self.wrong, separator.join(self.wrong)
        return separator.join(self.details)


@dataclass(frozen=True, slots=True)
class Settings:
    """How the checks run.

    Attributes:
        device: ``"cuda"``, ``"cuda:1"`` or ``"cpu"``.
        smallest: Whether every check shrinks to its smallest form, to see that it works.
        models: The shipped models that are tried; none for all of them.
        images: How many images of each are tried; None for as many as each check takes.
        findings: Where the check puts what it finds.
    """

    device: str = "cuda"
    smallest: bool = False
    models: tuple[str, ...] = ()
    images: int | None = None
    findings: Findings = field(default_factory=Findings)

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


def full_float32() -> None:
    """Switches TF32 off for this process: what is compared with a CPU is compared in full float32."""
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")


Check = Callable[[Settings], str]
"""Returns a detail with its figures; raises an AssertionError that says what is wrong, or :class:`Skipped`."""
