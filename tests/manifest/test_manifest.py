"""Manifests: strict, canonical, merged without silent choices, and only ever growing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowzoo.errors import ManifestError, UnknownModel
from flowzoo.manifest.check import check_entry
from flowzoo.manifest.read import (
    Manifest,
    check_append_only,
    core_manifest_path,
    dump,
    load_manifests,
    merge,
    parse,
    schema,
)
from tests.manifest_examples import (
    REVISION,
    example_entry,
    example_reference,
    manifest_text,
    unpublished_entry,
)
from tests.plugin_factory import good

ROOT = Path(__file__).parents[2]


def example(*entries: dict[str, Any]) -> Manifest:
    return parse(manifest_text(*entries), "example.json")


def file_with(path: str, value: Any) -> dict[str, Any]:
    """A manifest of one good entry in which the value at a dotted path is replaced, or removed by ``...``."""
    return bent({"schema": 1, "models": [example_entry()]}, f"models.0.{path}", value)


def bent(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(data)
    *steps, last = path.split(".")
    place: Any = data
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place[step]
    key = int(last) if isinstance(place, list) else last
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return data


GOOD = {
    "no models": {"schema": 1, "models": []},
    "every key": {"schema": 1, "models": [example_entry()]},
    "references": {"schema": 1, "models": [], "references": [example_reference()]},
    "unpublished": {"schema": 1, "models": [unpublished_entry()]},
    "not on the Hub yet": file_with("weights.revision", None),
    "no repository yet": bent(file_with("weights.revision", None), "models.0.weights.repo_id", ...),
    "deprecated": file_with("status", "deprecated"),
    "an integer where a number is meant": file_with("measured.bpd", 4),
    "measured not at all": file_with("measured", None),
}

# What is wrong, and where the error must say so.
BAD: dict[str, tuple[Any, str]] = {
    "a list": ([], "$ is"),
    "no schema": ({"models": []}, "schema"),
    "schema is a text": ({"schema": "1", "models": []}, "$.schema"),
    "schema is true": ({"schema": True, "models": []}, "$.schema"),
    "schema of the future": ({"schema": 2, "models": []}, "pip install --upgrade flowzoo"),
    "unknown key at the top": ({"schema": 1, "models": [], "extra": 1}, "'extra'"),
    "unknown key in an entry": (file_with("licence", "MIT"), "'license'"),
    "unknown key in weights": (file_with("weights.md5", "0"), "$.models[0].weights"),
    "missing key": (file_with("config_hash", ...), "'config_hash'"),
    "name with a slash": (file_with("name", "a/b"), "$.models[0].name"),
    "name with an @": (file_with("name", "a@1"), "$.models[0].name"),
    "version 0": (file_with("version", 0), "$.models[0].version"),
    "version is true": (file_with("version", True), "$.models[0].version"),
    "unknown status": (file_with("status", "draft"), "$.models[0].status"),
    "branch as revision": (file_with("weights.revision", "main"), "$.models[0].weights.revision"),
    "short revision": (file_with("weights.revision", REVISION[:39]), "$.models[0].weights.revision"),
    "upper-case revision": (file_with("weights.revision", REVISION.upper()), "weights.revision"),
    "revision without repository": (file_with("weights.repo_id", None), "weights.repo_id"),
    "short sha256": (file_with("weights.sha256", "ab"), "$.models[0].weights.sha256"),
    "path traversal": (file_with("weights.filename", "../x.safetensors"), "$.models[0].weights.filename"),
    "absolute path": (file_with("weights.filename", "/x.safetensors"), "filename"),
    "a directory": (file_with("weights.filename", "a/x.safetensors"), "filename"),
    "a Windows path": (file_with("weights.filename", "a\\x.safetensors"), "filename"),
    "two dots": (file_with("weights.filename", "a..safetensors"), "filename"),
    "a hidden file": (file_with("weights.filename", ".safetensors"), "filename"),
    "a pickle": (file_with("weights.filename", "model.pt"), "filename"),
    "size 0": (file_with("weights.size", 0), "$.models[0].weights.size"),
    "unknown dtype": (file_with("weights.dtype", "int8"), "$.models[0].weights.dtype"),
    "bpd is a text": (file_with("measured.bpd", "4.2"), "$.models[0].measured.bpd"),
    "bpd is negative": (file_with("measured.bpd", -0.5), "$.models[0].measured.bpd"),
    "tolerance 0": (file_with("measured.tolerance", 0), "$.models[0].measured.tolerance"),
    "versions hold a number": (file_with("measured.versions", {"torch": 2}), "measured.versions.torch"),
    "three fingerprints": (file_with("fingerprint.bpd", [1.0, 2.0, 3.0]), "a list of 4"),
    "empty terms": (file_with("data.terms", " "), "$.models[0].data.terms"),
    "config is a preset's name": (file_with("config", "tiny"), "$.models[0].config"),
    "published and a reason": (file_with("published_reason", "none"), "exactly one"),
    "neither published nor reason": (file_with("published", None), "exactly one"),
    "released without weights": (file_with("weights", None), "weights"),
    "unpublished with weights": (file_with("status", "unpublished"), "weights"),
}


@pytest.mark.parametrize("case", GOOD)
def test_parser_and_json_schema_accept(case: str) -> None:
    manifest = parse(json.dumps(GOOD[case]), "m.json")
    jsonschema.validate(GOOD[case], schema())
    jsonschema.validate(json.loads(dump(manifest)), schema())


@pytest.mark.parametrize("case", BAD)
def test_parser_and_json_schema_refuse(case: str) -> None:
    data, said = BAD[case]
    with pytest.raises(ManifestError) as caught:
        parse(json.dumps(data), "m.json")
    assert str(caught.value).startswith("m.json: ")
    assert said in str(caught.value)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ('{"schema": 1, "schema": 1, "models": []}', "given twice"),
        ("[" * 100_000, "nested too deeply"),
        (json.dumps(file_with("measured.bpd", float("nan"))), "NaN"),
        (json.dumps(file_with("measured.bpd", float("inf"))), "Infinity"),
        (json.dumps(file_with("measured.bpd", 7)).replace('"bpd": 7', '"bpd": 1e999'), "measured.bpd"),
        (json.dumps(file_with("config.x", [7])).replace("[7]", "[1e999]"), "config.x[0]"),
        (manifest_text(example_entry(), example_entry()), "nice-example@1 is listed twice"),
    ],
)
def test_what_only_the_parser_can_see_is_refused(text: str, said: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(text, "m.json")
    assert said in str(caught.value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2**40)
    | st.text(st.characters(exclude_categories=["C"]), max_size=8)
    # A JSON Schema takes 1.0 for an integer; the parser does not.
    | st.floats(-9, 9).filter(lambda x: not x.is_integer())
    | st.sampled_from(
        ["released", "unpublished", "float32", "a/b", "x.safetensors", "main", "f" * 40, "f" * 64]
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["bpd", "seed", "x"]), inner, max_size=2)
    ),
    max_leaves=6,
)


def places(value: Any, path: str = "") -> list[str]:
    """Dotted paths of everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [(f"{path}{key}", item) for key, item in items]
    return [name for inner, item in found for name in (inner, *places(item, f"{inner}."))]


