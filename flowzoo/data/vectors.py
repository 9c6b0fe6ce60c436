"""A split of a data set of vectors: real numbers, in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from flowzoo.data.images import ImageSet
from flowzoo.errors import InputError

__all__ = ["VectorSet"]


class VectorSet(ImageSet):
    """Vectors of one split: a set whose items are float32 (D,) where an :class:`ImageSet`'s are images.

    Whatever goes through a split batch by batch takes both; :attr:`data_shape` is (D,).

    Attributes:
        columns: Names of the D numbers; empty where they have none.
        true_entropy: Entropy in nats of the density that the vectors were drawn from; None where it is not known. The
            mean negative log density of a model on many such vectors cannot be lower.

    Args:
        vectors: Finite real numbers (N, D).
        columns: Names of the D numbers.
        truth: Name of the density that the vectors were drawn from, of :mod:`flowzoo.data.point_densities`.
        entropy: The entropy of that density, nats.
        train: Returns the train split, whose mean and standard deviation count; None: these vectors' own.
        **facts: As of :class:`ImageSet`: id, split, labels and so on.

    Raises:
        InputError: if the vectors are not numbers (N, D), or one is not finite, or a label is wrong.
    """

    kind = "vectors"

    def __init__(
        self,
        vectors: Any,
        *,
        columns: tuple[str, ...] = (),
        truth: str | None = None,
        entropy: float | None = None,
        train: Callable[[], ImageSet] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(torch.as_tensor(vectors).to(torch.float32), **facts)
        self.columns, self._truth, self._train = tuple(columns), truth, train
        self.true_entropy = entropy

    @staticmethod
    def _check_items(images: Any, id: str) -> None:  # noqa: A002 - as in ImageSet
        if images.ndim != 2 or 0 in images.shape:
            raise InputError(f"Vectors of {id!r} must be of shape (N, D), found {tuple(images.shape)}.")
        wrong = torch.nonzero(~torch.isfinite(images))
        if len(wrong):
            row, column = wrong[0].tolist()
            raise InputError(
                f"Row {row}, column {column} of {id!r} is {images[row, column].item()}; expected finite numbers: "
                "remove the row, or put a number there."
            )

    @property
    def vectors(self) -> Tensor:
        """float32 (N, D), on the CPU."""
        assert isinstance(self.images, Tensor)
        return self.images

    @property
    def dims(self) -> int:
        """D, numbers in a vector."""
        return self.shape[1]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Vectors have none.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{self.id!r} holds vectors of {self.dims} numbers, expected images; see data_shape."
        )

    @property
    def num_bytes(self) -> int:
        """Size of all vectors in bytes."""
        return self.vectors.nbytes

    @property
    def mean(self) -> Tensor:
        """Mean of the train split, float32 (D,): what a model standardises by belongs to the model."""
        return self._statistics[0]

    @property
    def std(self) -> Tensor:
        """Standard deviation of the train split, float32 (D,), each number positive.

        Raises:
            InputError: if a column of the train split is constant.
        """
        std = self._statistics[1]
        constant = torch.nonzero(std == 0)
        if len(constant):
            column = int(constant[0])
            name = f" ({self.columns[column]!r})" if self.columns else ""
            raise InputError(
                f"Column {column}{name} of {self.id!r} is constant in the train split, so that its density is "
                "infinite: leave it out."
            )
        return std

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        source = self if self._train is None else self._train()
        values = source[:].double()
        return values.mean(0).float(), values.std(0, correction=0).float()

    def subset(self, indices: Tensor) -> VectorSet:
        """Returns the set of the vectors at ``indices``, in that order; :attr:`mean` and :attr:`std` do not change."""
        return VectorSet(
            self.vectors[indices],
            columns=self.columns,
            truth=self._truth,
            entropy=self.true_entropy,
            train=self._train or (lambda: self),
            **self._facts(indices),
        )

    def true_log_prob(self, x: Tensor) -> Tensor:
        """Log density that the vectors were drawn from.

        Args:
            x: Real numbers (B, D).

        Returns:
            float64 (B,), nats; differentiable in ``x``.

        Raises:
            InputError: if nobody knows the density, or ``x`` is of another shape.
        """
        from flowzoo.data.point_densities import DENSITIES

        if self._truth is None:
            raise InputError(f"The density of {self.id!r} is not known; that of the sets points:NAME is.")
        return DENSITIES[self._truth].log_prob(x)
