"""Glow in the vocabulary of other libraries: the same depths, widths and batch.

The networks inside the couplings are the same three convolutions. No peer has Glow's learned priors or the actnorms
inside its networks, so each has a little less to compute than flowzoo; where a library lacks a part, its nearest one
stands in.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.common import Builders, ConvNet, Peer
from benchmarks.workloads import Workload

NOTES = {
    "normflows": "its own GlowBlock with scale: ActNorm, LU 1x1 convolution, affine coupling; unit Gaussians instead "
    "of learned priors.",
    "nflows": "ActNorm, OneByOneConvolution, AffineCouplingTransform, MultiscaleCompositeTransform; the network is "
    "ours, since the library brings none of this shape; no learned priors.",
    "FrEIA": "AllInOneBlock: global affine, a fixed random rotation (the library has no learned 1x1 convolution), "
    "affine coupling; Split for the levels; no learned priors.",
    "zuko": "cannot express it: its flows transform vectors by fully connected or masked networks; there is no "
    "squeeze, no convolutional coupling and no multi-scale split.",
    "all": "an edge bias, by which the official code's networks see where the padding is, is in no library and not in "
    "the floor; flowzoo alone is measured with it, as its presets have it.",
}


def expressible(config: Any) -> bool:
    """Whether the libraries have all that this Glow has, but for its priors."""
    return not config.edge_bias


def _levels(workload: Workload) -> list[tuple[int, int]]:
    """Channels after the squeeze and image size, level by level."""
    config = workload.resolved()
    channels, size, _ = config.image_shape
    return [(channels * 2 ** (i + 2), size // 2 ** (i + 1)) for i in range(config.levels)]


def normflows_glow(workload: Workload) -> Peer:
    """Glow of normflows."""
    nf = import_module("normflows")
    config = workload.resolved()
    bases, merges, flows = [], [], []
    shapes = _levels(workload)
    for i, (channels, size) in enumerate(reversed(shapes)):
        steps = [
            nf.flows.GlowBlock(channels, config.hidden_channels, split_mode="channel", scale=True, leaky=0.0)
            for _ in range(config.depth)
        ]
        flows.append([*steps, nf.flows.Squeeze()])
        kept = channels if i == 0 else channels // 2
        bases.append(nf.distributions.DiagGaussian((kept, size, size), trainable=False))
        if i > 0:
            merges.append(nf.flows.Merge())
    assert len(bases) == config.levels
    model = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)
    return Peer(model, lambda x: model.log_prob(x, None), lambda n: model.sample(n)[0])


def nflows_glow(workload: Workload) -> Peer:
    """Glow of nflows."""
    transforms = import_module("nflows.transforms")
    distributions, flows = import_module("nflows.distributions"), import_module("nflows.flows.base")
    config = workload.resolved()
    multiscale = transforms.MultiscaleCompositeTransform(num_transforms=config.levels)
    for channels, size in _levels(workload):
        mask = torch.arange(channels) >= channels // 2
        steps = [transforms.SqueezeTransform()]
        for _ in range(config.depth):
            coupling = transforms.AffineCouplingTransform(
                mask, lambda i, o: ConvNet(i, o, config.hidden_channels)
            )
            steps += [transforms.ActNorm(channels), transforms.OneByOneConvolution(channels), coupling]
        multiscale.add_transform(transforms.CompositeTransform(steps), (channels, size, size))
    dims = math.prod(config.image_shape)
    model = flows.Flow(multiscale, distributions.StandardNormal((dims,)))
    return Peer(model, model.log_prob, model.sample)


def freia_glow(workload: Workload) -> Peer:
    """The nearest to Glow in FrEIA."""
    framework, modules = import_module("FrEIA.framework"), import_module("FrEIA.modules")
    config = workload.resolved()
    end: Any = framework.InputNode(*config.image_shape)
    nodes, shapes = [end], []
    for level, (channels, size) in enumerate(_levels(workload)):
        last = level + 1 == config.levels
        steps: list[tuple[Any, dict[str, Any]]] = [(modules.IRevNetDownsampling, {})]
        block = {
            "subnet_constructor": lambda i, o: ConvNet(i, o, config.hidden_channels),
            "permute_soft": True,
        }
        steps += [(modules.AllInOneBlock, block)] * config.depth
        for module, arguments in steps:
            nodes.append(framework.Node(nodes[-1] if end is None else end, module, arguments))
            end = None
        if not last:
            split = framework.Node(nodes[-1], modules.Split, {})
            nodes += [split, framework.OutputNode(split.out1)]
            end = split.out0
        shapes.append((channels if last else channels // 2, size, size))
    model = framework.GraphINN([*nodes, framework.OutputNode(nodes[-1])])

    def log_prob(x: Tensor) -> Tensor:
        latents, log_det = model(x)
        out: Tensor = log_det - 0.5 * sum(z.square().flatten(1).sum(1) for z in latents)
        return out

    def sample(n: int) -> Tensor:
        latents = [0.7 * torch.randn(n, *shape, device=workload.device) for shape in shapes]
        out: Tensor = model(latents, rev=True)[0]
        return out

    return Peer(model, log_prob, sample)


BUILDERS: Builders = {"normflows": normflows_glow, "nflows": nflows_glow, "FrEIA": freia_glow}