VALIDATOR = jsonschema.Draft202012Validator(schema())
BASE = [GOOD["every key"], GOOD["unpublished"], GOOD["references"]]


@settings(max_examples=300, deadline=None)
@given(data=st.data(), base=st.sampled_from(BASE), value=JSON | st.just(...))
def test_parser_and_json_schema_agree_on_anything(data: st.DataObject, base: Any, value: Any) -> None:
    path = data.draw(
        st.sampled_from([name for name in places(base) if not (value is ... and name[-1].isdigit())])
    )
    changed = bent(base, path, value)
    try:
        accepted = parse(json.dumps(changed), "m.json") is not None
    except ManifestError:
        accepted = False
    assert accepted == VALIDATOR.is_valid(changed), (path, value)


def test_the_schema_in_the_docs_is_the_parsers() -> None:
    published = json.loads((ROOT / "docs" / "manifest.schema.json").read_text())
    assert published == schema(), "run: flowzoo manifest schema > docs/manifest.schema.json"
    jsonschema.Draft202012Validator.check_schema(published)


def test_dump_is_canonical_and_round_trips() -> None:
    manifest = example(example_entry("b"), example_entry("a", 2), unpublished_entry("a", 1))
    text = dump(manifest)
    again = parse(text, "again")
    assert again.entries == manifest.entries
    assert dump(again) == text
    assert [entry.key for entry in again.entries] == ["a@1", "a@2", "b@1"]
    assert again.entries[1].measured is not None
    assert again.entries[1].measured.bpd == 4.2512345678901234


def test_the_core_manifest_is_canonical_and_valid() -> None:
    text = core_manifest_path().read_text(encoding="utf-8")
    manifest = parse(text, "core")
    jsonschema.validate(json.loads(text), schema())
    if manifest.entries:
        assert dump(manifest) == text


# --- lookup -----------------------------------------------------------------------------------------------


def test_a_bare_name_is_the_newest_released_version() -> None:
    manifest = example(
        example_entry("m", 1, status="deprecated"), example_entry("m", 2), unpublished_entry("m", 3)
    )
    assert manifest.get("m").version == 2
    assert manifest.get("m@1").status == "deprecated"
    assert manifest.get("m@3").weights is None
    assert manifest.names() == ["m"]


def test_a_name_without_a_release_is_its_newest_deprecated_version_before_an_unpublished() -> None:
    manifest = example(example_entry("m", 1, status="deprecated"), unpublished_entry("m", 2))
    assert manifest.get("m").version == 1


