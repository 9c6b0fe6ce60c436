"""Figures from an estimated log-determinant: means over keyed probes, with their own part of the standard error."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from flowzoo.bijectors import Bijector, Chain, Flatten, MapKind
from flowzoo.data.images import ImageSet
from flowzoo.distributed import World
from flowzoo.errors import InputError
from flowzoo.evaluation.likelihood import likelihoods
from flowzoo.evaluation.measure import measure
from flowzoo.evaluation.protocol import Protocol, protocol_of
from flowzoo.evaluation.trained_model import Target
from flowzoo.flow import Flow
from flowzoo.nets.keyed import Keys, draw, keyed_noise

CPU = World(0, 1, torch.device("cpu"))


class Hutchinson(Bijector):
    """z = x exp(a) elementwise, its log-determinant D a estimated by probes: a sum of a_i e_i^2 with uneven a_i."""

    own_kind = MapKind(log_det="unbiased")

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.linspace(-0.5, 0.7, dims))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        probe = draw(self, "normal", tuple(x.shape[1:]), x)
        return x * self.log_scale.exp(), (self.log_scale * probe.square()).sum(1)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z * (-self.log_scale).exp(), -self.log_scale.sum().expand(len(z))


def build() -> Flow:
    return Flow(
        image_shape=(1, 2, 3), bijector=Chain(Flatten((1, 2, 3)), Hutchinson(6), Hutchinson(6))
    ).eval()


IMAGES = ImageSet(
    torch.randint(0, 256, (40, 1, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
    split="test",
)


def exact(flow: Flow) -> Tensor:
    """The log-probabilities with the true log-determinant."""
    found = []
    for i in range(len(IMAGES)):
        x = IMAGES[i : i + 1]
        v = (x + keyed_noise("uniform", (1, 2, 3), 0, [i], 0)) / 256
        z, _ = flow.bijector(v)
        log_det = sum(p.sum() for p in flow.bijector.parameters())
        found.append(flow.base.log_prob(z) + log_det - 6 * math.log(256))
    return torch.cat(found).detach().double()


def test_the_mean_over_probes_is_exact_within_its_standard_error() -> None:
    flow = build()
    found = likelihoods(flow, IMAGES, CPU, probes=200)
    error = found.log_prob - exact(flow)
    scaled = error / found.probe_variance.sqrt()
    assert scaled.abs().max().item() < 5
    assert scaled.square().mean().item() == pytest.approx(1, abs=0.5)
    few = likelihoods(flow, IMAGES, CPU, probes=10)
    assert few.probe_variance.mean() / found.probe_variance.mean() == pytest.approx(20, rel=0.3)


def test_it_is_a_mean_of_logarithms_not_the_logarithm_of_a_mean() -> None:
    """A log-mean-exp over probes has a larger expectation (Jensen): it would be too good."""
    flow, keys = build(), [Keys(seed=0, items=[0], probe=k) for k in range(400)]
    noise = keyed_noise("uniform", (1, 2, 3), 0, [0], 0)
    each = torch.cat([flow.log_prob(IMAGES[0:1], noise=noise, keys=k) for k in keys]).double()
    found = likelihoods(flow, IMAGES.take(1), CPU, probes=400).log_prob
    torch.testing.assert_close(found, each.mean()[None].detach())
    assert each.logsumexp(0) - math.log(400) > found + 0.5


def test_an_items_figure_does_not_depend_on_its_batch_or_order() -> None:
    flow = build()
    one = likelihoods(flow, IMAGES, CPU, probes=3, batch_size=40).log_prob
    two = likelihoods(flow, IMAGES, CPU, probes=3, batch_size=7, order=torch.arange(39, -1, -1)).log_prob
    torch.testing.assert_close(one, two, rtol=0, atol=1e-4)
    other = likelihoods(flow, IMAGES, CPU, probes=3, seed=1).log_prob
    assert not torch.allclose(one, other, atol=1e-2)


def test_the_figure_says_its_kind() -> None:
    target = Target(name="probing", flow=build(), entry=None, dataset="custom")
    found = measure(target, IMAGES, CPU, Protocol(probes=8), audit=False)
    assert (found.kind, found.inverse_kind, found.unit) == ("unbiased", "analytic", "bits/dim")
    assert 0 < found.probe_stderr < found.stderr
    assert math.isnan(measure(target, IMAGES, CPU, Protocol(), audit=False).probe_stderr)
    assert found.nats == pytest.approx(found.bpd * 6 * math.log(2))


def test_probes_asked_of_an_exact_model_are_refused() -> None:
    flow = Flow(image_shape=(1, 2, 3), bijector=Flatten((1, 2, 3)))
    with pytest.raises(InputError, match="exact"):
        protocol_of(Target(name="m", flow=flow, entry=None, dataset=""), None, None, None, probes=4)


def test_samples_of_noise_share_their_probe() -> None:
    """Otherwise a log-mean-exp over samples would be over probes as well, and too good."""
    flow = build()
    x, items = IMAGES[0:1], [0]
    noise = torch.full((1, 1, 2, 3), 0.5)
    first, second = (
        flow.log_prob(x, noise=noise, keys=Keys(seed=0, items=items, sample=s)).item() for s in (0, 1)
    )
    assert first == second
