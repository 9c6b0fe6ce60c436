"""Ways, directions and levels in the latent space of flows with random parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from flowzoo.analysis.directions import (
    Direction,
    find_direction,
    load_direction,
    manipulate,
    model_hash,
    save_direction,
)
from flowzoo.analysis.interpolation import Way, between, interpolate
from flowzoo.analysis.levels import latent_levels, reconstruct_levels
from flowzoo.bijectors import Chain, FactorOut, Flatten, Squeeze
from flowzoo.errors import InputError, IntegrityError
from flowzoo.factory import create
from flowzoo.flow import Flow
from flowzoo.testing.randomize import random_images, randomize

NAMES = ("nice-tiny", "realnvp-tiny", "glow-tiny", "flowpp-tiny")


def model(name: str, seed: int = 0) -> Flow:
    """A flow with random parameters near its beginning, in double precision."""
    torch.manual_seed(seed)
    return randomize(create(name), seed, scale=0.02).double().eval()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", ["linear", "spherical"])
def test_a_way_leads_from_one_image_to_the_other(name: str, way: Way) -> None:
    flow = model(name)
    x = random_images(flow, 4, seed=1)
    done: list[int] = []
    found = interpolate(flow, x[:2], x[2:], steps=5, way=way, batch_size=3, advance=done.append)
    assert found.shape == (2, 5, *flow.image_shape)
    assert torch.equal(found[:, 0], x[:2])
    assert torch.equal(found[:, -1], x[2:])
    assert sum(done) == 4 + 10
    assert not torch.equal(found[:, 2], x[:2])


def test_a_spherical_way_keeps_the_length_and_turns_evenly() -> None:
    a = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a = a / a.norm(dim=1, keepdim=True) * 7
    points = between(a[0], a[1], 9)
    torch.testing.assert_close(points.norm(dim=1), torch.full((9,), 7.0, dtype=torch.float64))
    steps = (points[1:] * points[:-1]).sum(1) / 49
    torch.testing.assert_close(steps, steps[:1].expand(8))
    assert between(a[0], a[1], 9, "linear").norm(dim=1)[4] < 6
    torch.testing.assert_close(between(a[0], a[1], 3, "linear")[1], a.mean(dim=0))


def test_a_way_through_the_centre_is_straight() -> None:
    a = torch.tensor([1.0, 2.0])
    torch.testing.assert_close(between(a, -a, 3)[1], torch.zeros(2))
    torch.testing.assert_close(between(torch.zeros(2), a, 3)[1], a / 2)
    centred = between(a + 0.5, 0.5 - a, 3, centre=0.5)
    torch.testing.assert_close(centred[1], torch.full((2,), 0.5))


def test_ways_need_two_ends() -> None:
    flow = model("nice-tiny")
    x = random_images(flow, 3, seed=0)
    with pytest.raises(InputError, match="expected as many"):
        interpolate(flow, x[:1], x[1:])
    with pytest.raises(InputError, match="at least 2"):
        interpolate(flow, x[:1], x[:1], steps=1)


# --- directions ---------------------------------------------------------------------------------------------


def test_one_step_leads_from_the_mean_without_to_the_mean_with(tmp_path: Path) -> None:
    flow = model("glow-tiny")
    x = random_images(flow, 6, seed=3)
    found = find_direction(flow, x[:3], x[3:], name="bright")
    z = flow.encode(x)
    torch.testing.assert_close(z[3:].mean(0) + found.vector, z[:3].mean(0), rtol=1e-5, atol=1e-5)
    save_direction(found, tmp_path / "bright.safetensors")
    again = load_direction(tmp_path / "bright.safetensors")
    assert (again.name, again.model) == ("bright", model_hash(flow))
    moved = manipulate(flow, x[:2], again, (-0.1, 0.0, 0.1))
    assert torch.equal(moved[:, 1], x[:2])
    expected = flow.decode(z[:2] + 0.1 * found.vector)
    assert torch.equal(moved[:, 2], expected)


def test_one_image_moved_by_its_whole_direction_becomes_the_other() -> None:
    flow = model("realnvp-tiny")
    x = random_images(flow, 2, seed=4)
    found = find_direction(flow, x[:1], x[1:])
    moved = manipulate(flow, x[1:], found, (1.0,))[0].int()
    assert (moved - x[:1].int()).abs().max() <= 1  # the direction is kept in single precision


def test_the_hash_is_of_every_weight() -> None:
    flow = model("nice-tiny")
    before = model_hash(flow)
    assert before == model_hash(model("nice-tiny"))
    with torch.no_grad():
        next(reversed(list(flow.parameters()))).view(-1)[0] += 1e-9
    assert model_hash(flow) != before


def test_a_direction_of_another_model_is_refused() -> None:
    flow = model("nice-tiny")
    x = random_images(flow, 4, seed=5)
    found = find_direction(model("nice-tiny", seed=1), x[:2], x[2:])
    with pytest.raises(InputError, match="another model"):
        manipulate(flow, x, found, (1.0,))


def test_two_equal_sets_have_no_direction() -> None:
    flow = model("nice-tiny")
    x = random_images(flow, 2, seed=6)
    with pytest.raises(InputError, match="same mean"):
        find_direction(flow, x, x)


@pytest.mark.parametrize("content", ["absent", "text", "weights"])
def test_what_is_no_direction_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "d.safetensors"
    if content == "text":
        path.write_text("hello")
    if content == "weights":
        save_file({"direction": torch.zeros(4)}, path)
    with pytest.raises((InputError, IntegrityError), match=r"direction|safetensors"):
        load_direction(path)


# --- levels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count"), [("glow-tiny", 2), ("realnvp-tiny", 2), ("nice-tiny", 1)])
def test_levels_are_the_whole_latent_once(name: str, count: int) -> None:
    flow = model(name)
    levels = latent_levels(flow)
    assert len(levels) == count
    covered = [i for level in levels for i in range(level.start, level.stop)]
    assert covered == list(range(flow.latent_dims))


def nested() -> Flow:
    """Three levels without parameters: each value of the latent is one of the image."""
    inner = Chain(Squeeze(), FactorOut(Flatten((4, 2, 2))))
    return Flow(image_shape=(1, 8, 8), bijector=Chain(Squeeze(), FactorOut(inner)))


def test_a_level_is_what_left_at_its_factor_out() -> None:
    flow = nested()
    assert [level.stop - level.start for level in latent_levels(flow)] == [16, 16, 32]
    x = torch.randint(1, 256, (1, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    out = flow.bijector.bijectors[0](x.float())[0][:, 2:]  # type: ignore[index,operator]
    assert torch.equal(flow.encode(x)[:, 32:].mul(256).sub(0.5).flatten(), out.flatten())


def test_all_levels_are_the_image_and_each_column_replaces_its_own() -> None:
    flow = model("glow-tiny")
    x = random_images(flow, 3, seed=7)
    found = reconstruct_levels(flow, x, temperature=0.3, seed=1)
    assert torch.equal(found.upto[:, -1], x)
    assert torch.equal(found.upto[:, 0], found.without[:, 1])
    z, kept = flow.encode(x), flow.encode(found.without[:, 0])
    assert found.sizes == (96, 96)
    assert (found.error > 0).all()
    assert found.without.shape == (3, 2, *flow.image_shape)
    assert not torch.allclose(z[:, :96], kept[:, :96], atol=0.5)
    again = reconstruct_levels(flow, x, temperature=0.3, seed=1, batch_size=2)
    assert torch.equal(found.without, again.without)


def test_a_flat_latent_has_no_levels() -> None:
    flow = model("nice-tiny")
    with pytest.raises(InputError, match="single level"):
        reconstruct_levels(flow, random_images(flow, 1, seed=0))


def test_vectors_are_no_images() -> None:
    flow = Flow(dims=2, bijector=Flatten((2,)))
    for work in (
        lambda x: interpolate(flow, x, x),
        lambda x: find_direction(flow, x, x),
        lambda x: manipulate(flow, x, Direction(torch.zeros(2), ""), (1.0,)),
        lambda x: reconstruct_levels(flow, x),
    ):
        with pytest.raises(InputError, match="needs a model of images"):
            _: Tensor | None = work(torch.zeros(1, 2))  # type: ignore[assignment,operator]
