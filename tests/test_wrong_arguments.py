"""Arguments of the wrong type at flowzoo's front door: each is an InputError that says what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import flowzoo
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
