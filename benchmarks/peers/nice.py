"""NICE in the vocabulary of other libraries: additive couplings of fully connected networks, then a scaling."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import torch

from benchmarks.peers.common import MLP, Builders, Peer
from benchmarks.workloads import Workload

NOTES = {
    "normflows": "AffineCouplingBlock without scale on halves in place of even and odd pixels (its splitting in even "
    "and odd costs more), its MLP, AffineConstFlow without shift.",
    "nflows": "AdditiveCouplingTransform; the network is ours, since the library's MLP takes no context and its "
    "couplings pass one; ActNorm for the scaling, which has a shift as well.",
    "FrEIA": "NICECouplingBlock, two couplings each, with our network as its tutorial has it; "
    "LearnedElementwiseScaling.",
    "zuko": "GeneralCouplingTransform with AdditiveTransform and its MLP; ElementWiseTransform for the scaling, "
    "which has a shift as well.",
    "all": "no library brings NICE's logistic base, so peers take part in the same model with a Gaussian one.",
}


def expressible(config: Any) -> bool:
    """Whether a config has no parts but those that the libraries have."""
    plain = config.base == "normal" and config.whitening == "none" and config.input_range == "unit"
    # FrEIA's block is two couplings alike.
    return plain and config.couplings % 2 == 0 and len(set(config.layers_per_coupling())) == 1


def _sizes(workload: Workload) -> tuple[int, list[tuple[int, ...]]]:
    """Features, and the hidden widths of every coupling's network."""
    config = workload.resolved()
    widths = [(config.hidden_units,) * layers for layers in config.layers_per_coupling()]
    return math.prod(config.image_shape), widths


def normflows_nice(workload: Workload) -> Peer:
    """NICE of normflows."""
    nf = import_module("normflows")
    dims, widths = _sizes(workload)
    halves = (dims + 1) // 2, dims // 2
    flows: list[Any] = []
    for i, hidden in enumerate(widths):
        given, changed = halves if i % 2 == 0 else halves[::-1]
        net = nf.nets.MLP([given, *hidden, changed])
        split = "channel" if i % 2 == 0 else "channel_inv"
        flows.append(nf.flows.AffineCouplingBlock(net, scale=False, split_mode=split))
    flows.append(nf.flows.AffineConstFlow((dims,), shift=False))
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(dims, trainable=False), flows[::-1])
    return Peer(model, lambda x: model.log_prob(x.flatten(1)), lambda n: model.sample(n)[0])


def nflows_nice(workload: Workload) -> Peer:
    """NICE of nflows."""
    transforms = import_module("nflows.transforms")
    distributions, flows = import_module("nflows.distributions"), import_module("nflows.flows.base")
    dims, widths = _sizes(workload)
    steps = [
        transforms.AdditiveCouplingTransform(
            (torch.arange(dims) + i) % 2, lambda inputs, outputs, h=hidden: MLP(inputs, outputs, h)
        )
        for i, hidden in enumerate(widths)
    ]
    transform = transforms.CompositeTransform([*steps, transforms.ActNorm(dims)])
    model = flows.Flow(transform, distributions.StandardNormal((dims,)))
    return Peer(model, lambda x: model.log_prob(x.flatten(1)), model.sample)


def freia_nice(workload: Workload) -> Peer:
    """NICE of FrEIA."""
    framework, modules = import_module("FrEIA.framework"), import_module("FrEIA.modules")
    dims, widths = _sizes(workload)
    model = framework.SequenceINN(dims)
    for _ in range(len(widths) // 2):
        model.append(
            modules.NICECouplingBlock,
            subnet_constructor=lambda inputs, outputs: MLP(inputs, outputs, widths[0]),
        )
    model.append(modules.LearnedElementwiseScaling)

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        z, log_det = model(x.flatten(1))
        out: torch.Tensor = log_det - 0.5 * z.square().sum(1) - 0.5 * dims * math.log(2 * math.pi)
        return out

    return Peer(model, log_prob, lambda n: model(torch.randn(n, dims, device=workload.device), rev=True)[0])


def zuko_nice(workload: Workload) -> Peer:
    """NICE of zuko."""
    zuko = import_module("zuko")
    coupling = import_module("zuko.flows.coupling").GeneralCouplingTransform
    scaling = import_module("zuko.flows.gaussianization").ElementWiseTransform
    dims, widths = _sizes(workload)
    steps = [
        coupling(
            features=dims,
            mask=(torch.arange(dims) + i) % 2 == 0,
            univariate=zuko.transforms.AdditiveTransform,
            shapes=[()],
            hidden_features=hidden,
        )
        for i, hidden in enumerate(widths)
    ]
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(dims), torch.ones(dims), buffer=True
    )
    model = zuko.lazy.Flow([*steps, scaling(dims)], base)
    return Peer(model, lambda x: model().log_prob(x.flatten(1)), lambda n: model().sample((n,)))


BUILDERS: Builders = {
    "normflows": normflows_nice,
    "nflows": nflows_nice,
    "FrEIA": freia_nice,
    "zuko": zuko_nice,
}
