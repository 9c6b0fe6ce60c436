"""Residual Flow in the vocabulary of other libraries: blocks of the same widths, ActNorm between them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.peers.common import Builders, Peer
from benchmarks.workloads import Workload

NOTES = {
    "normflows": "Residual with Neumann gradients, its LipschitzMLP or LipschitzCNN, ActNorm, Squeeze. Its number of "
    "terms is drawn once for a batch, flowzoo's for each item; its power iterations are five a step, whether they "
    "converge or not, and two hundred before it is evaluated; its "
    "inverse stops at a squared step of 1e-5, relative to a value or to 1.",
    "nflows": "cannot express it: it has no residual blocks.",
    "FrEIA": "cannot express it: its IResNetLayer is the i-ResNet, a truncated and biased series, with networks of its "
    "own.",
    "zuko": "cannot express it: it has no residual blocks.",
    "torchdiffeq": "cannot express it: it solves differential equations.",
    "UMNN": "cannot express it: it integrates positive networks.",
}

ITERATIONS = 5
"""Power iterations a step: the library's own number."""


def normflows_residual(workload: Workload) -> Peer:
    """Residual Flow of normflows."""
    nf = import_module("normflows")
    config = workload.resolved()
    shape, head = _shape(config)
    flows: list[Any] = []
    for _ in range(config.blocks[0]):
        block = nf.flows.Residual(
            _net(nf, config, shape),
            n_exact_terms=config.exact_terms,
            n_dist=config.roulette,
            lamb=config.rate,
        )
        flows = [nf.flows.ActNorm(shape if len(shape) == 1 else (shape[0], 1, 1)), block, *flows]
    flows += [nf.flows.Squeeze()] if head else []
    size = shape[0] if len(shape) == 1 else shape
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(size, trainable=False), flows)

    def tighten() -> None:
        nf.utils.update_lipschitz(model, ITERATIONS)

    if config.image_shape is None:
        return Peer(model, model.log_prob, lambda n: model.sample(n)[0], tighten, images=False)
    return Peer(model, lambda x: model.log_prob(x - 0.5), lambda n: model.sample(n)[0] + 0.5, tighten)


def _shape(config: Any) -> tuple[tuple[int, ...], bool]:
    """The shape inside the blocks, and whether images are squeezed first."""
    if config.image_shape is None:
        return (config.dims,), False
    channels, height, width = config.image_shape
    return (4 * channels, height // 2, width // 2), True


def _net(nf: Any, config: Any, shape: tuple[int, ...]) -> Any:
    inner = (len(config.kernels) if len(shape) > 1 else config.fc_layers) - 1
    widths = [shape[0], *[config.channels] * inner, shape[0]]
    if len(shape) == 1:
        return nf.nets.LipschitzMLP(widths, lipschitz_const=config.coefficient, init_zeros=False)
    kernels = list(config.kernels)
    return nf.nets.LipschitzCNN(widths, kernels, lipschitz_const=config.coefficient, init_zeros=False)


BUILDERS: Builders = {"normflows": normflows_residual}
