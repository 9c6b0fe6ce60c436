"""Subjects about numerics: the mixture's inverse and drift over two hundred couplings."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.workloads import Run, Workload, build, glow, void
from flowzoo.bijectors import Coupling, MixtureLogisticCoupling
from flowzoo.testing import randomize


def mixture(model: str, batch: int, direction: str) -> Callable[[], float]:
    """One pass of the model's first mixture coupling, on what reaches it; the inverse returns its largest error."""
    flow, images = build(Workload(model=model, batch=batch))
    flow.eval()
    coupling = next(m for m in flow.modules() if isinstance(m, MixtureLogisticCoupling))
    seen: list[tuple[tuple[Any, ...], Tensor]] = []
    hook = coupling.register_forward_hook(lambda _m, given, out: seen.append((given, out[0])))
    with torch.no_grad():
        flow.log_prob(images)
    hook.remove()
    (x, *rest), z = seen[0]

    @torch.no_grad()
    def run() -> float:
        out, _ = coupling(x, *rest) if direction == "forward" else coupling.inverse(z, *rest)
        return float((out - (z if direction == "forward" else x)).abs().max())

    return run


def drift(couplings: int, hidden: int, size: int, levels: int) -> Callable[[], dict[str, float]]:
    """Float32 errors of a deep random Glow: of the inversion, and of gradients by inversion, relative."""
    workload = glow(couplings // levels, hidden, size, levels=levels, batch=4)
    flow, images = build(workload)
    # A little, since layers this many amplify a lot.
    randomize(flow, seed=1, scale=0.01)
    noise = flow.draw_noise(len(images), generator=torch.Generator().manual_seed(0))
    count = sum(isinstance(module, Coupling) for module in flow.modules())

    def gradients(memory: str) -> Tensor:
        flow.set_memory(memory)  # type: ignore[arg-type]
        flow.zero_grad()
        flow.log_prob(images, noise=noise.to(next(flow.parameters()))).mean().backward()
        return torch.cat([p.grad.double().flatten() for p in flow.parameters() if p.grad is not None])

    def run() -> dict[str, float]:
        flow.float()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            stored, inverted = gradients("store"), gradients("invertible")
        y = (images + noise) / 256
        with torch.no_grad():
            z, _ = flow.bijector(y)
            back, _ = flow.bijector.inverse(z)
        flow.double()
        exact = gradients("store")
        return {
            "couplings": count,
            "inversion_max": float((back - y).abs().max()),
            "inversion_bins": float((back - y).abs().max() * 256),
            "gradient_store": _relative(stored, exact),
            "gradient_invertible": _relative(inverted, exact),
            "warned": any("rebuilt" in str(w.message) for w in caught),
        }

    return run


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def logit_cdf(direction: str, components: int, elements: int) -> Run:
    """The mixture's elementwise map alone, without a network: forward, or its inverse."""
    from flowzoo.bijectors import LogisticMixture

    torch.manual_seed(0)
    raw = [torch.randn(elements, components, 64) * scale for scale in (1.0, 1.0, 0.3)]
    mixed = LogisticMixture.from_raw(*raw)
    y = torch.randn(elements, 64) * 2
    run = mixed.logit_cdf if direction == "forward" else mixed.inverse_logit_cdf
    return torch.no_grad()(lambda: void(run(y)))


SUBJECTS: dict[str, Callable[..., Callable[[], Any]]] = {
    "mixture": mixture,
    "drift": drift,
    "logit_cdf": logit_cdf,
}
