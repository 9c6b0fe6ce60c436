"""Glow in the vocabulary of other libraries: the same depths, widths, batch and tasks.

The networks inside the couplings are the same three convolutions. No peer has Glow's learned priors or its edge
bias, so each has a little less to compute than flowzoo; where a library lacks a part, its nearest one stands in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.workloads import Run, Task, Workload, void

NOTES = {
    "normflows": "its own GlowBlock with scale: ActNorm, LU 1x1 convolution, affine coupling; unit Gaussians instead "
    "of learned priors.",
    "nflows": "ActNorm, OneByOneConvolution, AffineCouplingTransform, MultiscaleCompositeTransform; the network is "
    "ours, since the library brings none of this shape; no learned priors.",
    "FrEIA": "AllInOneBlock: global affine, a fixed random rotation (the library has no learned 1x1 convolution), "
    "affine coupling; Split for the levels; no learned priors.",
    "zuko": "cannot express it: its flows transform vectors by fully connected or masked networks; there is no "
    "squeeze, no convolutional coupling and no multi-scale split. It takes part in no image workload.",
}


class PeerNet(nn.Sequential):
    """conv 3x3, ReLU, conv 1x1, ReLU, conv 3x3; a context, which some libraries pass, is ignored."""

    def __init__(self, in_channels: int, out_channels: int, hidden: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, out_channels, 3, padding=1),
        )

    def forward(self, x: Tensor, context: object = None) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, H, W)``."""
        for layer in self:
            x = layer(x)
        return x


class Peer(nn.Module):
    """A peer's model behind two methods.

    Attributes:
        model: The library's own object.
    """

    def __init__(self, model: Any, log_prob: Callable[[Tensor], Any], sample: Callable[[int], Any]) -> None:
        super().__init__()
        self.model, self._log_prob, self._sample = model, log_prob, sample

    def forward(self, x: Tensor) -> Tensor:
        """Log-density of images in [0, 1]: ``(B,)``."""
        out: Tensor = self._log_prob(x)
        return out

    def sample(self, n: int) -> object:
        """Draws ``n`` images."""
        return self._sample(n)


def _levels(workload: Workload) -> list[tuple[int, int]]:
    """Channels after the squeeze and image size, level by level."""
    channels, size, _ = workload.config["image_shape"]
    return [(channels * 2 ** (i + 2), size // 2 ** (i + 1)) for i in range(workload.config["levels"])]


def normflows_glow(workload: Workload) -> Peer:
    """Glow of normflows."""
    nf = import_module("normflows")
    depth, hidden, levels = (workload.config[k] for k in ("depth", "hidden_channels", "levels"))
    bases, merges, flows = [], [], []
    shapes = _levels(workload)
    for i, (channels, size) in enumerate(reversed(shapes)):
        steps = [
            nf.flows.GlowBlock(channels, hidden, split_mode="channel", scale=True, leaky=0.0)
            for _ in range(depth)
        ]
        flows.append([*steps, nf.flows.Squeeze()])
        kept = channels if i == 0 else channels // 2
        bases.append(nf.distributions.DiagGaussian((kept, size, size), trainable=False))
        if i > 0:
            merges.append(nf.flows.Merge())
    assert len(bases) == levels
    model = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)
    return Peer(model, lambda x: model.log_prob(x, None), model.sample)


def nflows_glow(workload: Workload) -> Peer:
    """Glow of nflows."""
    transforms = import_module("nflows.transforms")
    distributions, flows = import_module("nflows.distributions"), import_module("nflows.flows.base")
    depth, hidden, levels = (workload.config[k] for k in ("depth", "hidden_channels", "levels"))
    multiscale = transforms.MultiscaleCompositeTransform(num_transforms=levels)
    for channels, size in _levels(workload):
        mask = torch.arange(channels) >= channels // 2
        steps = [transforms.SqueezeTransform()]
        for _ in range(depth):
            coupling = transforms.AffineCouplingTransform(mask, lambda i, o: PeerNet(i, o, hidden))
            steps += [transforms.ActNorm(channels), transforms.OneByOneConvolution(channels), coupling]
        multiscale.add_transform(transforms.CompositeTransform(steps), (channels, size, size))
    dims = math.prod(workload.config["image_shape"])
    model = flows.Flow(multiscale, distributions.StandardNormal((dims,)))
    return Peer(model, model.log_prob, model.sample)


def freia_glow(workload: Workload) -> Peer:
    """The nearest to Glow in FrEIA."""
    framework, modules = import_module("FrEIA.framework"), import_module("FrEIA.modules")
    depth, hidden = workload.config["depth"], workload.config["hidden_channels"]
    end: Any = framework.InputNode(*workload.config["image_shape"])
    nodes, shapes = [end], []
    for level, (channels, size) in enumerate(_levels(workload)):
        last = level + 1 == workload.config["levels"]
        steps: list[tuple[Any, dict[str, Any]]] = [(modules.IRevNetDownsampling, {})]
        block = {"subnet_constructor": lambda i, o: PeerNet(i, o, hidden), "permute_soft": True}
        steps += [(modules.AllInOneBlock, block)] * depth
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

    return Peer(model, log_prob, lambda n: model([0.7 * torch.randn(n, *s) for s in shapes], rev=True))


BUILDERS = {"normflows": normflows_glow, "nflows": nflows_glow, "FrEIA": freia_glow}


def peer_task(library: str, workload: Workload, task: Task) -> Run:
    """The same task by a peer: a training step with Adam, one log-density or one sample."""
    torch.manual_seed(0)
    peer = BUILDERS[library](workload).to(workload.device)
    images = torch.rand(workload.batch, *workload.config["image_shape"]).to(workload.device)
    with torch.no_grad():
        peer(images)
    if task == "train":
        optimizer = torch.optim.Adam(peer.parameters(), lr=1e-4, fused=True)

        def train() -> None:
            optimizer.zero_grad(set_to_none=True)
            (-peer(images).mean()).backward()
            optimizer.step()

        return train
    peer.eval()
    if task == "log_prob":
        return torch.no_grad()(lambda: void(peer(images)))
    return torch.no_grad()(lambda: void(peer.sample(workload.batch)))
