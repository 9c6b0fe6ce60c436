"""Parts of all Glow layouts: their dimensions, and putting steps, networks and priors into our model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flowzoo.bijectors import ActNorm, Bijector, FactorOut, InvertibleConv1x1, LearnedTop, Permutation
from flowzoo.bijectors.coupling import Coupling
from flowzoo.convert.layout import Options
from flowzoo.convert.target import Target
from flowzoo.convert.tensors import Tensors
from flowzoo.errors import InputError
from flowzoo.nets.conv import BiasConv2d, ConvStack, FoldedConv2d, ZeroConv2d

NETWORK_FACTOR = 3.0
"""Every Glow multiplies the log-scales of its zero-initialized convolutions by this."""


@dataclass(frozen=True)
class Step:
    """One step of our model: normalization, mixing of channels, coupling with its network."""

    level: int
    index: int
    channels: int
    actnorm: ActNorm
    mixing: InvertibleConv1x1 | Permutation
    coupling: Coupling
    net: ConvStack


class GlowTarget(Target):
    """Our Glow, part by part."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Builds it from a config."""
        super().__init__("glow", config)

    def steps(self) -> Iterator[Step]:
        """All steps, level by level."""
        depth, channels = self.config["depth"], self.config["image_shape"][0]
        mixing = [m for m in self.all(Bijector) if isinstance(m, InvertibleConv1x1 | Permutation)]
        parts = zip(self.all(ActNorm), mixing, self.all(Coupling), self.all(ConvStack), strict=True)
        for number, (actnorm, mix, coupling, net) in enumerate(parts):
            level, index = divmod(number, depth)
            yield Step(level, index, 4 * channels * 2**level, actnorm, mix, coupling, net)

    def priors(self) -> list[ZeroConv2d]:
        """The networks of the split priors, level by level."""
        # A FactorOut holds the later levels before its own prior, so the priors themselves come deepest first.
        return [
            net for split in self.all(FactorOut) if split.prior for net in self.all(ZeroConv2d, split.prior)
        ]

    def put_actnorm(self, actnorm: ActNorm, bias: Tensor, log_scale: Tensor) -> None:
        """Sets (x + bias) exp(log_scale)."""
        self.put(actnorm, bias=bias, log_scale=log_scale / actnorm.log_scale_factor)

    def put_top(self, mean: Tensor, log_scale: Tensor) -> None:
        """Sets the last level's learned prior."""
        (top,) = self.all(LearnedTop)
        self.put(top, mean=mean, log_scale=log_scale)

    def put_conv(
        self,
        layer: Tensor | nn.Module,
        weight: Tensor,
        bias: Tensor,
        log_scale: Tensor | None = None,
        edge: Tensor | None = None,
    ) -> None:
        """Sets (conv(x) + conv_edge(padding) + bias) exp(log_scale).

        Args:
            layer: A layer of a network.
            weight: ``(O, I, k, k)``.
            bias: ``(O,)``.
            log_scale: ``(O,)``; None for 0.
            edge: ``(O, 1, k, k)``, what the convolution makes of the padding's indicator; None for 0.
        """
        if not isinstance(layer, FoldedConv2d):
            raise TypeError(f"the layer is a {type(layer).__name__}; expected a FoldedConv2d")
        self.put(layer.conv, weight=weight)
        if layer.conv.edge_weight is not None:
            self.put(layer.conv, edge_weight=torch.zeros_like(weight[:, :1]) if edge is None else edge)
        self.put(layer, bias=bias)
        if not isinstance(layer, BiasConv2d):
            factor = layer.log_scale_factor or 1.0
            self.put(layer, log_scale=torch.zeros_like(bias) if log_scale is None else log_scale / factor)


def even_number(source: Tensors, name: str, size: int, divisor: int) -> int:
    """``size`` divided by ``divisor``, where a model can only have multiples of it."""
    if size == 0 or size % divisor:
        raise InputError(
            f"{name!r} is for {size} channels; the layout {source.layout} expects a multiple of {divisor} here."
        )
    return size // divisor


def is_affine(source: Tensors, name: str, outputs: int, channels: int) -> bool:
    """True if a network with so many outputs belongs to an affine or an additive coupling of ``channels``."""
    if outputs not in (channels, channels // 2):
        raise InputError(
            f"{name!r} makes {outputs} outputs; the layout {source.layout} expects {channels} here (an affine "
            f"coupling) or {channels // 2} (an additive one)."
        )
    return outputs == channels


def chosen_label(source: Tensors, options: Options, name: str, classes: int) -> int:
    """The class that the user wants the density of.

    Raises:
        InputError: None was given for a class-conditional model, or one that it does not have.
    """
    if options.label is None or not 0 <= options.label < classes:
        given = "" if options.label is None else f" --label {options.label} is none of them;"
        raise InputError(
            f"{name!r} (layout {source.layout}) makes the model conditional on one of {classes} classes;{given} "
            f"give --label 0 to {classes - 1} for the density of the images of that class."
        )
    return options.label


def refuse_label(source: Tensors, options: Options) -> None:
    """Refuses a label for a model that has no classes."""
    if options.label is not None:
        raise InputError(f"--label was given, and this checkpoint of {source.layout} has no classes.")


def lu_matrix(p: Tensor, lower: Tensor, upper: Tensor, sign: Tensor, log_diagonal: Tensor) -> Tensor:
    """P L (U + diag(sign exp(log_diagonal))) of the strict triangles of ``lower`` and ``upper``."""
    eye = torch.eye(p.shape[0], dtype=p.dtype)
    return (
        p
        @ (torch.tril(lower, -1) + eye)
        @ (torch.triu(upper, 1) + torch.diag(sign * torch.exp(log_diagonal)))
    )
