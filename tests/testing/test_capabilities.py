"""Every architecture is an ordinary torch module, with the engine on and off; compilers on the small models."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from flowzoo.testing import Subject
from flowzoo.testing.capabilities import CAPABILITIES, Outcome, check_capability
from tools.compatibility import ARCHITECTURES, Case, kept, page

FAST = [name for name, capability in CAPABILITIES.items() if not capability.slow]


OTHERS = [name for name in ARCHITECTURES if name != "glow"]

# All of them on all architectures, engine on and off, take a quarter of an hour: `python -m tools.compatibility`.
CASES = [(name, "glow") for name in FAST] + [(name, OTHERS[i % len(OTHERS)]) for i, name in enumerate(FAST)]


@pytest.mark.parametrize(("capability", "architecture"), CASES)
def test_a_flow_is_an_ordinary_module(capability: str, architecture: str) -> None:
    check_capability(architecture, capability, engine=True)


@pytest.mark.parametrize(
    ("capability", "architecture"),
    [
        ("empty batch", "fvae"),
        ("empty batch", "idf"),
        ("empty batch", "jet"),
        ("empty batch", "tarflow"),
        ("hooks of leaf modules", "idf"),
        ("prune", "idf"),
        ("weights changed before backward raise", "maf"),
        ("set_default_device", "maf"),
        ("forward mode (make_dual)", "ffjord"),
        ("func.jvp", "ffjord"),
        ("forward mode (make_dual)", "residual"),
        ("func.jvp", "residual"),
        ("prune", "residual"),
        ("weight_norm, legacy", "residual"),
        ("hooks of leaf modules", "residual"),
        ("averaged weights (AveragedModel)", "fvae"),
    ],
)
def test_plugins_with_layers_of_their_own_are_ordinary_modules(capability: str, architecture: str) -> None:
    check_capability(architecture, capability, engine=True)


# Inductor takes many seconds for each of the others; what differs between the models is before it, in the tracing, and
# is the same however often a kind of coupling is repeated: RealNVP's last two condition on either colour.
@pytest.mark.parametrize(
    ("model", "fewer"),
    [
        ("realnvp-tiny", {"checkerboard_couplings": 0, "channel_couplings": 1, "final_couplings": 2}),
        (
            "flowpp-tiny",
            {
                "groups": ("checkerboard:1", "squeeze", "channel:1", "columns:1"),
                "dequantization_groups": ("columns:1",),
            },
        ),
    ],
)
def test_the_other_models_are_traced_by_the_compiler(model: str, fewer: dict[str, Any]) -> None:
    flow = Subject.variant(model, **fewer).build(seed=1)
    CAPABILITIES["torch.compile (aot_eager)"].check(flow)


@pytest.mark.skipif(shutil.which("g++") is None, reason="on a CPU, torch.compile needs a C++ compiler")
@pytest.mark.parametrize(
    ("model", "fewer", "capability"),
    [
        ("nice-tiny", {"couplings": 2}, "torch.compile"),
        ("nice-tiny", {"couplings": 2}, "torch.compile, training"),
        ("glow-tiny", {"depth": 1}, "torch.compile"),
    ],
)
def test_the_small_models_compile(model: str, fewer: dict[str, Any], capability: str) -> None:
    CAPABILITIES[capability].check(Subject.variant(model, **fewer).build(seed=1))


@pytest.mark.parametrize(
    "capability", ["torch.export", "torch.export, dynamic batch", "jit.trace", "share_memory and spawn"]
)
def test_the_smallest_model_is_exported_traced_and_shared(capability: str) -> None:
    check_capability("nice", capability, engine=True)


def test_the_page_shows_what_is_wrong_and_what_was_not_tried() -> None:
    names = list(CAPABILITIES)
    outcomes = {
        Case(names[0], "glow", True): Outcome(names[0], True, "error 1e-9"),
        Case(names[1], "glow", True): Outcome(names[1], False, "AssertionError: off by 3"),
    }
    text = page(outcomes)
    assert "1 of 2 are as they should be" in text
    assert f"- {names[1]}, glow, engine on: `AssertionError: off by 3`" in text
    assert text.count("**wrong**") == 1
    assert "not tried" in text


def test_a_page_keeps_the_rows_that_are_not_tried_again() -> None:
    names = list(CAPABILITIES)
    outcomes = {
        Case(names[0], "glow", True): Outcome(names[0], True, ""),
        Case(names[1], "nice", False): Outcome(names[1], False, "AssertionError: off by 3"),
        Case(names[2], "flowpp", True): Outcome(names[2], True, "refused in one line"),
    }
    assert kept(page(outcomes), []) == outcomes
    again = Case(names[1], "nice", False)
    assert kept(page(outcomes), [again]) == {c: o for c, o in outcomes.items() if c != again}
