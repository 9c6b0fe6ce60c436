"""The workloads in the vocabulary of other libraries: the same couplings, network sizes and batch, in float32.

Where a library lacks a part, its nearest one stands in, and the notes say so; where it lacks what the workload is
about, it takes no part.
"""

from __future__ import annotations

import torch

from benchmarks.peers import ffjord, glow, maf, naf, nice, realnvp, residual, splines
from benchmarks.peers.common import Builders, Peer
from benchmarks.workloads import Run, Task, Workload, batch_of, state, stir, void

LIBRARIES = ("normflows", "nflows", "FrEIA", "zuko")
SPECIAL = ("torchdiffeq", "UMNN")
"""Libraries of one kind of flow: solvers of differential equations, and monotonic networks."""

BUILDERS: dict[str, Builders] = {
    "glow": glow.BUILDERS,
    "realnvp": realnvp.BUILDERS,
    "nice": nice.BUILDERS,
    "flowpp": {},
    "maf": maf.BUILDERS,
    "splines": splines.BUILDERS,
    "naf": naf.BUILDERS,
    "residual": residual.BUILDERS,
    "ffjord": ffjord.BUILDERS,
}
"""By architecture and library."""

NOTES = {
    "glow": glow.NOTES,
    "realnvp": realnvp.NOTES,
    "nice": nice.NOTES,
    "flowpp": {
        "all": "none can express it: the coupling by the distribution function of a mixture of logistics, its "
        "inverse, and variational dequantization are in none of them. (normflows and nflows have rational-quadratic "
        "splines in that place, FrEIA affine couplings alone, zuko monotone maps of vectors, inverted by bisection.)"
    },
    "maf": maf.NOTES,
    "splines": splines.NOTES,
    "naf": naf.NOTES,
    "residual": residual.NOTES,
    "ffjord": ffjord.NOTES,
}

OTHERS = (
    "None of the libraries can express the other architectures. TarFlow and Jet: none has transformers. PixelCNN and "
    "integer flows: none has convolutions over the pixels before, distributions of grey levels, or rounded "
    "translations. f-VAE: normflows has a variational autoencoder with a flow in its latent, but no Glow as its prior "
    "and no decoder of couplings. Elementwise flows: zuko has elementwise monotone maps, but no histograms or mixtures "
    "of the data's values."
)
"""Why there are no other workloads."""


SETTLING = 40
"""How often a model that needs care after each update gets it before it is evaluated, as after a training."""


def peers_of(workload: Workload) -> tuple[str, ...]:
    """The libraries that can express the workload."""
    limits = {
        "glow": glow.expressible,
        "realnvp": realnvp.expressible,
        "nice": nice.expressible,
        "maf": maf.expressible,
        "splines": splines.expressible,
    }
    expressible = limits.get(workload.architecture, lambda _: True)
    if not expressible(workload.resolved()):
        return ()
    # Of the images of the later flows zuko has none.
    only_vectors = (
        workload.architecture in ("splines", "ffjord") and workload.resolved().image_shape is not None
    )
    return tuple(name for name in BUILDERS[workload.architecture] if not (only_vectors and name == "zuko"))


def build_peer(library: str, workload: Workload) -> Peer:
    """A library's model of the workload, untrained."""
    torch.manual_seed(0)
    return BUILDERS[workload.architecture][library](workload).to(workload.device)


def peer_task(library: str, workload: Workload, task: Task) -> Run:
    """The same task by a peer: a training step with Adam, one log-density or one sample."""
    peer = build_peer(library, workload)
    images = batch_of(workload)
    with torch.no_grad():
        peer(images)
    stir(peer, workload.stirred)
    if task == "train":
        optimizer = torch.optim.Adam(peer.parameters(), lr=1e-4, fused=True)

        taken = state(p for p in peer.parameters() if p.requires_grad)

        def train() -> dict[str, int]:
            optimizer.zero_grad(set_to_none=True)
            (-peer(images).mean()).backward()
            optimizer.step()
            if peer.after_step is not None:
                peer.after_step()
            return taken

        return train
    peer.eval()
    if peer.after_step is not None:
        for _ in range(SETTLING):
            peer.after_step()
    if task == "log_prob":
        return torch.no_grad()(lambda: void(peer(images)))
    return torch.no_grad()(lambda: void(peer.sample(workload.batch)))
