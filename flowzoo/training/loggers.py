"""Loggers by name: callbacks that pass on the rows of ``metrics.jsonl``; TensorBoard, and entry points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowzoo.errors import ConfigError, PluginError
from flowzoo.registry.extensions import find_extension
from flowzoo.registry.isolation import describe
from flowzoo.training.callbacks import Callback

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowzoo.training.callbacks import Training

__all__ = ["GROUP", "make_loggers"]

GROUP = "flowzoo.loggers"
"""The entry points; a value is a class of callbacks, or a function that returns one, called without arguments."""


class TensorBoard(Callback):
    """Writes numbers as TensorBoard scalars, named ``kind/column``, into the run's directory ``tensorboard``.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError("--tensorboard needs an extra: pip install 'flowzoo[tensorboard]'.") from error
        self._make: Any = SummaryWriter
        self._writer: Any = None

    def on_start(self, training: Training) -> None:
        """Opens the file; steps that an interrupted session wrote, and that are now repeated, are hidden."""
        first = training.step + 1
        purge = first if first > 1 else None
        self._writer = self._make(str(training.run / "tensorboard"), purge_step=purge)

    def on_row(self, row: dict[str, Any]) -> None:
        """Writes the numbers of a row."""
        for key, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and key != "step":
                self._writer.add_scalar(f"{row['kind']}/{key}", value, row["step"])

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()


def make_loggers(names: Iterable[str]) -> list[Any]:
    """The callbacks of loggers that are named.

    Args:
        names: ``"tensorboard"``, or entry points of ``flowzoo.loggers``.

    Raises:
        ConfigError: There is none of a name, or TensorBoard is not installed.
        PluginError: Its distribution is broken.
    """
    return [_made(name) for name in dict.fromkeys(names)]


def _made(name: str) -> Any:
    if name == "tensorboard":
        return TensorBoard()
    found = find_extension(GROUP, name, ("tensorboard",), "logger")
    try:
        return found.value()
    except Exception as error:
        raise PluginError(
            f"The logger {name!r} of {found.distribution} {found.version} cannot be made: {describe(error)}"
        ) from error
