"""TarFlow's stack (Zhai et al., 2024), its guided samples, and the step that takes noise from them."""

from __future__ import annotations

import torch
from torch import Tensor

from flowzoo.bijectors import Bijector, Chain, FixedAffine, Flatten, Patches, logistic_marginals
from flowzoo.densities import (
    Dequantization,
    GaussianNoise,
    StandardLogistic,
    StandardNormal,
    UniformDequantization,
)
from flowzoo.errors import InputError
from flowzoo.flow import Flow
from flowzoo_tarflow.bijectors import Guidance, TransformerBlock
from flowzoo_tarflow.config import TarFlowConfig
from flowzoo_tarflow.transformer import CausalTransformer


def build(config: TarFlowConfig) -> Flow:
    """Builds an untrained TarFlow."""
    blocks = [_block(config, flip=index % 2 == 1) for index in range(config.blocks)]
    stack: list[Bijector] = [*_head(config), Patches(config.image_shape, config.patch)]
    tokens = (config.tokens, config.token_size)
    return Flow(
        image_shape=config.image_shape,
        n_bits=config.n_bits,
        dequantization=_dequantization(config),
        bijector=Chain(*stack, *blocks, Flatten(tokens)),
        base=StandardNormal() if config.marginals == "none" else StandardLogistic(),
        classes=config.classes or None,
        label_dropout=bool(config.classes),
    )


def _head(config: TarFlowConfig) -> tuple[Bijector, ...]:
    """The map of the pixels, which come in [0, 1]."""
    if config.marginals == "histogram":
        return logistic_marginals(config.image_shape, 2**config.n_bits)
    return (FixedAffine(scale=2.0, shift=-1.0),)


def _dequantization(config: TarFlowConfig) -> Dequantization:
    if config.noise == "uniform":
        return UniformDequantization()
    # The flow's reals span [0, 1], the config's [-1, 1].
    return GaussianNoise(config.noise_std / 2, config.n_bits)


def _block(config: TarFlowConfig, *, flip: bool) -> TransformerBlock:
    net = CausalTransformer(
        config.tokens,
        config.token_size,
        2 * config.token_size,
        channels=config.channels,
        head_channels=config.head_channels,
        layers=config.layers,
        expansion=config.expansion,
        classes=config.classes,
    )
    return TransformerBlock(
        net,
        flip=flip,
        scale=config.scale,
        clip=config.clip,
        sampler=config.sampler,
        jacobi_block=config.jacobi_block,
    )


@torch.no_grad()
def sample_guided(
    flow: Flow,
    n: int,
    y: Tensor | int,
    guidance: Guidance,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws reals of labels under guidance (section 2.6); the density of such samples is not the flow's.

    Args:
        flow: A TarFlow with labels, in eval mode.
        n: How many.
        y: Labels ``(n,)``, or one for all.
        guidance: How.
        temperature: Factor on the latent.
        generator: Where the latent is drawn from.

    Returns:
        ``(n, C, H, W)``, grey levels spanning [0, 1]; see :func:`denoise` and :func:`to_images`.

    Raises:
        InputError: The flow has no labels, or these are none of it.
    """
    context = flow.context_of(y, n)
    if context is None:
        raise InputError("sample_guided needs a model with labels; build one with classes = K.")
    device, dtype = context.device, context.dtype
    x = flow.base.sample(n, flow.dims, generator=generator, device=device, dtype=dtype)
    x = flow.base.at_temperature(x, temperature)
    assert isinstance(flow.bijector, Chain)
    for bijector in reversed(list(flow.bijector)):
        if isinstance(bijector, TransformerBlock):
            x = bijector.guided_inverse(x, context, guidance)
        else:
            x, _ = bijector.inverse(x, context)
    return x


def denoise(flow: Flow, v: Tensor, y: Tensor | int | None = None) -> Tensor:
    """Takes Gaussian noise from noisy images by one step of Tweedie's formula: v + s^2 grad log p(v) (section 2.5).

    Args:
        flow: A TarFlow trained with Gaussian noise.
        v: Reals ``(B, C, H, W)`` that it was trained on or drew.
        y: Their labels.

    Returns:
        The expected image without noise, ``(B, C, H, W)``.

    Raises:
        InputError: The flow adds no Gaussian noise.
    """
    noise = flow.dequantization
    if not isinstance(noise, GaussianNoise):
        raise InputError(
            "denoise needs a model trained with Gaussian noise; build one with noise = gaussian."
        )
    with torch.enable_grad():
        leaf = v.detach().requires_grad_()
        # The sum over the batch: each item's own gradient, not divided by their number.
        (score,) = torch.autograd.grad(flow.density.log_prob(leaf, y).sum(), leaf)
    return v + noise.std**2 * score


def to_images(flow: Flow, v: Tensor) -> Tensor:
    """Grey levels ``uint8 (B, C, H, W)`` of reals."""
    return flow.space.from_reals(v)
