"""A checkpoint's tensors as a layout takes them: each by name, with its shape, once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from flowzoo.errors import InputError, did_you_mean

SINGULAR = 2.0**-23
"""Ratio of the smallest to the largest singular value at which float32 cannot tell a matrix from a singular one."""


class Tensors:
    """The tensors of a checkpoint, and which of them have been used.

    Every error names the tensor and the layout.
    """

    def __init__(self, layout: str, tensors: Mapping[str, Tensor]) -> None:
        """Begins with nothing used.

        Args:
            layout: The layout's name, for messages.
            tensors: All tensors by name.
        """
        self.layout = layout
        self._tensors = dict(tensors)
        self._used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor in float64, used from now on.

        Args:
            name: Its name.
            *shape: Its shape; -1 stands for any size.

        Raises:
            InputError: It is missing, of another shape, or holds NaN or infinity.
        """
        tensor = self._find(name)
        found = tuple(tensor.shape)
        if len(found) != len(shape) or any(s not in (-1, f) for s, f in zip(shape, found, strict=True)):
            expected = tuple("any" if size == -1 else size for size in shape)
            raise InputError(
                f"{name!r} has shape {found}; the layout {self.layout} expects {expected} here. "
                "The checkpoint is of another model, or of another version of that code."
            )
        if tensor.is_complex() or tensor.is_quantized:
            raise InputError(f"{name!r} is {tensor.dtype}; the layout {self.layout} expects real numbers.")
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_nested:
            kind = "has no values (meta)" if tensor.is_meta else "is sparse or nested"
            raise InputError(
                f"{name!r} {kind}; the layout {self.layout} expects a dense tensor. Save it as tensor.to_dense()."
            )
        values = tensor.detach().double()
        if not bool(torch.isfinite(values.float()).all()):
            raise InputError(
                f"{name!r} (layout {self.layout}) holds NaN or infinity; use a checkpoint from before "
                "the training diverged."
            )
        self._used.add(name)
        return values

    def take_invertible(self, name: str, *shape: int) -> Tensor:
        """Takes the matrix ``(size, size)`` of a 1x1 convolution, and refuses one that has no inverse.

        Args:
            name: Its name.
            *shape: Its shape: twice the size, then ones.
        """
        return self.check_invertible(self.take(name, *shape).reshape(shape[:2]), name)

    def check_invertible(self, matrix: Tensor, name: str) -> Tensor:
        """The matrix, unless it has no inverse in float32, which the flow computes in."""
        finite = bool(torch.isfinite(matrix).all())  # scales may be given by their logarithms
        values = torch.linalg.svdvals(matrix).tolist() if finite else [math.inf, 0.0]
        if not values[-1] > SINGULAR * values[0]:
            raise InputError(
                f"{name!r} (layout {self.layout}) makes a matrix without an inverse, so the model has no density: its "
                f"singular values reach from {values[0]:.3g} to {values[-1]:.3g}. Use an earlier checkpoint."
            )
        return matrix

    def take_scale(self, name: str, *shape: int) -> Tensor:
        """Takes scales that a flow divides by: like :meth:`take`, and none of them 0."""
        tensor = self.take(name, *shape)
        if not bool((tensor != 0).all()):
            raise InputError(
                f"{name!r} (layout {self.layout}) has a scale of 0, which has no inverse; the checkpoint is "
                "damaged, or was saved before its data-dependent initialization."
            )
        return tensor

    def take_permutation(self, name: str, size: int) -> Tensor:
        """Takes a permutation matrix ``(size, size)`` and refuses any other, on which log-determinants rely."""
        matrix = self.take(name, size, size)
        one = torch.ones(size, dtype=matrix.dtype)
        binary = bool(((matrix == 0) | (matrix == 1)).all())
        if not (binary and torch.equal(matrix.sum(0), one) and torch.equal(matrix.sum(1), one)):
            raise InputError(f"{name!r} is no permutation matrix, as the layout {self.layout} has here.")
        return matrix

    def take_signs(self, name: str, size: int) -> Tensor:
        """Takes signs ``(size,)``, each 1 or -1."""
        signs = self.take(name, size)
        if not bool((signs.abs() == 1).all()):
            raise InputError(f"{name!r} holds more than 1 and -1, which the layout {self.layout} has here.")
        return signs

    def take_flag(self, name: str) -> None:
        """Takes the flag of a data-dependent initialization, of one element, and refuses a false one."""
        if not bool((self.take(name, *self._find(name).shape) != 0).all()):
            raise InputError(
                f"{name!r} (layout {self.layout}) says that the model was saved before its data-dependent "
                "initialization; save it after the first training step."
            )

    def skip(self, names: Iterable[str]) -> None:
        """Marks tensors as used that do not matter for the density."""
        self._used.update(name for name in names if name in self._tensors)

    def size(self, name: str, dim: int) -> int:
        """The size of one dimension of a tensor, which is not used by that."""
        tensor = self._find(name)
        if dim >= tensor.ndim:
            raise InputError(
                f"{name!r} has shape {tuple(tensor.shape)}; the layout {self.layout} expects at least "
                f"{dim + 1} dimensions here."
            )
        return tensor.shape[dim]

    def names(self, pattern: str) -> list[str]:
        """All names that a regular expression matches from their beginning."""
        return [name for name in self._tensors if re.match(pattern, name)]

    def indices(self, prefix: str, suffix: str = ".") -> list[int]:
        """The numbers N of all names that begin with prefix, N, suffix, in order."""
        pattern = re.compile(re.escape(prefix) + r"(\d{1,6})" + re.escape(suffix))
        return sorted({int(match[1]) for name in self._tensors if (match := pattern.match(name))})

    def count(self, prefix: str, suffix: str = ".") -> int:
        """The number of members of a list whose names begin with prefix, 0, 1, 2, ..., suffix; at least 1.

        Raises:
            InputError: It has none, or one is left out.
        """
        found = self.indices(prefix, suffix)
        for index in range(max(len(found), 1)):
            if index >= len(found) or found[index] != index:
                raise InputError(
                    f"the checkpoint has no tensor '{prefix}{index}{suffix}...', which the layout "
                    f"{self.layout} needs; is the file complete?"
                )
        return len(found)

    def finish(self) -> None:
        """Checks that every tensor has been used.

        Raises:
            InputError: Some have not, so the model does something that this layout does not know.
        """
        left = sorted(set(self._tensors) - self._used)
        if left:
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            raise InputError(
                f"the layout {self.layout} has no place for {', '.join(map(repr, left[:5]))}{more}; the "
                "checkpoint is of a changed model, and leaving tensors out would change its density."
            )

    def _find(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise InputError(
                f"the checkpoint has no tensor {name!r}, which the layout {self.layout} needs."
                f"{did_you_mean(name, self._tensors)} Is the file complete?"
            )
        return self._tensors[name]


def mapped(tensors: Mapping[str, Tensor], rename: Callable[[str], str | None]) -> dict[str, Tensor]:
    """Tensors under new names; those that ``rename`` answers None for are left out."""
    renamed = {name: rename(name) for name in tensors}
    return {new: tensors[name] for name, new in renamed.items() if new is not None}
