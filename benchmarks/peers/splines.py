"""Neural spline flows in the vocabulary of other libraries: rational-quadratic couplings of vectors and of images."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import torch
from torch import nn

from benchmarks.peers.common import MLP, Builders, ConvNet, Peer
from benchmarks.workloads import Workload

NOTES = {
    "normflows": "PiecewiseRationalQuadraticCoupling, reversed, without maps of the other half, with our networks (the "
    "library's are residual); for images ActNorm, Invertible1x1Conv, Squeeze, MultiscaleFlow.",
    "nflows": "PiecewiseRationalQuadraticCouplingTransform with our networks; for images ActNorm, OneByOneConvolution, "
    "SqueezeTransform, MultiscaleCompositeTransform.",
    "FrEIA": "cannot express it: the release that is measured has no splines.",
    "zuko": "GeneralCouplingTransform with MonotonicRQSTransform, of vectors alone: it has no convolutional "
    "coupling, no squeeze and no multi-scale split. Its splines lie in [-5, 5].",
    "torchdiffeq": "cannot express it: it solves differential equations.",
    "UMNN": "cannot express it: it integrates positive networks.",
}


def expressible(config: Any) -> bool:
    """Whether a config has no parts but those that the libraries have."""
    line = config.space == "line" and config.spline == "rational-quadratic" and not config.logit_alpha
    return line and config.network == "conv" and config.factor_out and config.vector_network == "mlp"


def _net(workload: Workload, inputs: int, outputs: int) -> nn.Module:
    config = workload.resolved()
    if config.image_shape is None:
        return MLP(inputs, outputs, (config.features,) * config.hidden_layers)
    return ConvNet(inputs, outputs, config.features)


def _levels(workload: Workload) -> list[tuple[int, int]]:
    """Channels after the squeeze and image size, level by level."""
    config = workload.resolved()
    channels, size, _ = config.image_shape
    return [(channels * 2 ** (i + 2), size // 2 ** (i + 1)) for i in range(config.levels)]


def _mask(size: int, index: int = 0) -> torch.Tensor:
    """One for what a coupling changes: the second half, or the first in odd ones."""
    return ((torch.arange(size) >= (size + 1) // 2) != (index % 2 == 1)).long()


def normflows_splines(workload: Workload) -> Peer:
    """Spline couplings of normflows."""
    nf = import_module("normflows")
    coupling = import_module("normflows.flows.neural_spline.coupling").PiecewiseRationalQuadraticCoupling
    config = workload.resolved()

    def step(mask: torch.Tensor) -> Any:
        made = coupling(
            mask,
            lambda i, o: _net(workload, i, o),
            num_bins=config.bins,
            tails="linear",
            tail_bound=config.tail_bound,
        )
        return nf.flows.base.Reverse(made)

    if config.image_shape is None:
        flows = [step(_mask(config.dims, index)) for index in reversed(range(config.steps))]
        model = nf.NormalizingFlow(nf.distributions.DiagGaussian(config.dims, trainable=False), flows)
        return Peer(model, model.log_prob, lambda n: model.sample(n)[0], images=False)
    bases, stacks = [], []
    for i, (channels, size) in enumerate(reversed(_levels(workload))):
        steps = []
        for _ in range(config.steps):
            norm, mixing = nf.flows.ActNorm((channels, 1, 1)), nf.flows.Invertible1x1Conv(channels)
            steps += [step(_mask(channels)), mixing, norm]
        stacks.append([*steps, nf.flows.Squeeze()])
        kept = channels if i == 0 else channels // 2
        bases.append(nf.distributions.DiagGaussian((kept, size, size), trainable=False))
    merges = [nf.flows.Merge() for _ in bases[1:]]
    images = nf.MultiscaleFlow(bases, stacks, merges, transform=nf.transforms.Shift(), class_cond=False)
    return Peer(images, lambda x: images.log_prob(x, None), lambda n: images.sample(n)[0])


def nflows_splines(workload: Workload) -> Peer:
    """Spline couplings of nflows."""
    transforms = import_module("nflows.transforms")
    distributions, flows = import_module("nflows.distributions"), import_module("nflows.flows.base")
    config = workload.resolved()

    def step(mask: torch.Tensor) -> Any:
        return transforms.PiecewiseRationalQuadraticCouplingTransform(
            mask,
            lambda i, o: _net(workload, i, o),
            num_bins=config.bins,
            tails="linear",
            tail_bound=config.tail_bound,
        )

    if config.image_shape is None:
        steps = [step(_mask(config.dims, index)) for index in range(config.steps)]
        base = distributions.StandardNormal((config.dims,))
        model = flows.Flow(transforms.CompositeTransform(steps), base)
        return Peer(model, model.log_prob, model.sample, images=False)
    multiscale = transforms.MultiscaleCompositeTransform(num_transforms=config.levels)
    for channels, size in _levels(workload):
        parts = [transforms.SqueezeTransform()]
        for _ in range(config.steps):
            mixing = transforms.OneByOneConvolution(channels)
            parts += [transforms.ActNorm(channels), mixing, step(_mask(channels))]
        multiscale.add_transform(transforms.CompositeTransform(parts), (channels, size, size))
    images = flows.Flow(multiscale, distributions.StandardNormal((math.prod(config.image_shape),)))
    return Peer(images, lambda x: images.log_prob(x - 0.5), lambda n: images.sample(n) + 0.5)


def zuko_splines(workload: Workload) -> Peer:
    """Spline couplings of zuko."""
    zuko = import_module("zuko")
    coupling = import_module("zuko.flows.coupling").GeneralCouplingTransform
    config = workload.resolved()
    bins = config.bins
    steps = [
        coupling(
            features=config.dims,
            mask=_mask(config.dims, index).bool(),
            univariate=zuko.transforms.MonotonicRQSTransform,
            shapes=[(bins,), (bins,), (bins - 1,)],
            hidden_features=(config.features,) * config.hidden_layers,
        )
        for index in range(config.steps)
    ]
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(config.dims), torch.ones(config.dims), buffer=True
    )
    model = zuko.lazy.Flow(steps, base)
    return Peer(model, lambda x: model().log_prob(x), lambda n: model().sample((n,)), images=False)


BUILDERS: Builders = {"normflows": normflows_splines, "nflows": nflows_splines, "zuko": zuko_splines}
