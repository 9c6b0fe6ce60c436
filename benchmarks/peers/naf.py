"""Autoregressive flows of monotonic networks in other libraries: none has the deep sigmoidal flow, two have its kin."""

from __future__ import annotations

from importlib import import_module

from benchmarks.peers.common import Builders, Peer
from benchmarks.workloads import Workload

NOTES = {
    "normflows": "cannot express it: it has no monotonic networks.",
    "nflows": "cannot express it: it has no monotonic networks.",
    "FrEIA": "cannot express it: it has no masked and no monotonic networks.",
    "zuko": "its NAF: the masked network gives 16 numbers for each value, which a small network of positive weights, "
    "the same for the whole batch, is given with the value; a deep sigmoidal flow has 48 such numbers as its weights. "
    "Inverted by bisection to 1e-6 within [-10, 10].",
    "torchdiffeq": "cannot express it: it solves differential equations.",
    "UMNN": "UMNNMAFFlow: another map for the same end, the integral of a positive network of 16 units by 50 steps of "
    "a quadrature; inverted by ten searches of ten places.",
}

SIGNAL = 16
"""Numbers that a masked network gives for each value: as many as flowzoo's maps have units."""


def zuko_naf(workload: Workload) -> Peer:
    """NAF of zuko."""
    zuko = import_module("zuko")
    config = workload.resolved()
    model = zuko.flows.NAF(
        config.dims,
        transforms=config.steps,
        signal=SIGNAL,
        network={"hidden_features": (config.units,)},
        hidden_features=(config.features,) * config.hidden_layers,
    )
    return Peer(model, lambda x: model().log_prob(x), lambda n: model().sample((n,)), images=False)


def umnn_naf(workload: Workload) -> Peer:
    """UMNN's masked autoregressive flow."""
    torch = import_module("torch")
    config = workload.resolved()
    model = import_module("UMNN").UMNNMAFFlow(
        nb_flow=config.steps,
        nb_in=config.dims,
        hidden_derivative=[config.units],
        hidden_embedding=[config.features] * config.hidden_layers,
        embedding_s=SIGNAL,
        nb_steps=50,
        solver="CCParallel",
    )
    return Peer(
        model,
        lambda x: model.compute_ll(x)[0],
        lambda n: model.invert(torch.randn(n, config.dims)),
        images=False,
    )


BUILDERS: Builders = {"zuko": zuko_naf, "UMNN": umnn_naf}
