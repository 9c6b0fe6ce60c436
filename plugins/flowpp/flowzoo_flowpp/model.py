"""Builds a Flow++ model from its config."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowzoo.bijectors import (
    ActNorm,
    AlternateColumns,
    Bijector,
    Chain,
    ChannelHalves,
    Checkerboard,
    ConditionalPrior,
    FactorOut,
    Flatten,
    InvertibleConv1x1,
    Logit,
    MixtureLogisticCoupling,
    Partition,
    Squeeze,
)
from flowzoo.densities import Dequantization, UniformDequantization, squeezed_dequantization
from flowzoo.flow import Flow
from flowzoo_flowpp.config import FlowppConfig, Group
from flowzoo_flowpp.networks import ContextNetwork, GatedNetwork, PriorNetwork, conv_network

__all__ = ["OnHalves", "build"]

PARTITIONS: dict[str, type[Partition]] = {
    "columns": AlternateColumns,
    "checkerboard": Checkerboard,
    "channel": ChannelHalves,
}

POINTWISE_NOISE = 0.001
"""The 1x1 convolutions of the halves begin as the identity plus noise of this standard deviation."""


def build(config: FlowppConfig) -> Flow:
    """Builds an untrained model.

    Args:
        config: What to build.

    Returns:
        The flow: dequantization, logit, the groups, flattening, standard normal.
    """
    return Flow(
        image_shape=config.image_shape,
        n_bits=config.n_bits,
        bijector=Chain(Logit(config.alpha), *_stack(config, config.stack, _main_networks(config))),
        dequantization=_dequantization(config),
    )


@dataclass(frozen=True)
class Networks:
    """How the coupling networks of a stack look; the dequantization flow's differ from the main flow's."""

    config: FlowppConfig
    filters: int
    blocks: int
    heads: int
    components: int
    context_channels: int = 0

    def coupling(self, half: tuple[int, int, int]) -> nn.Module:
        """A network from one half to the parameters of a mixture coupling of the other."""
        config = self.config
        out_channels = half[0] * (2 + 3 * self.components)
        if config.network == "conv":
            return conv_network(
                half[0],
                out_channels,
                filters=self.filters,
                context_channels=self.context_channels,
                dropout=config.dropout,
            )
        return GatedNetwork(
            half,
            out_channels,
            filters=self.filters,
            blocks=self.blocks,
            heads=self.heads,
            context_channels=self.context_channels,
            output_activation=config.output_activation,
            dropout=config.dropout,
            weight_norm=config.weight_norm,
        )


class OnHalves(Bijector):
    """Two bijectors side by side, one on each half of a partition; log|det| is the sum of theirs."""

    def __init__(self, partition: Partition, first: Bijector, second: Bijector) -> None:
        """Makes the map: ``first`` acts on the conditioning half, ``second`` on the other."""
        super().__init__()
        self.partition = partition
        self.first = first
        self.second = second

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        a, b = self.partition.split(x)
        a, log_det_a = self.first(a, context)
        b, log_det_b = self.second(b, context)
        return self.partition.merge(a, b), log_det_a + log_det_b

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        a, b = self.partition.split(z)
        a, log_det_a = self.first.inverse(a, context)
        b, log_det_b = self.second.inverse(b, context)
        return self.partition.merge(a, b), log_det_a + log_det_b


class OnBoth(Bijector):
    """One bijector on the channels of both halves of a partition together: ``(B, 2 C', H', W')``."""

    def __init__(self, partition: Partition, bijector: Bijector) -> None:
        """Makes the map: ``bijector`` acts on the conditioning half's channels, then the other's."""
        super().__init__()
        self.partition = partition
        self.bijector = bijector

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_det = self.bijector(torch.cat(self.partition.split(x), dim=1), context)
        a, b = z.chunk(2, dim=1)
        return self.partition.merge(a, b), log_det

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_det = self.bijector.inverse(torch.cat(self.partition.split(z), dim=1), context)
        a, b = x.chunk(2, dim=1)
        return self.partition.merge(a, b), log_det


def _main_networks(config: FlowppConfig) -> Networks:
    return Networks(
        config,
        filters=config.filters,
        blocks=config.blocks,
        heads=config.heads,
        components=config.components,
    )


def _stack(config: FlowppConfig, groups: tuple[Group, ...], networks: Networks) -> list[Bijector]:
    """The groups as bijectors, ending in a flat latent; what follows a factor is nested inside it."""
    layers: list[Bijector] = []
    for index, group in enumerate(groups):
        if group.kind == "factor":
            rest = groups[index + 1 :]
            inner = _stack(config, rest, networks) if rest else [Flatten(group.half)]
            return [*layers, FactorOut(Chain(*inner), _prior(config, group))]
        layers += _group(config, group, networks)
    return [*layers, Flatten(_shape_after(groups[-1]))]


def _group(config: FlowppConfig, group: Group, networks: Networks) -> list[Bijector]:
    if group.kind == "squeeze":
        return [Squeeze(config.squeeze_order)]
    layers: list[Bijector] = []
    partition = PARTITIONS[group.kind](swap=config.first_conditioner == "second")
    for _ in range(group.couplings):
        layers += _normalize_and_mix(config, group, partition)
        layers.append(
            MixtureLogisticCoupling(
                partition,
                networks.coupling(group.half),
                group.half[0],
                networks.components,
                order=config.affine_order,
                learned_bound=config.learned_bound,
            )
        )
        partition = partition.complement()
    return layers


def _normalize_and_mix(config: FlowppConfig, group: Group, partition: Partition) -> list[Bijector]:
    if config.permutation == "joined":
        return _normalize_and_mix_both(config, group, partition)
    channels = group.shape[0]
    actnorm = ActNorm(group.shape if config.normalization == "pixel" else (channels,))
    if config.permutation == "none":
        return [actnorm]
    if config.permutation == "halves":
        half = group.half[0]
        return [actnorm, OnHalves(partition, _near_identity(half), _near_identity(half))]
    if config.normalization == "channel":
        # A normalization by channel folds into the convolution: one pass over the activations, not two.
        return [InvertibleConv1x1(channels, actnorm)]
    return [actnorm, InvertibleConv1x1(channels)]


def _normalize_and_mix_both(config: FlowppConfig, group: Group, partition: Partition) -> list[Bijector]:
    """Normalization and one 1x1 convolution over the channels of both halves."""
    both = 2 * group.half[0]
    if config.normalization == "channel":
        return [OnBoth(partition, _near_identity(both, ActNorm((both,))))]
    return [ActNorm(group.shape), OnBoth(partition, _near_identity(both))]


def _near_identity(channels: int, actnorm: ActNorm | None = None) -> InvertibleConv1x1:
    conv = InvertibleConv1x1(channels, actnorm)
    matrix = torch.randn(channels, channels).mul_(POINTWISE_NOISE)
    matrix.diagonal().add_(1.0)
    conv.reset_matrix(matrix)
    return conv


def _prior(config: FlowppConfig, group: Group) -> ConditionalPrior | None:
    if config.prior == "standard":
        return None
    half = group.half[0]
    return ConditionalPrior(PriorNetwork(half, filters=config.filters))


def _dequantization(config: FlowppConfig) -> Dequantization:
    if config.dequantization == "uniform":
        return UniformDequantization()
    networks = Networks(
        config,
        filters=config.dequantization_filters,
        blocks=config.dequantization_blocks,
        heads=config.dequantization_heads,
        components=config.dequantization_components or config.components,
        context_channels=config.context_channels,
    )
    groups = config.dequantization_stack
    squeezes = sum(group.kind == "squeeze" for group in groups)
    layers = [layer for group in groups[squeezes:] for layer in _group(config, group, networks)]
    first = groups[squeezes]
    context = ContextNetwork(
        config.image_shape,
        squeezes=squeezes,
        partition=PARTITIONS[first.kind](),
        half=first.half[1:],
        channels=config.context_channels,
        blocks=config.context_blocks,
        heads=config.context_heads,
        norm=config.context_norm,
        residual=config.context_residual,
        dropout=config.dropout,
        weight_norm=config.weight_norm,
    )
    return squeezed_dequantization(
        layers, context, config.n_bits, squeeze_order=config.squeeze_order, squeezes=squeezes
    )


def _shape_after(group: Group) -> tuple[int, int, int]:
    channels, height, width = group.shape
    return (4 * channels, height // 2, width // 2) if group.kind == "squeeze" else group.shape
