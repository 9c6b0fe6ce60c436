"""The page of aims: figures come from the manifest, and whoever falls short is explained."""

from __future__ import annotations

import dataclasses

import click
import pytest

from flowzoo.manifest.read import Entry, Manifest, parse
from tools.aims import AIMS, PAGE, ROOT, Aim, expected, outcomes, page, read_aims

MANIFEST = parse((ROOT / "weights_manifest.json").read_text(encoding="utf-8"), "weights_manifest.json")


def model(name: str) -> Entry:
    entry = MANIFEST.default(name)
    assert entry is not None
    return entry


def test_the_page_is_what_its_sources_make() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == expected(ROOT), "run: make docs"


def test_every_model_with_weights_stands_on_it() -> None:
    named = {aim.model for aim in read_aims((ROOT / AIMS).read_text(encoding="utf-8"))}
    trained = {name for name in MANIFEST.names() if model(name).weights is not None}
    assert trained <= named


def test_an_aim_is_met_by_the_figure_of_one_sample_not_by_that_of_eight() -> None:
    entry = model("glow-mnist")
    assert entry.measured is not None and entry.one_sample_bpd is not None
    between = (entry.measured.value + entry.one_sample_bpd) / 2
    assert entry.measured.value < between < entry.one_sample_bpd
    found = outcomes([Aim(model="glow-mnist", aim=between, left="An hour.")], MANIFEST, {})
    assert found[0].met is False
    text = page(found, {"glow-mnist-curve.png"})
    assert "**no**" in text and "An hour." in text and "(images/glow-mnist-curve.png)" in text
    reached = outcomes([Aim(model="glow-mnist", aim=round(entry.one_sample_bpd, 4))], MANIFEST, {})
    assert reached[0].met is True
    assert "fell short" not in page(reached, set())


def test_points_are_judged_by_their_divergence() -> None:
    aims = [Aim(model="maf-moons", aim=0.02, figure="divergence", left="A minute.")]
    assert [outcomes(aims, MANIFEST, {"maf-moons": value})[0].met for value in (0.0199, 0.0201)] == [
        True,
        False,
    ]
    assert outcomes(aims, MANIFEST, {})[0].met is False, "without its picture nothing is known"


def test_without_weights_there_is_no_figure_and_no_curve() -> None:
    bare = dataclasses.replace(
        model("glow-mnist"), weights=None, measured=None, training=None, one_sample_bpd=None
    )
    found = outcomes([Aim(model="glow-mnist", left="Four hours.")], Manifest(entries=(bare,)), {})
    text = page(found, {"glow-mnist-curve.png"})
    assert "| - | - | - | - |" in text and "Four hours." in text and "curve.png" not in text


@pytest.mark.parametrize(
    ("aim", "words"),
    [(Aim(model="no-such"), "no-such"), (Aim(model="glow-mnist", aim=0.5), "falls short")],
)
def test_what_cannot_be_said_is_refused(aim: Aim, words: str) -> None:
    with pytest.raises(click.ClickException, match=words):
        outcomes([aim], MANIFEST, {})


def test_fewer_hours_than_a_model_was_to_have_are_explained() -> None:
    entry = model("jet-mnist")
    assert entry.training is not None
    more = Aim(model="jet-mnist", hours=entry.training.hours + 1, left="An hour.")
    with pytest.raises(click.ClickException, match="jet-mnist falls short"):
        outcomes([dataclasses.replace(more, left="")], MANIFEST, {})
    text = page(outcomes([more], MANIFEST, {}), set())
    assert "An hour." in text and f" of {more.hours:g} |" in text
    enough = dataclasses.replace(more, hours=round(entry.training.hours, 1))
    assert "fell short" not in page(outcomes([enough], MANIFEST, {}), set())


def test_models_whose_recipes_are_not_known_are_named() -> None:
    text = expected(ROOT).partition("## Recipes that are not known")[2]
    assert {name for name in MANIFEST.names() if f"[`{name}`]" in text} == {
        entry.name
        for entry in MANIFEST.entries
        if entry.training is not None and not entry.training.recipe.endswith(".toml")
    } | {"glow-celeba64"}
