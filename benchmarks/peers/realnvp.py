"""RealNVP in the vocabulary of other libraries: masked checkerboards, channel halves, squeezes, factoring out.

The networks see what flowzoo's see: the whole image with one colour of the checkerboard zeroed, and which.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.peers.common import Builders, ConvNet, MaskedConvNet, Peer, checkerboard
from benchmarks.workloads import Workload

NOTES = {
    "normflows": "MaskedAffineFlow for the checkerboards: it asks two networks for log-scale and shift, and here one "
    "network answers both, evaluated once, as flowzoo's is; AffineCouplingBlock for the channels; ActNorm, Squeeze, "
    "Logit, MultiscaleFlow.",
    "nflows": "AffineCouplingTransform: it parts channels only, so for checkerboards images are flattened around it "
    "and its network, ours, sets the pixels back in place; ActNorm, SqueezeTransform, Logit, "
    "MultiscaleCompositeTransform.",
    "FrEIA": "cannot express it: its couplings part channels in two contiguous runs. What it names a stand-in for "
    "checkerboards, a downsampling before the coupling, gives networks a quarter of the pixels, and the last scale of "
    "7x7 cannot be downsampled.",
    "zuko": "cannot express it: no squeeze, no convolutional coupling, no multi-scale split; its RealNVP is of "
    "vectors by fully connected networks.",
    "all": "none has variational dequantization, which the preset has, so peers take part in the same model with "
    "uniform noise; none of the two reorders channels before it factors out.",
}


@dataclass(frozen=True)
class Step:
    """One step of a scale, data to latent.

    Attributes:
        kind: A coupling of colours or of halves of the channels, or a squeeze.
        shape: (C, H, W) of what enters.
        features: Width of the coupling's network.
        swap: Whether odd pixels or the second half condition.
    """

    kind: Literal["checkerboard", "channel", "squeeze"]
    shape: tuple[int, int, int]
    features: int = 0
    swap: bool = False


def expressible(config: Any) -> bool:
    """Whether a config has no parts but those that the libraries have."""
    networks = config.network == "conv" and not config.network_batch_norm
    couplings = config.checkerboard == "masked" and config.normalization == "actnorm"
    return networks and couplings and config.dequantization == "uniform" and not config.initial_squeezes


def scales(workload: Workload) -> list[list[Step]]:
    """The steps of every scale; half of the channels leave after all but the last."""
    config = workload.resolved()
    return [list(_steps(config, scale)) for scale in config.stack()]


def _steps(config: Any, scale: Any) -> Iterator[Step]:
    channels, height, width = scale.shape
    number = config.final_couplings if scale.last else config.checkerboard_couplings
    for i in range(number):
        yield Step("checkerboard", scale.shape, scale.features, i % 2 == 1)
    if not scale.last:
        yield Step("squeeze", scale.shape)
        for i in range(config.channel_couplings):
            shape = (4 * channels, height // 2, width // 2)
            yield Step("channel", shape, scale.channel_features, i % 2 == 1)


class _LogScale(nn.Module):
    """Evaluates the network that answers for log-scales and shifts, and keeps the shifts for :class:`_Shift`."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        shift, raw = self.net(x).chunk(2, dim=1)
        self.kept.append(shift)
        out: Tensor = raw.tanh()
        return out


class _Shift(nn.Module):
    """The shifts that :class:`_LogScale` has just computed."""

    def __init__(self, source: _LogScale) -> None:
        super().__init__()
        self.source = source

    def forward(self, _: Tensor) -> Tensor:
        return self.source.kept.pop()


def normflows_realnvp(workload: Workload) -> Peer:
    """RealNVP of normflows."""
    nf = import_module("normflows")
    flows: list[Any] = []
    bases: list[Any] = []
    stack = scales(workload)
    for steps in reversed(stack):
        flows.append([flow for step in reversed(steps) for flow in reversed(_normflows_step(nf, step))])
        shape = steps[-1].shape
        kept = shape[0] if not bases else shape[0] // 2
        bases.append(nf.distributions.DiagGaussian((kept, *shape[1:]), trainable=False))
    merges = [nf.flows.Merge() for _ in stack[1:]]
    logit = nf.transforms.Logit(workload.resolved().logit_alpha)
    model = nf.MultiscaleFlow(bases, flows, merges, transform=logit, class_cond=False)
    return Peer(model, lambda x: model.log_prob(x, None), lambda n: model.sample(n)[0])


