"""Models with random non-zero parameters and random images to try them on.

Fresh models are near the identity, which hides wrong signs; a trained-looking one does not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowzoo.flow import Flow


@torch.no_grad()
def randomize(flow: Flow, seed: int, scale: float = 0.1) -> Flow:
    """Adds N(0, scale) to every parameter, randomises running statistics, marks everything initialised.

    Args:
        flow: The flow, changed in place.
        seed: Of the noise.
        scale: Standard deviation of what is added.

    Returns:
        The same flow.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)

    for parameter in flow.parameters():
        parameter.add_(scale * draw(parameter))
    for name, buffer in flow.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(scale * draw(buffer))
        elif name.endswith("running_var"):
            buffer.copy_(torch.exp(scale * draw(buffer)))
        elif name.endswith("initialized"):
            buffer.fill_(True)
    return flow


def random_images(flow: Flow, n: int, seed: int) -> Tensor:
    """Uniformly random images ``uint8 (n, C, H, W)`` for a flow, low bits zero if it has fewer than 8."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 2**flow.n_bits, (n, *flow.image_shape), generator=generator)
    return (levels << (8 - flow.n_bits)).to(torch.uint8)
