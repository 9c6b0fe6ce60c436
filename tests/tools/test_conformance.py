"""The page of conformance: cells, what a second run keeps, and the counts of parameters with their explanations."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowzoo.manifest.read import Manifest
from flowzoo.manifest.write import read_manifest
from flowzoo.registry import get_architecture
from flowzoo.testing import CHECKS, CheckResult, NotAsked
from tools import conformance
from tools.conformance import ARCHITECTURES, OF_ENGINE, OF_POINTS, PAGE, PLANE, Case, kept, page, state

ROOT = Path(__file__).parents[2]
FIRST, SECOND = list(CHECKS)[:2]


def test_a_cell_says_whether_a_check_passed_failed_or_was_not_asked() -> None:
    assert state(CheckResult(FIRST, True, "error 1e-9")) == "yes"
    assert state(CheckResult(FIRST, True, NotAsked("of vectors"))) == "-"
    assert state(CheckResult(FIRST, False, "AssertionError: off")) == "**wrong**"


def test_what_is_not_run_again_stays_as_it_was() -> None:
    states = {
        Case(FIRST, "glow", True): "yes",
        Case(FIRST, "glow", False): "**wrong**",
        Case(FIRST, "maf", True): "-",
        Case(FIRST, "maf", False): "-",
        Case(SECOND, "nice", True): "yes",
        Case(SECOND, "nice", False): "-",
    }
    details = {Case(FIRST, "glow", False): "it is `off`\nby 2"}
    text = page(states, details)  # type: ignore[arg-type]
    assert "3 of 4" not in text and "2 of 3 pass" in text
    again, wrong = kept(text, set())
    assert again == states
    assert wrong == {Case(FIRST, "glow", False): "it is off by 2"}
    again, wrong = kept(text, {"glow"})
    assert {case.architecture for case in again} == {"maf", "nice"} and wrong == {}
    assert kept("", set()) == ({}, {})


def test_the_page_has_every_check_of_every_architecture_and_nothing_is_wrong() -> None:
    states, wrong = kept(PAGE.read_text(encoding="utf-8"), set())
    every = {
        Case(check, name, engine) for check in CHECKS for name in ARCHITECTURES for engine in (True, False)
    }
    assert states.keys() == every, "run: python -m tools.conformance"
    assert wrong == {}
    assert all(
        states[Case(OF_POINTS, name, True)] == ("yes" if name in PLANE else "-") for name in ARCHITECTURES
    )


def test_results_are_of_the_engine_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[str, bool]] = []

    def kit(architecture: str, *, engine: bool) -> list[CheckResult]:
        found.append((architecture, engine))
        return [CheckResult(FIRST, True, "plain"), CheckResult(OF_ENGINE, True, "fused")]

    monkeypatch.setattr(conformance, "run_conformance", kit)
    on, off = (conformance.results("glow", engine=engine) for engine in (True, False))
    assert found == [("glow", True), ("glow", False)]
    assert [state(result) for result in on] == ["yes", "yes"]
    assert [state(result) for result in off] == ["yes", "-"], "off, both are plain and nothing is compared"


def test_counts_say_how_far_they_are_from_the_published_ones() -> None:
    manifest = read_manifest(ROOT / "weights_manifest.json")
    table = conformance.counts(manifest, ("flowpp", "realnvp", "jet"), get_architecture)
    rows = {
        line.split("`")[1]: [cell.strip() for cell in line.split("|")]
        for line in table.splitlines()
        if "`" in line
    }
    assert rows["flowpp-cifar10"][2:5] == ["31,443,440", "31,443,440", "0"]
    assert rows["realnvp-cifar10"][2:5] == ["6,369,778", "6,400,000", "-30,222"]
    assert rows["jet-imagenet64"][3:5] == ["not published", "-"]
    assert "flowpp-mnist" not in rows, "nobody published anything of it"
    assert "`" not in conformance.counts(Manifest(), ("flowpp",), get_architecture)


def test_every_difference_is_explained_to_the_last_parameter() -> None:
    manifest = read_manifest(ROOT / "weights_manifest.json")
    for name in ARCHITECTURES:
        for preset, described in get_architecture(name).presets.items():
            entry = manifest.default(f"{name}-{preset}")
            if described.parameters is None or entry is None:
                continue
            assert described.parameters_note, f"{entry.name}: where is its count published?"
            same = entry.num_params == described.parameters
            assert same or f"{entry.num_params:,}" in described.parameters_note, entry.name


def test_a_plane_is_of_a_model_of_points() -> None:
    takes = {
        entry.architecture
        for entry in read_manifest(ROOT / "weights_manifest.json").entries
        if "dims" in entry.config
    }
    assert takes == PLANE.keys(), "density integrates is asked of each architecture that can be asked"
