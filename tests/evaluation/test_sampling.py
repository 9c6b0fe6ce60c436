"""The shipping gate: every one of 10,000 samples is finite, or the model stays where it is."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import flowzoo
from flowzoo.bijectors import Bijector
from flowzoo.errors import IntegrityError, ManifestError
from flowzoo.evaluation.sampling import check_shippable, count_finite
from flowzoo.flow import Flow
from flowzoo.manifest.read import Manifest, dump, parse
from flowzoo.manifest.schema import Sampling
from tests.manifest_examples import example_entry, manifest_text

GOOD = Sampling(drawn=10_000, finite=10_000, temperature=1.0, seed=0)


class LosesTails(Bijector):
    """The identity on vectors, whose inverse divides by nothing where a latent's first value exceeds 2."""

    def _forward(self, x: torch.Tensor, context: object = None) -> tuple[torch.Tensor, torch.Tensor]:
        return x.flatten(1), x.new_zeros(len(x))

    def _inverse(self, z: torch.Tensor, context: object = None) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.where(z[:, :1] > 2, z / 0.0, z)
        return y.reshape(len(z), 1, 2, 2), z.new_zeros(len(z))


def test_rows_that_are_not_finite_are_counted() -> None:
    flow = Flow(image_shape=(1, 2, 2), bijector=LosesTails())
    z = torch.cat(
        [
            torch.randn(50, 4, generator=generator)
            for generator in [torch.Generator().manual_seed(3)]
            for _ in range(20)
        ]
    )
    expected = int((z[:, 0] <= 2).sum())
    assert count_finite(flow, 1000, seed=3).finite == expected < 1000
    assert count_finite(flow, 1000, seed=3, temperature=0.1).finite == 1000


def test_the_count_leaves_the_flow_as_it_is_and_is_the_same_again() -> None:
    flow = flowzoo.load("nice-mnist").train()
    state = torch.random.get_rng_state()
    first, second = count_finite(flow, 120), count_finite(flow, 120)
    assert first == second == Sampling(drawn=120, finite=120, temperature=1.0, seed=0)
    assert flow.training
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "sampling",
    [
        None,
        dataclasses.replace(GOOD, finite=9_999),
        dataclasses.replace(GOOD, drawn=100, finite=100),
        dataclasses.replace(GOOD, temperature=0.7),
    ],
)
def test_what_is_not_shown_to_sample_does_not_ship(sampling: Sampling | None) -> None:
    check_shippable("x", GOOD)
    with pytest.raises(IntegrityError, match="x"):
        check_shippable("x", sampling)


def test_an_entry_without_the_count_stays_valid_and_one_with_it_reads_back() -> None:
    text = manifest_text(example_entry())
    manifest = parse(text, "x")
    assert manifest.entries[0].sampling is None
    entry = dataclasses.replace(manifest.entries[0], sampling=GOOD, recommended_temperature=0.7)
    assert parse(dump(Manifest(entries=(entry,))), "x").entries == (entry,)
    impossible = dataclasses.replace(entry, sampling=dataclasses.replace(GOOD, finite=10_001))
    with pytest.raises(ManifestError, match="10001 of"):
        parse(dump(Manifest(entries=(impossible,))), "x")


def test_every_sample_of_every_model_that_has_weights_is_finite() -> None:
    from flowzoo.manifest.read import load_manifests

    for entry in load_manifests().entries:
        if entry.weights is not None:
            assert entry.sampling is not None, f"run: python -m tools.complete {entry.name}"
            check_shippable(entry.key, entry.sampling)
            assert entry.recommended_temperature is not None
