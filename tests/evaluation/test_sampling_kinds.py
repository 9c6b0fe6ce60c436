"""The shipping gate counts samples of every kind of flow: conditional, augmented, solved, over vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from flowzoo.bijectors import Bijector, Chain, ClassTop, Flatten, MapKind, require_converged
from flowzoo.densities import StandardAugmentation, StandardUniform
from flowzoo.evaluation.sampling import count_finite
from flowzoo.flow import Flow


class Fails(Bijector):
    """The identity, whose inverse says that it does not converge where the first value exceeds 1."""

    own_kind = MapKind(inverse="numeric", tolerance=1e-3)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(len(x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_converged(self, torch.where(z > 1, z, 0.0)[:, :1], 1e-3)
        return z, z.new_zeros(len(z))


def test_a_latent_whose_inverse_does_not_converge_is_lost() -> None:
    generator = torch.Generator().manual_seed(3)
    z = torch.cat([torch.randn(50, 2, generator=generator) for _ in range(4)])
    expected = int((z[:, 0] <= 1).sum())
    assert count_finite(Flow(dims=2, bijector=Fails()), 200, seed=3).finite == expected < 200


class Sequential(Fails):
    """The same, of which a sample is said to take many passes."""

    own_kind = MapKind(inverse="numeric", inverse_passes=784, tolerance=1e-3)

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self.sizes.append(len(z))
        return super()._inverse(z, context)


def test_many_passes_are_shared_by_more_latents_and_these_are_the_same() -> None:
    slow = Sequential()
    found = count_finite(Flow(dims=2, bijector=slow), 630, seed=3).finite
    assert found == count_finite(Flow(dims=2, bijector=Fails()), 630, seed=3).finite < 630
    assert slow.sizes[0] == 500


def test_each_label_of_a_conditional_flow_has_its_share() -> None:
    top = ClassTop((1, 1, 1), 4)
    with torch.no_grad():
        top.class_log_scale[2] = 1e4  # a scale of infinity
    flow = Flow(image_shape=(1, 2, 2), bijector=Chain(top, Flatten((1, 2, 2))), classes=4)
    assert count_finite(flow, 100).finite == 76, "12 of each 50 have the label 2"


def test_an_augmented_flow_and_a_bounded_base_are_drawn_as_they_are() -> None:
    wide = Flow(dims=2, bijector=Fails(), augmentation=StandardAugmentation(3), base=StandardUniform())
    assert count_finite(wide, 100).finite == 100
    assert count_finite(wide, 100, temperature=0.5).finite == 100
