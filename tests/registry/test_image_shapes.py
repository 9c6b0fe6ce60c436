"""No architecture builds a flow over images that cannot exist, whatever its own config checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowzoo.errors import ConfigError
from flowzoo.factory import create
from tests.plugin_factory import good

SHAPES = [(3, -8, 8), (-3, -8, 8), (3, 0, 8), (0, 8, 8), (3, 8, 0), (3, 2**20, 2**20), (3, 8, 10**30)]
WRONG: list[dict[str, Any]] = [
    *({"image_shape": shape} for shape in SHAPES), {"n_bits": 0}, {"n_bits": 9}, {"n_bits": -1}
]  # fmt: skip


@pytest.mark.parametrize("change", WRONG, ids=str)
@pytest.mark.parametrize("name", ["glow-tiny", "nice-tiny", "realnvp-tiny", "flowpp-tiny"])
def test_a_first_party_flow_of_no_images_is_refused(name: str, change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"image_shape|n_bits|halved"):
        create(name, device="meta", **change)


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_a_third_partys_is_too(install: Callable[..., None], change: dict[str, Any]) -> None:
    install(good("waves"))
    with pytest.raises(ConfigError, match=r"image_shape|n_bits"):
        create("waves-tiny", device="meta", **change)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_a_number_that_is_not_finite_is_no_config(value: float) -> None:
    with pytest.raises(ConfigError, match="finite"):
        create("nice-tiny", init_range=value)


def test_a_value_too_large_to_be_shown_is_not_shown() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ConfigError, match="too large to be shown"):
        create("nice-tiny", couplings=nested)
    with pytest.raises(ConfigError) as caught:
        create("nice-tiny", couplings="x" * 10**6)
    assert len(str(caught.value)) < 300
