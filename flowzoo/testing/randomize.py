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
    # Modules that keep what they make of their parameters make it anew when their mode is set.
    return flow.train(flow.training)


def random_data(flow: Flow, n: int, seed: int) -> Tensor:
    """Random data for a flow: :func:`random_images`, or standard normal vectors ``(n, D)`` of its dtype."""
    if flow.data_kind == "images":
        return random_images(flow, n, seed)
    generator = torch.Generator().manual_seed(seed)
    like = flow.draw_noise(0)
    return torch.randn(n, flow.dims, generator=generator, dtype=torch.float64).to(like)


def random_labels(flow: Flow, n: int) -> Tensor | None:
    """Labels ``(n,)`` that go through all classes of a conditional flow; None for another."""
    if flow.labels is None:
        return None
    return torch.arange(n, device=flow.draw_noise(0).device) % flow.labels.classes


def random_images(flow: Flow, n: int, seed: int) -> Tensor:
    """Uniformly random images ``uint8 (n, C, H, W)`` for a flow, low bits zero if it has fewer than 8."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 2**flow.n_bits, (n, *flow.image_shape), generator=generator)
    # Drawn on the CPU, so that every device sees the same.
    return (levels << (8 - flow.n_bits)).to(flow.draw_noise(0).device, torch.uint8)
