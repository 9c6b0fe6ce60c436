"""The workloads in the vocabulary of other libraries: the same couplings, network sizes and batch, in float32.

Where a library lacks a part, its nearest one stands in, and the notes say so; where it lacks what the workload is
about, it takes no part.
"""

from __future__ import annotations

import torch

from benchmarks.peers import glow, nice, realnvp
from benchmarks.peers.common import Builders, Peer
from benchmarks.workloads import Run, Task, Workload, grey_images, state, void

LIBRARIES = ("normflows", "nflows", "FrEIA", "zuko")

BUILDERS: dict[str, Builders] = {
    "glow": glow.BUILDERS,
    "realnvp": realnvp.BUILDERS,
    "nice": nice.BUILDERS,
    "flowpp": {},
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
}


def peers_of(workload: Workload) -> tuple[str, ...]:
    """The libraries that can express the workload."""
    limits = {"glow": glow.expressible, "realnvp": realnvp.expressible, "nice": nice.expressible}
    expressible = limits.get(workload.architecture, lambda _: True)
    return tuple(BUILDERS[workload.architecture]) if expressible(workload.resolved()) else ()


def build_peer(library: str, workload: Workload) -> Peer:
    """A library's model of the workload, untrained."""
    torch.manual_seed(0)
    return BUILDERS[workload.architecture][library](workload).to(workload.device)


def peer_task(library: str, workload: Workload, task: Task) -> Run:
    """The same task by a peer: a training step with Adam, one log-density or one sample."""
    peer = build_peer(library, workload)
    images = grey_images(workload)
    with torch.no_grad():
        peer(images)
    if task == "train":
        optimizer = torch.optim.Adam(peer.parameters(), lr=1e-4, fused=True)

        taken = state(p for p in peer.parameters() if p.requires_grad)

        def train() -> dict[str, int]:
            optimizer.zero_grad(set_to_none=True)
            (-peer(images).mean()).backward()
            optimizer.step()
            return taken

        return train
    peer.eval()
    if task == "log_prob":
        return torch.no_grad()(lambda: void(peer(images)))
    return torch.no_grad()(lambda: void(peer.sample(workload.batch)))
