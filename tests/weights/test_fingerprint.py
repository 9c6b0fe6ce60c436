"""Fingerprints: the same images and figures everywhere, and another figure for anything that changed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flowzoo.errors import InputError, IntegrityError
from flowzoo.factory import create, preset_names
from flowzoo.flow import Flow
from flowzoo.manifest.schema import Fingerprint
from flowzoo.weights.fingerprint import (
    Comparison,
    compare,
    fingerprint_figures,
    fingerprint_images,
    take_fingerprint,
)
from tests.probe import Probe, trained


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Probe]:
    with Probe.installed(tmp_path / "site", monkeypatch) as probe:
        yield probe


@pytest.fixture
def flow(probe: Probe) -> Flow:
    return trained()


@pytest.mark.parametrize(
    ("shape", "digest"),
    [
        ((1, 8, 8), "960bb7ddeb3dd08a03544b62c27f643c9ed1c8b1cb956bfcf218551ab74951bd"),
        ((1, 28, 28), "3936f9b066a0a8c112cd4de2edfd7cac12fc1544d5d6beb3670c5145d9b24fc2"),
        ((3, 32, 32), "88194f68dfe9bea105caf908f55bbf865f587af2e27fd19ee77a450a7a34e399"),
        ((3, 64, 48), "91c7152d6728d6e53372446e335046649db5cfc641e26c8910509ccabfb06776"),
    ],
)
def test_the_images_are_these_bytes_for_good(shape: tuple[int, int, int], digest: str) -> None:
    images = fingerprint_images(shape)
    assert images.shape == (4, *shape)
    assert images.dtype == torch.uint8
    assert hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest() == digest
    assert all(image.unique().numel() > 1 for image in images)


@pytest.mark.parametrize("name", [name for name in preset_names() if name.endswith("-tiny")])
def test_a_fingerprint_is_a_function_of_the_weights_alone(name: str) -> None:
    torch.manual_seed(0)
    flow = create(name)
    flow.initialize(torch.randint(0, 256, (64, *flow.image_shape), dtype=torch.uint8))
    first = fingerprint_figures(flow.train())
    torch.manual_seed(1)
    assert fingerprint_figures(flow.eval()) == first
    assert {parameter.dtype for parameter in flow.parameters()} == {torch.float32}
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    assert not compare(flow, Fingerprint(bpd=first, tolerance=1e-5)).verified


def test_float64_and_float32_flows_have_one_fingerprint(flow: Flow) -> None:
    first = fingerprint_figures(flow)
    assert fingerprint_figures(flow.to(torch.float64)) == first


def test_the_tolerance_decides(flow: Flow) -> None:
    taken = take_fingerprint(flow)
    assert compare(flow, taken).verified
    near = tuple(value + 2e-5 for value in taken.bpd)
    shifted = dataclasses.replace(taken, bpd=(near[0], near[1], near[2], near[3]))
    assert not compare(flow, shifted).verified
    assert compare(flow, dataclasses.replace(shifted, tolerance=1e-4)).verified
    assert compare(flow, shifted).difference == pytest.approx(2e-5)


def test_of_large_figures_as_many_digits_have_to_agree() -> None:
    small, large = (1.0, 2.0, 3.0, 4.0), (1.0, 2.0, 3.0, 5e6)
    assert Comparison(small, (1.0, 2.0, 3.0, 4.00002), 1e-5).difference == pytest.approx(2e-5)
    assert Comparison(large, (1.0, 2.0, 3.0, 5e6 + 0.04), 1e-5).verified
    assert not Comparison(large, (1.0, 2.0, 3.0, 5e6 + 0.06), 1e-5).verified
    assert not Comparison(large, (1.0, 2.0, 3.00002, 5e6), 1e-5).verified


def test_a_flow_that_has_seen_no_data_has_none(probe: Probe) -> None:
    with pytest.raises(InputError, match="has seen no data"):
        take_fingerprint(create("probe-tiny"))


def test_a_figure_that_is_no_number_is_refused(flow: Flow) -> None:
    with torch.no_grad():
        next(flow.parameters()).fill_(float("nan"))
    with pytest.raises(IntegrityError, match="expected four finite figures"):
        take_fingerprint(flow)
