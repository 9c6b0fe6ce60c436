"""What an entry says of its figure: its unit, its kind, its passes, its labels; older entries stay as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, get_args

import jsonschema
import pytest
from click.testing import CliRunner

from flowzoo.api import INCOMPARABLE, Incomparable
from flowzoo.cli.main import cli
from flowzoo.errors import ManifestError
from flowzoo.manifest.raw import core_text
from flowzoo.manifest.read import check_append_only, dump, parse, schema
from flowzoo.publishing.card import check_model_card, model_card
from tests.manifest_examples import example_entry, manifest_text
from tests.plugin_factory import good
from tools.beside import Beside
from tools.card import _figures

LATER = ("kind", "inverse_kind", "density_passes", "sampling_passes", "valid_bpd", "labels", "compressed")


def vectors_entry(name: str = "nice-points", **changes: Any) -> dict[str, Any]:
    """A released entry of a model of vectors, whose figure is in nats and below zero."""
    entry = example_entry(name, published=None, published_reason="no paper has one", valid_bpd=False)
    entry["measured"] |= {"bpd": None, "nats": -0.125}
    entry["fingerprint"] = {"nats": [1.5, -2.5, 0.0, 3.25], "tolerance": 1e-5}
    return entry | changes


def kinds_entry(**changes: Any) -> dict[str, Any]:
    found = {
        "kind": "unbiased", "inverse_kind": "numeric", "density_passes": 7, "sampling_passes": 41,
        "labels": {"classes": 10, "figure": "x|y", "other": 4.75, "accuracy": 0.9375},
        "compressed": {
            "size": 1_234_567, "bpd": 4.8125, "integers": 4.796875, "codec": 1, "num_images": 10_000,
            "command": "flowzoo compress mnist -m nice-kinds@1 -o mnist.flz",
        },
    }  # fmt: skip
    return example_entry("nice-kinds") | found | changes


@pytest.mark.parametrize("entry", [vectors_entry(), kinds_entry()], ids=["vectors", "kinds"])
def test_an_entry_reads_back_and_agrees_with_the_schema(entry: dict[str, Any]) -> None:
    text = manifest_text(entry)
    jsonschema.validate(json.loads(text), schema())
    read = parse(text, "mine")
    assert parse(dump(read), "mine").entries == read.entries
    assert dump(parse(dump(read), "mine")) == dump(read)


WRONG = {
    "both units": lambda e: e["measured"].update(bpd=1.0),
    "no unit": lambda e: e["measured"].update(nats=None),
    "a fingerprint of both": lambda e: e["fingerprint"].update(bpd=[1, 2, 3, 4]),
    "a fingerprint of three": lambda e: e["fingerprint"].update(nats=[1, 2, 3]),
    "bits per dimension that mean nothing": lambda e: e["measured"].update(bpd=1.0, nats=None),
    "an unknown kind": lambda e: e.update(kind="nearly exact"),
    "an unknown inverse": lambda e: e.update(inverse_kind="magic"),
    "no passes": lambda e: e.update(density_passes=0),
    "one class": lambda e: e.update(labels={"classes": 1, "figure": "x"}),
    "a figure of nothing": lambda e: e.update(labels={"classes": 10, "figure": "y"}),
    "a file of no bytes": lambda e: e.update(compressed=kinds_entry()["compressed"] | {"size": 0}),
    "an accuracy above one": lambda e: e.update(labels={"classes": 10, "figure": "x", "accuracy": 1.01}),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_contradiction_is_refused_by_parser_and_schema(name: str) -> None:
    entry = vectors_entry()
    WRONG[name](entry)
    text = manifest_text(entry)
    with pytest.raises(ManifestError, match=r"\$\.models\[0\]"):
        parse(text, "mine")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(text), schema())


def test_older_entries_stay_as_they_are_and_their_dequantization_says_the_kind() -> None:
    assert dump(parse(core_text(), "core")) == core_text()
    variational = example_entry("nice-learned")
    variational["measured"]["dequantization"] = "variational"
    read = parse(manifest_text(example_entry(), variational), "mine")
    assert [entry.figure_kind for entry in read.entries] == ["exact", "bound"]
    for written in json.loads(dump(read))["models"]:
        assert not set(LATER) & set(written), "an older flowzoo refuses keys that it does not know"
        assert "nats" not in written["measured"] and "nats" not in written["fingerprint"]


def test_a_released_figure_in_nats_is_a_promise() -> None:
    changed = vectors_entry()
    changed["measured"]["nats"] = -0.25
    broken = check_append_only(
        parse(manifest_text(vectors_entry()), "old"), parse(manifest_text(changed), "new")
    )
    assert len(broken) == 1 and "measured" in broken[0]


def test_the_bytes_of_a_released_file_are_a_promise_once_they_are_given() -> None:
    old, without = kinds_entry(), kinds_entry()
    del without["compressed"]
    changed = kinds_entry(compressed=old["compressed"] | {"size": 1_234_568})
    texts = [parse(manifest_text(entry), "mine") for entry in (without, old, changed)]
    assert check_append_only(texts[0], texts[1]) == ()
    assert ["compressed" in line for line in check_append_only(texts[1], texts[2])] == [True]


def test_list_and_info_show_unit_kind_and_labels(install: Callable[..., None]) -> None:
    install(good("brook", manifest=manifest_text(vectors_entry(), kinds_entry())))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    lines = {line.split()[0]: " ".join(line.split()) for line in run("list").splitlines()}
    assert "-0.1250 ± 0.0012 nats" in lines["nice-points"]
    assert "≈ 4.2512 ± 0.0012 (x|y)" in lines["nice-kinds"]
    rows = {row["model"]: row for row in json.loads(run("list", "--json"))}
    assert (rows["nice-points"]["figure_kind"], rows["nice-points"]["measured"]["bpd"]) == ("exact", None)
    assert rows["nice-kinds"]["labels"]["classes"] == 10
    shown = run("info", "nice-kinds")
    for expected in (
        "numeric",
        "unbiased",
        "sampling passes",
        "41",
        "x|y",
        "accuracy",
        "1,234,567",
        "-o mnist.flz",
    ):
        assert expected in shown
    found = json.loads(run("info", "nice-kinds", "--json"))
    assert (found["kind"], found["figure_kind"], found["density_passes"]) == ("model", "unbiased", 7)


def test_the_card_states_unit_kind_passes_and_both_figures_of_labels() -> None:
    [entry] = parse(manifest_text(kinds_entry()), "mine").entries
    text = model_card(entry, "MNIST")
    for expected in (
        r"measured of p(x\|y) | **4.2512**", "measured of p(x) | 4.7500", "unbiased estimates", "41 for a sample",
        "0.9375", "| as a file | 4.8125 | 1,234,567 bytes", "integers: 4.7969: `flowzoo compress mnist -m nice-kinds@1",
    ):  # fmt: skip
        assert expected in text
    check_model_card(text, entry)
    [points] = parse(manifest_text(vectors_entry(config={"dims": 2, "image_shape": None})), "mine").entries
    card = model_card(points, "two moons")
    assert "| | nats | protocol |" in card and "**-0.1250**" in card
    usage = card.partition("## Usage")[2].partition("## Figures")[0]
    assert "float (16, 2)" in usage and "bits per dimension" not in usage and "image" not in usage
    check_model_card(card, points)


@pytest.mark.parametrize("probes", [1, 8])
def test_cards_state_the_probes_of_an_estimate(probes: int) -> None:
    described = kinds_entry()
    described["measured"]["probes"] = probes
    [entry] = parse(manifest_text(described), "mine").entries
    for text in (model_card(entry, "MNIST"), "\n".join(_figures(entry, Beside()))):
        assert ("8 probes" in text) == (probes == 8)
        assert "1 probe" not in text


def test_every_code_of_what_is_not_comparable_has_its_words() -> None:
    assert set(get_args(Incomparable)) == set(INCOMPARABLE)
