"""The README and the generated pages agree with the manifest and the code."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import click
import pytest

from flowzoo import errors
from flowzoo.api import Architecture, Citation, Preset, Published
from flowzoo.manifest.read import Data, Entry, Manifest, Measured, Training, Weights
from flowzoo.manifest.schema import SeveralSamples
from tools.cards import differences, render
from tools.families import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MARKERS = "<!-- models: x -->\n<!-- /models -->\n<!-- samples: x -->\n<!-- /samples -->\n"
PAPER = Citation(key="k", title="A Title", authors=("A B",), year=2018, venue="V", arxiv="1234.56789")


def entry(**changes: object) -> Entry:
    """A released model whose every figure is a number that occurs nowhere else."""
    fields: dict[str, object] = {
        "name": "glow-digits",
        "version": 3,
        "status": "released",
        "architecture": "glow",
        "config": {"image_shape": [1, 28, 28], "n_bits": 8, "depth": 7},
        "config_hash": "c" * 64,
        "num_params": 123456,
        "data": Data(id="digits", preprocessing="digits-28", split="test", num_images=9876, terms="CC BY"),
        "license": "Apache-2.0",
        "citations": ("k",),
        "weights": Weights(
            filename="glow-digits.safetensors", sha256="d" * 64, size=5_432_100, dtype="float32"
        ),
        "published": Published(bpd=1.05, dataset="digits test", source="Table 7", protocol="uniform"),
        "measured": Measured(
            bpd=1.23456,
            stderr=0.00789,
            dequantization="uniform",
            samples=1,
            seed=17,
            dtype="float32",
            num_images=9876,
            tolerance=0.0005,
            versions={"torch": "9.8.7"},
            command="flowzoo eval glow-digits",
            reconstruction_exact=9875,
        ),
        "training": Training(
            recipe="flowzoo_glow:recipes/digits.toml",
            command="flowzoo train glow-digits",
            steps=43210,
            hours=4.25,
            hardware="one core",
            seed=3,
            images=7_654_321,
        ),
    }
    return Entry(**(fields | changes))  # type: ignore[arg-type]


GLOW = Architecture(
    api_version=1,
    name="glow",
    summary="Steps of flow.",
    config="m:C",
    build="m:b",
    presets={
        "digits": Preset(summary="s", config={}, parameters=124_000, parameters_note="Table 8, rounded."),
    },
    citations=(PAPER,),
)


def rendered(*entries: Entry, pictures: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    return dict(render(Manifest(entries=entries), MARKERS, pictures, lambda _: GLOW))


def test_generated_pages_equal_the_manifest() -> None:
    assert differences(ROOT) == [], "run: make docs"


def test_a_card_holds_every_figure_of_its_entry() -> None:
    card = rendered(entry())["docs/models/glow-digits.md"]
    figures = (
        "123,456 1.2346 ± 0.0079 1.05 9,875 9,876 0.0005 17 9.8.7 43,210 4.2 d" + "d" * 63
    ).split()  # fmt: skip
    assert [figure for figure in figures if figure not in card] == []
    for text in (
        "124,000 parameters. Table 8, rounded.",
        "7,654,321",
        "Table 7",
        "CC BY",
        "A Title",
        "https://arxiv.org/abs/1234.56789",
        '"depth": 7',
        "+0.1846",
    ):
        assert text in card


def test_versions_that_nobody_wrote_down_are_said_to_be_missing() -> None:
    found = entry().training
    assert found is not None
    assert "| versions | not recorded |" in rendered(entry())["docs/models/glow-digits.md"]
    recorded = dataclasses.replace(found, versions={"torch": "9.9"})
    assert "| versions | torch 9.9 |" in rendered(entry(training=recorded))["docs/models/glow-digits.md"]


def test_a_bound_is_marked_as_one() -> None:
    found = entry().measured
    assert found is not None
    fields = {name: getattr(found, name) for name in found.__slots__} | {"dequantization": "variational"}
    assert "≤ 1.2346" in rendered(entry(measured=Measured(**fields)))["README.md"]
    assert "≤ 1.2346" not in rendered(entry())["README.md"]


def test_tables_of_models_put_one_sample_first_and_the_error_at_the_figure_on_record() -> None:
    found = entry().measured
    assert found is not None
    of_eight = dataclasses.replace(found, samples=8, dequantization="variational")
    learned = entry(name="learned", measured=of_eight, one_sample_bpd=1.3)
    uniform = entry(name="uniform", several_samples=SeveralSamples(samples=8, bpd=1.2, stderr=0.007))
    many = entry(name="many", several_samples=SeveralSamples(samples=100, bpd=1.2, stderr=0.007))
    plain = entry(name="plain", measured=dataclasses.replace(of_eight, dequantization="uniform"))
    for page in ("README.md", "docs/models.md"):
        text = rendered(learned, uniform, many, plain)[page]
        assert "one sample | eight samples | published" in text
        lines = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| [`")}
        assert "| ≤ 1.3000 | ≤ 1.2346 ± 0.0079 | 1.05 |" in lines["learned"]
        assert "| 1.2346 ± 0.0079 | ≤ 1.2000 | 1.05 |" in lines["uniform"]
        assert "| 1.2346 ± 0.0079 | ≤ 1.2000 of 100 | 1.05 |" in lines["many"]
        assert "| - | ≤ 1.2346 ± 0.0079 | 1.05 |" in lines["plain"], "of one sample nothing is known"


def test_a_configuration_without_weights_has_its_training_command_and_no_load() -> None:
    bare = entry(status="unpublished", weights=None, measured=None, training=None)
    files = rendered(bare)
    assert "flowzoo train glow-digits --out" in files["docs/models/glow-digits.md"]
    assert "flowzoo.load(" not in files["docs/models/glow-digits.md"]
    assert "glow-digits" not in files["README.md"]
    assert "glow-digits" in files["docs/models.md"]


def test_a_note_is_the_first_thing_said() -> None:
    card = rendered(entry(note="Half the digits were blurred."))["docs/models/glow-digits.md"]
    assert card.index("Half the digits were blurred.") < card.index("flowzoo.load(")


def test_no_published_figure_means_its_reason_is_shown() -> None:
    files = rendered(entry(published=None, published_reason="no paper trained on digits"))
    assert "no paper trained on digits" in files["docs/models/glow-digits.md"]


def test_pictures_are_shown_if_and_only_if_they_are_there() -> None:
    without = rendered(entry())
    both = rendered(entry(), pictures={"glow-digits.png": "0.7", "glow-digits-curve.png": ""})
    assert "images/" not in without["README.md"] + without["docs/models/glow-digits.md"]
    assert "(docs/images/glow-digits.png)" in both["README.md"]
    for page in (both["README.md"], both["docs/models/glow-digits.md"]):
        assert "temperature 0.7" in page.lower(), "a grid that does not say its temperature says little"
    assert "(../images/glow-digits-curve.png)" in both["docs/models/glow-digits.md"]


def test_a_card_shows_samples_at_temperature_1_beside_the_recommended() -> None:
    both = rendered(entry(), pictures={"glow-digits.png": "0.7", "glow-digits-at-1.png": "1.0"})
    card, readme = both["docs/models/glow-digits.md"], both["README.md"]
    assert "temperature 0.7 | temperature 1.0" in card
    assert "(../images/glow-digits-at-1.png)" in card
    assert "at-1" not in readme


def test_the_newest_release_stands_for_a_name() -> None:
    files = rendered(entry(version=1, num_params=111), entry(version=2, num_params=222))
    assert "222" in files["docs/models.md"]
    assert "111" not in files["docs/models.md"]


def test_the_page_of_models_groups_them_by_family() -> None:
    page = rendered(
        entry(), entry(name="idf-digits", architecture="idf"), entry(name="odd", architecture="new")
    )
    lines = page["docs/models.md"].splitlines()
    headings = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert headings == ["Couplings", "Integer", "Other"], "in the order of the families, none of them empty"
    sections = page["docs/models.md"].split("\n## ")[1:]
    for section, name in zip(sections, ("glow-digits", "idf-digits", "odd"), strict=True):
        assert f"models/{name}.md" in section


def test_a_picture_of_points_stands_with_the_command_that_drew_it() -> None:
    both = {"picture-glow-digits.png": "", "glow-digits.png": "0.7"}
    page = rendered(entry(), pictures=both)["docs/models.md"]
    assert "(images/picture-glow-digits.png)" in page
    assert "flowzoo picture glow-digits -o docs/images/picture-glow-digits.png" in page
    assert "(images/glow-digits.png)" not in page, "points say more than samples"
    assert "A picture of each" not in rendered(entry())["docs/models.md"]


def test_pictures_of_images_are_not_called_those_of_points() -> None:
    """The config of a model of images has ``dims`` too where its architecture takes both."""
    of_images = entry(name="maf-digits", config={"image_shape": [1, 28, 28], "n_bits": 8, "dims": None})
    of_points = entry(name="maf-moons", config={"image_shape": None, "n_bits": 8, "dims": 2})
    pictures = {"picture-maf-digits.png": "", "picture-maf-moons.png": ""}
    page = rendered(of_images, of_points, pictures=pictures)["docs/models.md"]
    assert "![From noise to images by maf-digits]" in page
    assert "![Density and layers of maf-moons]" in page
    assert "Of models of points:" in page and "Of models of images:" in page


def test_the_samples_shown_are_those_of_the_best_model_with_one_noise_sample() -> None:
    found = entry().measured
    assert found is not None
    of_eight = dataclasses.replace(found, bpd=1.2, samples=8)
    models = entry(), entry(name="glow-eight", measured=of_eight, one_sample_bpd=1.3)
    page = rendered(*models, pictures={"glow-digits.png": "0.7", "glow-eight.png": "0.8"})["docs/models.md"]
    assert "(images/glow-digits.png)" in page and "(images/glow-eight.png)" not in page


def test_each_architecture_has_a_picture_of_its_best_model_or_says_why_not() -> None:
    found = entry().measured
    assert found is not None
    better = dataclasses.replace(found, bpd=0.5)
    models = (
        entry(),
        entry(name="glow-sharp", measured=better),
        entry(name="maf-digits", architecture="maf", config={"dims": 2}, weights=None),
        entry(name="jet-digits", architecture="jet", weights=None),
    )
    page = rendered(*models, pictures={"glow-digits.png": "0.7", "glow-sharp.png": "0.8"})["docs/models.md"]
    shown = page.partition("A picture of each")[2]
    sections = {text.partition("\n")[0]: text for text in shown.split("\n### ")[1:]}
    assert list(sections) == ["glow", "jet", "maf"], "by family"
    assert "(images/glow-sharp.png)" in sections["glow"] and "temperature 0.8" in sections["glow"]
    assert "glow-digits" not in sections["glow"]
    assert "images alone; no weights" in sections["jet"]
    assert "points; no weights" in sections["maf"]


def test_every_shipped_architecture_has_one_family() -> None:
    shipped = {path.name for path in (Path(__file__).parents[1] / "plugins").iterdir() if path.is_dir()}
    named = [name for members in FAMILIES.values() for name in members]
    assert sorted(named) == sorted(shipped)


def test_a_readme_without_its_markers_is_refused() -> None:
    with pytest.raises(click.ClickException, match="models"):
        render(Manifest(), "no markers", {}, lambda _: GLOW)


def test_exit_codes_are_those_of_the_errors() -> None:
    table = re.compile(r"^\| (\d+) \| (.+) \|$", flags=re.MULTILINE)
    assert table.findall(README) == table.findall(errors.__doc__ or "")
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    found = {str(value.exit_code) for value in classes if issubclass(value, errors.FlowzooError)}
    assert found <= {code for code, _ in table.findall(README)}


def test_every_variable_that_the_code_reads_is_in_the_readme() -> None:
    literals = {
        node.value
        for path in (ROOT / "flowzoo").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    read = {text for text in literals if re.fullmatch(r"FLOWZOO_[A-Z_]+", text)}
    assert read == set(re.findall(r"`(FLOWZOO_[A-Z_]+)`", README))
