"""Arguments of the wrong type at flowzoo's front door: each is an InputError that says what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import flowzoo
from flowzoo.bijectors import InvertibleConv1x1
from flowzoo.errors import InputError


@pytest.mark.parametrize("name", [Path("glow-tiny"), None, 3, b"glow-tiny"])
def test_a_name_is_a_text(name: Any) -> None:
    for call in (flowzoo.create, flowzoo.load, flowzoo.evaluate):
        with pytest.raises(InputError, match=r"expected (a text|its name|a flow, or the name)"):
            call(name)


def test_a_flow_in_memory_is_measured_on_data() -> None:
    with pytest.raises(InputError, match="a flow and no data"):
        flowzoo.evaluate(flowzoo.create("glow-tiny"))


@pytest.mark.parametrize("dtype", ["float64", torch.int32, 64])
def test_a_dtype_is_a_floating_type_of_torch(dtype: Any) -> None:
    with pytest.raises(InputError, match=r"floating type such as torch\.float64"):
        flowzoo.create("glow-tiny", dtype=dtype)


@pytest.mark.parametrize("place", [3, "a\0b"])
def test_a_place_is_a_path(place: Any) -> None:
    with pytest.raises(InputError, match="is no path"):
        flowzoo.load("nice-mnist", cache_dir=place)


def test_a_reference_to_no_path_is_refused() -> None:
    with pytest.raises(InputError, match="is no path"):
        flowzoo.load("path:a\0b")


@pytest.mark.parametrize("argument", ["samples", "probes"])
def test_more_draws_than_could_ever_end_are_refused(argument: str) -> None:
    with pytest.raises(InputError, match=f"{argument} is more than 1000000"):
        flowzoo.evaluate("nice-mnist", limit=1, **{argument: 10**26})
    flow = flowzoo.create("glow-tiny").eval()
    with pytest.raises(InputError, match="samples is more than"):
        flow.bits_per_dim(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), samples=10**26)


@pytest.mark.parametrize("classes", [0, 3])
def test_a_flow_without_an_inverse_has_no_bits(classes: int) -> None:
    flow = flowzoo.create("glow-tiny", classes=classes)
    images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
    flow.initialize(images, *([torch.arange(64) % classes] if classes else []))
    flow.eval()
    with torch.no_grad():
        for module in flow.modules():
            if isinstance(module, InvertibleConv1x1):
                module.weight.zero_()
    with pytest.raises(InputError, match=r"log-determinant of this flow is -inf at row 0: .* singular"):
        flow.bits_per_dim(images[:2])


def test_an_item_beyond_all_others_is_unlikely_and_no_error() -> None:
    flow = flowzoo.create("maf-moons").eval()
    flow.initialize(torch.randn(64, 2))
    with torch.no_grad():
        assert flow.log_prob(torch.full((1, 2), 1e30)) == -torch.inf
