"""Whether a trained flow still inverts: image by image, while its likelihood is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from flowzoo.bijectors.wanted import values_alone
from flowzoo.distributed import World, gather

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.flow import Flow


VECTOR_TOLERANCE = 1e-4
"""How near a vector comes back, relative to its size or to 1."""


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """The findings of the audit.

    Attributes:
        exact: Images with ``decode(encode(x)) == x`` in every pixel (low bits dropped if n_bits < 8); vectors that
            come back within a ten-thousandth of their size, or of 1.
        count: Images looked at.
        worst_latent: Largest |f(f^-1(z)) - z| over all latents of the images; infinite if any is not finite.
    """

    exact: int
    count: int
    worst_latent: float

    @property
    def share(self) -> float:
        """Share of images that come back exactly."""
        return self.exact / self.count if self.count else float("nan")


def same_items(flow: Flow, x: Tensor, found: Tensor) -> Tensor:
    """Which of the items that ``decode`` gave, ``(B, ...)`` like ``x``, are those of ``x``: bool ``(B,)``.

    Images have to be equal in the bits that the model sees, vectors within :data:`VECTOR_TOLERANCE`.
    """
    if flow.data_kind == "images":
        same = found == (x >> (8 - flow.n_bits) << (8 - flow.n_bits))
    else:
        same = (found - x).abs() <= VECTOR_TOLERANCE * x.abs().clamp(min=1)
    return same.flatten(1).all(dim=1)


def given_back(flow: Flow, x: Tensor, v: Tensor) -> Tensor:
    """Which items the inverse gives back.

    Args:
        flow: The flow.
        x: Items ``(B, ...)``, images as uint8.
        v: The reals that the inverse made of their latents.

    Returns:
        bool ``(B,)``.
    """
    if flow.augmentation is not None:
        v = flow.augmentation.remove(v, flow.data_shape)
    return same_items(flow, x, flow.space.from_reals(v))


class ReconstructionAudit:
    """Collects the audit batch by batch.

    Args:
        flow: The flow, in eval mode.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.exact, self.count, self.worst = 0, 0, 0.0

    @torch.no_grad()
    def add(self, indices: Tensor, x: Tensor, y: Tensor | int | None = None) -> None:
        """Audits a batch of data on the flow's device, with the labels of a conditional flow.

        One inverse pass serves both questions: rounding it gives what ``decode`` returns, mapping it
        forward again the latent to compare.
        """
        flow = self.flow
        if y is None and flow.labels is not None and not flow.labels.dropout:
            y = 0  # under any label the map has to be one-to-one
        context = flow.context_of(y, len(x))
        z = flow.encode(x, y)
        with values_alone():
            v, _ = flow.bijector.inverse(z, context)
            again, _ = flow.bijector(v, context)
        self.exact += int(given_back(flow, x, v).sum())
        self.count += len(x)
        error = (again - z).abs().max().item()
        self.worst = max(self.worst, error if math.isfinite(error) else math.inf)

    def result(self, where: World) -> Reconstruction:
        """The audit of all processes together."""
        mine = torch.tensor([[self.exact, self.count, self.worst]], dtype=torch.float64)
        joint = torch.cat(gather(mine, where))
        return Reconstruction(
            exact=int(joint[:, 0].sum()), count=int(joint[:, 1].sum()), worst_latent=float(joint[:, 2].max())
        )
