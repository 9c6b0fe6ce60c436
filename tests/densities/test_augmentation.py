"""Augmented flows: a bound that importance samples tighten to the known density, and samples without the extra part."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from flowzoo.bijectors import Bijector
from flowzoo.densities import Augmentation, GaussianAugmentation, StandardAugmentation
from flowzoo.flow import Flow

D, EXTRA = 2, 3


class Linear(Bijector):
    """z = A w, so that everything is normal and the marginal of the data is known."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.matrix = nn.Parameter(torch.eye(D + EXTRA) + 0.3 * torch.randn(D + EXTRA, D + EXTRA))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x @ self.matrix.T, torch.linalg.slogdet(self.matrix)[1].expand(len(x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z @ torch.linalg.inv(self.matrix).T, -torch.linalg.slogdet(self.matrix)[1].expand(len(z))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.linear = nn.Linear(D, 2 * EXTRA)

    def forward(self, v: Tensor, context: Tensor | None = None) -> Tensor:
        return 0.3 * self.linear(v)  # type: ignore[no-any-return]


def build(augmentation: Augmentation) -> Flow:
    return Flow(dims=D, bijector=Linear(), augmentation=augmentation).double()


AUGMENTATIONS = {
    "standard": lambda: StandardAugmentation(EXTRA),
    "gaussian": lambda: GaussianAugmentation(Encoder(), EXTRA),
}


def marginal(flow: Flow, x: Tensor) -> Tensor:
    assert isinstance(flow.bijector, Linear)
    inverse = torch.linalg.inv(flow.bijector.matrix.detach())
    covariance = (inverse @ inverse.T)[:D, :D]
    normal = torch.distributions.MultivariateNormal(torch.zeros(D, dtype=x.dtype), covariance)
    return normal.log_prob(x)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_importance_samples_tighten_the_bound_to_the_density(name: str) -> None:
    flow, x = build(AUGMENTATIONS[name]()), torch.randn(40, D, dtype=torch.float64)
    assert flow.is_lower_bound
    exact = marginal(flow, x).mean()
    torch.manual_seed(0)
    with torch.no_grad():
        gaps = [float(exact - flow.log_prob(x, samples=k).mean()) for k in (1, 10, 3000)]
    assert gaps[0] > gaps[1] > gaps[2] - 0.01
    assert gaps[0] > 0.1
    assert gaps[2] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_data_come_back_and_samples_have_the_marginal(name: str) -> None:
    flow, x = build(AUGMENTATIONS[name]()), torch.randn(4, D, dtype=torch.float64)
    z = flow.encode(x)
    assert z.shape == (4, D + EXTRA)
    torch.testing.assert_close(flow.decode(z), x)
    drawn = flow.sample(20_000, seed=0)
    assert drawn.shape == (20_000, D)
    assert isinstance(flow.bijector, Linear)
    inverse = torch.linalg.inv(flow.bijector.matrix.detach())
    torch.testing.assert_close(drawn.T.cov(), (inverse @ inverse.T)[:D, :D], rtol=0.1, atol=0.1)


def test_the_generator_decides_what_is_drawn_for_each_item() -> None:
    flow, x = build(StandardAugmentation(EXTRA)), torch.randn(6, D, dtype=torch.float64)

    def found(seed: int, rows: Tensor) -> Tensor:
        return flow.log_prob(rows, generator=torch.Generator().manual_seed(seed), samples=2)

    assert torch.equal(found(1, x), found(1, x))
    torch.testing.assert_close(found(1, x)[:2], found(1, x[:2]), rtol=0, atol=1e-12)
    assert not torch.equal(found(1, x), found(2, x))


def test_gradients_reach_the_encoder() -> None:
    flow, x = build(GaussianAugmentation(Encoder(), EXTRA)), torch.randn(6, D, dtype=torch.float64)
    flow.log_prob(x).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in flow.parameters())


def test_an_encoder_that_goes_astray_keeps_its_scale_within_bounds() -> None:
    class Astray(Encoder):
        def forward(self, v: Tensor, context: Tensor | None) -> Tensor:
            return torch.full((len(v), 2 * EXTRA), 60.0, dtype=v.dtype)

    drawn, log_q = GaussianAugmentation(Astray(), EXTRA)(torch.randn(6, D, dtype=torch.float64))
    e = drawn[:, D:]
    assert (e - 60).abs().max() < 6 * math.exp(7)
    standard = torch.distributions.Normal(60, math.exp(7))
    torch.testing.assert_close(log_q, standard.log_prob(e).sum(1))


def test_images_may_be_augmented_too() -> None:
    class Flat(Linear):
        def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
            return x, x.new_zeros(len(x))

        def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
            return z, z.new_zeros(len(z))

    flow = Flow(image_shape=(1, 2, 3), bijector=Flat(), augmentation=StandardAugmentation(4))
    x = torch.randint(0, 256, (3, 1, 2, 3), dtype=torch.uint8)
    assert flow.sample(2, seed=0).shape == (2, 1, 2, 3)
    assert torch.equal(flow.reconstruct(x), x)
    # e is drawn from what the base gives it: its part cancels, whatever the draw.
    v = (x + 0.5) / 256
    known = flow.base.log_prob(v.flatten(1)) - 6 * math.log(256)
    torch.testing.assert_close(flow.log_prob(x, noise=torch.full(x.shape, 0.5)), known)
