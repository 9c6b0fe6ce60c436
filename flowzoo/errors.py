"""The one tree of errors. Each class carries the exit code that the command line ends with.

| code | meaning |
|---|---|
| 0 | done, or verified |
| 1 | measured, and not verified |
| 2 | wrong usage of the command line |
| 3 | unknown model, architecture or data set |
| 4 | a plugin cannot be used |
| 5 | a file is not what its digest or header promises |
| 6 | weights are not to be had |
| 7 | a data set is not to be had |
| 8 | invalid input, configuration, recipe or manifest; or a limit of the machine: memory, threads, disk |
| 9 | training stopped |
| 70 | a bug: an error that nobody foresaw |
| 130 | interrupted |
| 141 | the reader of the output has gone away |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal


class FlowzooError(Exception):
    """Base of every error that flowzoo raises on purpose.

    The message says what happened, what was expected and what to do.
    """

    exit_code = 8


class InputError(FlowzooError, ValueError):
    """An argument has the wrong shape, type, range or device."""


class NotConverged(InputError):
    """A direction of a bijector that solves an equation did not reach its tolerance for some items.

    Attributes:
        rows: Their places in the batch.
        residual: The largest residual.
    """

    def __init__(self, message: str, *, rows: Sequence[int] = (), residual: float = float("nan")) -> None:
        """Makes the error.

        Args:
            message: One line.
            rows: Places in the batch.
            residual: The largest residual.
        """
        super().__init__(message)
        self.rows = tuple(rows)
        self.residual = residual


class ConfigError(FlowzooError, ValueError):
    """A configuration or recipe has an unknown key, a wrong type or an impossible value."""


class ManifestError(FlowzooError, ValueError):
    """A weights manifest violates its schema."""


class UnknownModel(FlowzooError, KeyError):
    """No manifest lists a model of this name."""

    exit_code = 3

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class UnknownArchitecture(UnknownModel):
    """No installed plugin provides an architecture or preset of this name."""


class UnknownDataset(UnknownModel):
    """No data set of this name is known."""


class PluginError(FlowzooError):
    """A plugin is installed and cannot be used; the message names its distribution and the mend."""

    exit_code = 4


class IntegrityError(FlowzooError):
    """A file's size, digest, header or values are not what they must be."""

    exit_code = 5


class WeightsUnavailable(FlowzooError):
    """The weights exist nowhere that can be reached from here."""

    exit_code = 6


class DataUnavailable(FlowzooError):
    """A data set is not where it is looked for; the message says where that is and how to get it."""

    exit_code = 7


class CheckpointError(FlowzooError):
    """A training checkpoint cannot be written or read."""

    exit_code = 9


class TrainingDiverged(FlowzooError):
    """The training loss is not a number any more; the message names step and layer."""

    exit_code = 9


class OutOfMemory(FlowzooError):
    """A batch does not fit into the device's memory; the message names the batch size to try."""

    exit_code = 8


class CallbackError(FlowzooError):
    """A callback of a training failed; a checkpoint has been written, from which the run can go on."""

    exit_code = 9


_NO_MEMORY = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What a RuntimeError says that is one of memory: of torch on a CPU, of the driver, and of NVIDIA's libraries."""


def exhausted(error: BaseException) -> Literal["memory", "threads"] | None:
    """What the machine has no more of, if that is what an error of Python, torch or the system says."""
    text = str(error)
    # torch has a class for memory of a GPU only.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "memory"
    if isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY):
        return "memory"
    return "threads" if isinstance(error, RuntimeError) and "can't start new thread" in text else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ``" Did you mean 'a' or 'b'?"`` for the nearest known names, or an empty string."""
    import difflib  # a millisecond that only mistakes need

    close = difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(match) for match in close)}?" if close else ""
