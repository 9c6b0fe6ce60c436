"""Images on their way from noise: the layers backwards, each step arranged as pixels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor

import flowzoo
from flowzoo.analysis.generation import _arranged, _backwards, generation_steps
from flowzoo.bijectors import Chain, FactorOut, FixedAffine, Flatten, Inverse, Patches, Squeeze
from flowzoo.cli.picture import picture
from flowzoo.errors import InputError
from flowzoo.flow import Flow
from flowzoo.testing import random_images, randomize

SHAPE = (1, 8, 8)
ARCHITECTURES = ("ffjord", "flowpp", "fvae", "glow", "idf", "jet", "nice", "realnvp", "residual", "tarflow")


def several_scales(*scales: float) -> Chain:
    """A multi-scale stack whose only changes of values are by these factors, forwards."""
    one, two, three = (FixedAffine(scale=scale) for scale in scales)
    inner = Chain(two, Squeeze(), three, Flatten((8, 2, 2)))
    flatten = Flatten(SHAPE)
    return Chain(flatten, Inverse(flatten), one, Squeeze("checkerboard"), FactorOut(inner))


def trained(architecture: str) -> Flow:
    flow = flowzoo.create(f"{architecture}-tiny")
    flow.initialize(random_images(flow, 64, seed=0))
    return randomize(flow.eval(), seed=1, scale=0.03)


def decoded(flow: Flow, n: int, seed: int, temperature: float = 1.0) -> Tensor:
    """Images of the latents that ``generation_steps`` draws."""
    generator = torch.Generator().manual_seed(seed)
    z = flow.base.sample(
        n, flow.latent_dims, generator=generator, device=torch.device("cpu"), dtype=torch.float32
    )
    return flow.decode(flow.base.at_temperature(z, temperature))


def test_values_lie_at_the_pixels_that_they_become() -> None:
    z = torch.randn(3, 64)
    same = several_scales(1.0, 1.0, 1.0)
    x, _ = same.inverse(z)
    assert torch.equal(_arranged(same, z), x)
    assert all(torch.equal(step, x) for _, step in _backwards(same, z, None))
    patches = Chain(Patches(SHAPE, 4), Flatten((4, 16)))
    assert torch.equal(_arranged(patches, z), patches.inverse(z)[0])


def test_each_step_has_the_layers_behind_it_and_no_others() -> None:
    z = torch.randn(3, 64)
    x, _ = several_scales(1.0, 1.0, 1.0).inverse(z)
    bijector = several_scales(1 / 2, 1 / 3, 1 / 5)
    steps = [step for layer, step in _backwards(bijector, z, None) if isinstance(layer, FixedAffine)]
    inside = several_scales(1.0, 1 / 3, 1.0).inverse(z)[0] / x  # 3 where the inner levels lie, 1 elsewhere
    assert set(inside.round().unique().tolist()) == {1.0, 3.0}
    inner = inside.round() == 3
    for step, factors in zip(steps, ((5, 1), (15, 1), (30, 2)), strict=True):
        torch.testing.assert_close(step, x * torch.where(inner, *map(float, factors)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_last_step_is_the_images_of_the_latents(architecture: str) -> None:
    flow = trained(architecture).train()
    found = generation_steps(flow, 3, temperature=0.5, seed=4, steps=4)
    assert flow.training
    assert 2 <= len(found) <= 4
    assert (found[0].layers, found[0].name) == (0, "noise")
    assert [step.layers for step in found] == sorted({step.layers for step in found})
    assert all(step.images.shape == (3, *flow.image_shape) for step in found)
    assert torch.equal(found[-1].images, decoded(flow.eval(), 3, seed=4, temperature=0.5))
    assert not torch.equal(found[0].images, generation_steps(flow, 3, temperature=0.5, seed=5)[0].images)


def test_every_layer_that_changes_values_is_a_step_and_no_other() -> None:
    flow = Flow(
        image_shape=SHAPE, bijector=Chain(Inverse(FixedAffine(scale=2.0)), several_scales(2.0, 3.0, 5.0))
    )
    names = [step.name for step in generation_steps(flow, 2, steps=100)]
    assert names == ["noise", "FixedAffine", "FixedAffine", "FixedAffine", "Inverse"]


def test_what_has_no_such_picture_is_refused() -> None:
    with pytest.raises(InputError, match="needs a model of images"):
        generation_steps(flowzoo.create("maf-moons"), 2)
    with pytest.raises(InputError, match="at least 2"):
        generation_steps(trained("nice"), 2, steps=1)
    labelled = flowzoo.create("glow-tiny", classes=3)
    labelled.initialize(random_images(labelled, 64, seed=0), torch.arange(64) % 3)
    with pytest.raises(InputError, match="by label"):
        generation_steps(labelled, 2)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(picture, list(arguments), standalone_mode=False)


def test_the_command_draws_a_model_of_images_from_noise(tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    result = run("nice-cdf-mnist", "-o", str(out), "--device", "cpu", "--json", "--temperature", "0.6")
    row = json.loads(result.stdout)
    assert (row["name"], row["temperature"], row["images"]) == ("nice-cdf-mnist", 0.6, 6)
    assert row["steps"][0] == {"layers": 0, "name": "noise"}
    assert row["steps"][-1]["name"] == "CountedHistogramCDF"
    with Image.open(out) as drawn:
        assert drawn.text == {"model": "nice-cdf-mnist", "temperature": "0.6", "seed": "0"}  # type: ignore[attr-defined]
        across, down = len(row["steps"]), row["images"]
        assert drawn.width > 28 * across
        assert drawn.height > 28 * down


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nice-mnist", "--split", "test"), "--split is of models of vectors; nice-mnist is one of images"),
        (("maf-moons", "--temperature", "1"), "--temperature is of models of images"),
    ],
)
def test_options_of_the_other_kind_of_model_are_refused(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    result = run(*arguments, "-o", str(tmp_path / "a.png"))
    assert words in str(result.exception)
    assert not (tmp_path / "a.png").exists()