def _normflows_step(nf: Any, step: Step) -> list[Any]:
    channels, height, width = step.shape
    if step.kind == "squeeze":
        return [nf.flows.Squeeze()]
    norm = nf.flows.ActNorm((channels, 1, 1))
    if step.kind == "channel":
        net = ConvNet(channels // 2, channels, step.features)
        split = "channel_inv" if step.swap else "channel"
        return [nf.flows.AffineCouplingBlock(net, scale_map="sigmoid", split_mode=split), norm]
    mask = checkerboard(height, width, odd=step.swap)
    log_scale = _LogScale(MaskedConvNet(step.shape, step.features, mask))
    whole = mask.expand(channels, -1, -1).clone()
    return [nf.flows.MaskedAffineFlow(whole, t=_Shift(log_scale), s=log_scale), norm]


class _Unflattened(nn.Module):
    """The network of a coupling on flattened images: sets the pixels back in place, and picks the others' answers."""

    given: Tensor
    asked: Tensor

    def __init__(self, shape: tuple[int, int, int], hidden: int, mask: Tensor) -> None:
        super().__init__()
        self.shape = shape
        whole = mask.expand(shape).flatten().bool()
        self.register_buffer("given", whole.nonzero().squeeze(1))
        self.register_buffer("asked", (~whole).nonzero().squeeze(1))
        self.net = MaskedConvNet(shape, hidden, mask)

    def forward(self, x: Tensor, context: object = None) -> Tensor:
        """``(B, D / 2)`` to ``(B, D)``: shifts, then log-scales."""
        image = x.new_zeros(x.shape[0], math.prod(self.shape))
        image = image.index_copy(1, self.given, x).unflatten(1, self.shape)
        answers = self.net(image).unflatten(1, (2, -1)).flatten(2)
        out: Tensor = answers.index_select(2, self.asked).flatten(1)
        return out


class _Flattened(nn.Module):
    """A transform of vectors on images."""

    def __init__(self, transform: Any) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor, context: object = None) -> tuple[Tensor, Tensor]:
        out, log_det = self.transform(x.flatten(1), context)
        return out.view(x.shape), log_det

    def inverse(self, z: Tensor, context: object = None) -> tuple[Tensor, Tensor]:
        out, log_det = self.transform.inverse(z.flatten(1), context)
        return out.view(z.shape), log_det


def nflows_realnvp(workload: Workload) -> Peer:
    """RealNVP of nflows."""
    transforms = import_module("nflows.transforms")
    distributions, flows = import_module("nflows.distributions"), import_module("nflows.flows.base")
    stack = scales(workload)
    multiscale = transforms.MultiscaleCompositeTransform(num_transforms=len(stack))
    for steps in stack:
        parts = [part for step in steps for part in _nflows_step(transforms, step)]
        multiscale.add_transform(transforms.CompositeTransform(parts), steps[-1].shape)
    alpha = workload.resolved().logit_alpha
    logit = transforms.Logit()
    # A plain tensor, which the model leaves behind when it moves.
    logit._transform.temperature = logit._transform.temperature.to(workload.device)
    margin = transforms.PointwiseAffineTransform(shift=alpha, scale=1 - 2 * alpha)
    transform = transforms.CompositeTransform([margin, logit, multiscale])
    dims = math.prod(workload.resolved().image_shape)
    model = flows.Flow(transform, distributions.StandardNormal((dims,)))
    return Peer(model, model.log_prob, model.sample)


def _nflows_step(transforms: Any, step: Step) -> list[Any]:
    channels, height, width = step.shape
    if step.kind == "squeeze":
        return [transforms.SqueezeTransform()]
    norm = transforms.ActNorm(channels)
    if step.kind == "channel":
        changed = (torch.arange(channels) >= channels // 2) != step.swap
        coupling = transforms.AffineCouplingTransform(changed, lambda i, o: ConvNet(i, o, step.features))
        return [coupling, norm]
    mask = checkerboard(height, width, odd=step.swap)
    changed = 1 - mask.expand(step.shape).flatten()
    coupling = transforms.AffineCouplingTransform(
        changed, lambda _i, _o: _Unflattened(step.shape, step.features, mask)
    )
    return [_Flattened(coupling), norm]


BUILDERS: Builders = {"normflows": normflows_realnvp, "nflows": nflows_realnvp}
