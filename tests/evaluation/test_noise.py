"""Keyed noise: a function of its key, of the right distribution, the same bits everywhere."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch

from flowzoo.evaluation.noise import derive_seed, keyed_generator, keyed_noise, training_noise

FIRST = [4505603, 3053766, 9277248]
BITS = "ab0b0a4ab0a7044f3bff2715d5007119620555987437ac2f14bfa63b4f3e16d8"


def test_noise_is_a_function_of_seed_image_and_sample() -> None:
    joint = keyed_noise("uniform", (1, 4, 4), 7, range(10), 2)
    single = torch.cat([keyed_noise("uniform", (1, 4, 4), 7, [i], 2) for i in range(10)])
    assert torch.equal(joint, single)
    assert torch.equal(keyed_noise("uniform", (1, 4, 4), 7, [3, 9], 2), joint[[3, 9]])


@pytest.mark.parametrize("other", [(8, [3], 2), (7, [4], 2), (7, [3], 1)])
def test_every_part_of_the_key_matters(other: tuple[int, list[int], int]) -> None:
    one = keyed_noise("uniform", (100,), 7, [3], 2)
    two = keyed_noise("uniform", (100,), *other)
    assert (one == two).float().mean() < 0.05


def test_streams_of_neighbouring_keys_do_not_overlap() -> None:
    values = keyed_noise("uniform", (500,), 0, range(40), 0, dtype=torch.float64).flatten()
    values = torch.cat(
        [values, keyed_noise("uniform", (500,), 0, range(40), 1, dtype=torch.float64).flatten()]
    )
    assert values.unique().numel() > 0.995 * values.numel()


def test_uniform_noise_is_uniform_and_below_one_in_float32() -> None:
    values = keyed_noise("uniform", (3, 32, 32), 0, range(200), 0)
    assert values.dtype == torch.float32
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.double().mean() - 0.5) < 0.002
    assert abs(values.double().var() - 1 / 12) < 0.001
    assert torch.equal(
        values.double(), keyed_noise("uniform", (3, 32, 32), 0, range(200), 0, dtype=torch.float64)
    )


def test_normal_noise_is_normal() -> None:
    values = keyed_noise("normal", (3, 32, 32), 0, range(200), 0, dtype=torch.float64).flatten()
    assert values.isfinite().all()
    assert abs(values.mean()) < 0.005
    assert abs(values.var() - 1) < 0.01
    assert abs((values.abs() < 1).double().mean() - math.erf(math.sqrt(0.5))) < 0.003
    assert abs((values**4).mean() - 3) < 0.1


def test_the_bits_are_these_for_good() -> None:
    """Measured figures rest on these bits: a change here takes every one of them back."""
    values = keyed_noise("uniform", (64,), 5, [1, 2**40], 3, dtype=torch.float64)
    bits = (values * 2**24).to(torch.int64)
    assert hashlib.sha256(bits.numpy().astype("<i8").tobytes()).hexdigest() == BITS
    assert bits[0, :3].tolist() == FIRST


def test_no_images_make_no_noise() -> None:
    assert keyed_noise("normal", (1, 2, 2), 0, [], 0).shape == (0, 1, 2, 2)


def test_training_noise_is_keyed_by_step() -> None:
    one = training_noise("uniform", (4, 1, 8, 8), 0, 5, "cpu")
    torch.manual_seed(3)
    assert torch.equal(one, training_noise("uniform", (4, 1, 8, 8), 0, 5, "cpu"))
    assert not torch.equal(one, training_noise("uniform", (4, 1, 8, 8), 0, 6, "cpu"))
    assert training_noise("normal", (4, 1, 8, 8), 0, 5, "cpu").min() < 0


def test_seeds_are_derived_from_whole_keys() -> None:
    seeds = {derive_seed(*key) for key in [(1, 2), (12,), (1, "2", ""), (1, 3), (2, 1), ("1/2",)]}
    assert len(seeds) >= 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    draws = [torch.rand(3, generator=keyed_generator("cpu", 1, "a")) for _ in range(2)]
    assert torch.equal(draws[0], draws[1])
