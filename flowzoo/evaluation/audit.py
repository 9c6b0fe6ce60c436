"""Whether a trained flow still inverts: image by image, while its likelihood is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from flowzoo.distributed import World, gather

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.flow import Flow


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """The findings of the audit.

    Attributes:
        exact: Images with ``decode(encode(x)) == x`` in every pixel (low bits dropped if n_bits < 8).
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


class ReconstructionAudit:
    """Collects the audit batch by batch.

    Args:
        flow: The flow, in eval mode.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.exact, self.count, self.worst = 0, 0, 0.0

    @torch.no_grad()
    def add(self, indices: Tensor, x: Tensor) -> None:
        """Audits a batch of uint8 images ``(B, C, H, W)`` on the flow's device.

        One inverse pass serves both questions: rounding it gives what ``decode`` returns, mapping it
        forward again the latent to compare.
        """
        flow = self.flow
        z = flow.encode(x)
        y, _ = flow.bijector.inverse(z)
        top = 2**flow.n_bits
        levels = torch.floor(y * top).clamp(0, top - 1)
        wanted = (x >> (8 - flow.n_bits)).to(levels)
        self.exact += int((levels == wanted).flatten(1).all(dim=1).sum())
        self.count += len(x)
        again, _ = flow.bijector(y)
        error = (again - z).abs().max().item()
        self.worst = max(self.worst, error if math.isfinite(error) else math.inf)

    def result(self, where: World) -> Reconstruction:
        """The audit of all processes together."""
        mine = torch.tensor([[self.exact, self.count, self.worst]], dtype=torch.float64)
        joint = torch.cat(gather(mine, where))
        return Reconstruction(
            exact=int(joint[:, 0].sum()), count=int(joint[:, 1].sum()), worst_latent=float(joint[:, 2].max())
        )