@pytest.mark.parametrize("name", ["nice-exmple", "glow-mnist@1", "m@3", "m@", "m@x", "m@01", ""])
def test_unknown_names_and_versions(name: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        example(example_entry("m"), example_entry()).get(name)
    assert ("'nice-example'" in str(caught.value)) == (name == "nice-exmple")
    assert ("m@1" in str(caught.value)) == name.startswith("m@")


# --- merging ----------------------------------------------------------------------------------------------


def test_a_name_in_two_sources_is_a_conflict_that_names_both() -> None:
    first = parse(manifest_text(example_entry("m"), example_entry("mine")), "first.json")
    second = parse(manifest_text(example_entry("m", 99)), "second.json")
    merged = merge([first, second])
    assert merged.names() == ["mine"]
    for name in ("m", "m@1", "m@99"):
        with pytest.raises(ManifestError, match=r"first\.json and by second\.json"):
            merged.get(name)
    assert merged.get("mine").name == "mine"


def test_a_plugins_manifest_is_merged(install: Callable[..., None]) -> None:
    before = load_manifests().names()
    install(good("brook", manifest=manifest_text(example_entry("brook-example"))))
    manifest = load_manifests()
    assert manifest.names() == sorted([*before, "brook-example"])
    assert manifest.sources["brook-example@1"] == "zoo-brook 1.0 (zoo_brook:weights_manifest.json)"


def test_a_plugins_bad_manifest_takes_nothing_down(install: Callable[..., None]) -> None:
    before = load_manifests().names()
    install(good("brook", manifest="{}"))
    manifest = load_manifests()
    assert manifest.names() == before
    assert "zoo-brook 1.0" in manifest.problems[0]
    with pytest.raises(UnknownModel, match=r"(?s)could not be read: zoo-brook 1\.0"):
        manifest.get("brook-example")


# --- a release is a promise -------------------------------------------------------------------------------


def released(**changes: Any) -> Manifest:
    [entry] = example(example_entry()).entries
    return Manifest(entries=(replace(entry, **changes),))


def test_a_manifest_may_grow() -> None:
    old = example(example_entry(), unpublished_entry("plan"))
    new = example(example_entry(status="deprecated"), example_entry(version=2), example_entry("plan"))
    assert check_append_only(old, new) == ()
    assert check_append_only(old, example(example_entry())) == ()


def test_figures_and_a_revision_may_come_later_and_then_stay() -> None:
    [entry] = example(example_entry()).entries
    assert entry.weights is not None
    local = replace(entry.weights, revision=None, repo_id=None)
    before = Manifest(entries=(replace(entry, weights=local, measured=None, fingerprint=None),))
    after = Manifest(entries=(entry,))
    assert check_append_only(before, after) == ()
    assert len(check_append_only(after, before)) == 3


def test_a_released_entry_cannot_vanish_or_change() -> None:
    [entry] = example(example_entry()).entries
    old = Manifest(entries=(entry,))
    assert "is gone" in check_append_only(old, Manifest())[0]
    assert entry.weights is not None
    assert entry.measured is not None
    changed: dict[str, dict[str, Any]] = {
        "weights.sha256": {"weights": replace(entry.weights, sha256="f" * 64)},
        "weights.size": {"weights": replace(entry.weights, size=1)},
        "config": {"config": {}},
        "measured": {"measured": replace(entry.measured, bpd=1.0)},
        "num_params": {"num_params": 1},
        "status": {"status": "unpublished"},
    }
    for name, change in changed.items():
        [fault] = check_append_only(old, released(**change))
        assert fault.startswith(f"nice-example@1: {name} was ")


# --- against the installed code -----------------------------------------------------------------------------


def failures(**changes: Any) -> dict[str, str]:
    [entry] = example(example_entry(**changes)).entries
    return {finding.check: finding.detail for finding in check_entry(entry) if not finding.passed}


def test_a_true_entry_passes() -> None:
    assert failures() == {}


def test_each_untruth_is_found() -> None:
    entry = example_entry()
    partial = {key: value for key, value in entry["config"].items() if key != "n_bits"}
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "plugin": ({"architecture": "niece"}, "niece"),
        "parameters": ({"num_params": 1}, "12,736"),
        "citations": ({"citations": ["nobody"]}, "nobody"),
        "figures": ({"measured": {**entry["measured"], "num_images": 9}}, "whole split"),
    }
    for check, (change, said) in cases.items():
        found = failures(**change)
        assert list(found) == [check]
        assert said in found[check]
    assert "n_bits" in failures(config=partial)["config"]
    assert "config_hash" in failures(config_hash="0" * 64)["config"]
    assert "unknown key" in failures(config={**entry["config"], "x": 1})["config"]
    assert "fingerprint" in failures(fingerprint=None)["figures"]
