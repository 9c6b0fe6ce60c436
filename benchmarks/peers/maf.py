"""MAF in the vocabulary of other libraries: masked networks of the same widths, the order reversed each time."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from benchmarks.peers.common import Builders, Peer
from benchmarks.workloads import Workload

NOTES = {
    "normflows": "MaskedAffineAutoregressive, reversed, since as it stands it is the inverse autoregressive flow; "
    "without residual blocks; a permutation that reverses. A sample evaluates the whole network once for each value.",
    "nflows": "MaskedAffineAutoregressiveTransform without residual blocks; ReversePermutation. A sample evaluates the "
    "whole network once for each value.",
    "FrEIA": "cannot express it: it has no masked networks.",
    "zuko": "its MAF. A sample evaluates the whole network once for each value.",
    "torchdiffeq": "cannot express it: it solves differential equations.",
    "UMNN": "cannot express it: its masked flow has no affine maps.",
}


def expressible(config: Any) -> bool:
    """Whether a config has no parts but those that the libraries have."""
    vectors = config.dims is not None and config.normalization == "none" and not config.direct
    return vectors and not config.mixture and len(set(config.hidden)) == 1


def normflows_maf(workload: Workload) -> Peer:
    """MAF of normflows."""
    nf = import_module("normflows")
    config, reversal = workload.resolved(), torch.arange(workload.resolved().dims - 1, -1, -1)
    flows: list[Any] = []
    for _ in range(config.layers):
        layer = nf.flows.MaskedAffineAutoregressive(
            config.dims, config.hidden[0], num_blocks=len(config.hidden) - 1, use_residual_blocks=False
        )
        flows += [nf.flows.base.Reverse(layer), nf.flows.mixing._Permutation(reversal)]
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(config.dims, trainable=False), flows)
    return Peer(model, model.log_prob, lambda n: model.sample(n)[0], images=False)


def nflows_maf(workload: Workload) -> Peer:
    """MAF of nflows."""
    transforms = import_module("nflows.transforms")
    distributions, flows = import_module("nflows.distributions"), import_module("nflows.flows.base")
    config = workload.resolved()
    steps: list[Any] = []
    for _ in range(config.layers):
        layer = transforms.MaskedAffineAutoregressiveTransform(
            config.dims, config.hidden[0], num_blocks=len(config.hidden) - 1, use_residual_blocks=False
        )
        steps += [layer, transforms.ReversePermutation(config.dims)]
    model = flows.Flow(transforms.CompositeTransform(steps), distributions.StandardNormal((config.dims,)))
    return Peer(model, model.log_prob, model.sample, images=False)


def zuko_maf(workload: Workload) -> Peer:
    """MAF of zuko."""
    zuko = import_module("zuko")
    config = workload.resolved()
    model = zuko.flows.MAF(config.dims, transforms=config.layers, hidden_features=config.hidden)
    return Peer(model, lambda x: model().log_prob(x), lambda n: model().sample((n,)), images=False)


BUILDERS: Builders = {"normflows": normflows_maf, "nflows": nflows_maf, "zuko": zuko_maf}
