"""References of a manifest: as strict as its models, and kept by whoever writes a model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from flowzoo.errors import ManifestError
from flowzoo.manifest.read import Manifest, check_append_only, dump, load_manifests, merge, parse, schema
from flowzoo.manifest.write import read_manifest, update_manifest, with_entry, write_entry
from tests.manifest_examples import example_entry, example_reference, manifest_text
from tests.plugin_factory import good

LESS = {key: value for key, value in example_reference().items() if key not in ("stderr", "note")}

BAD: dict[str, tuple[Any, str]] = {
    "no list": ({}, "$.references is"),
    "null": (None, "$.references is"),
    "a text": (["PNG"], "$.references[0] is"),
    "an unknown key": ([example_reference(bpd=1.0)], "$.references[0]: unknown key 'bpd'"),
    "no name": (
        [{k: v for k, v in LESS.items() if k != "name"}],
        "$.references[0]: the key 'name' is missing",
    ),
    "an empty name": ([example_reference(" ")], "$.references[0].name"),
    "another kind": ([example_reference(kind="model")], "$.references[0].kind"),
    "another unit": ([example_reference(unit="nats")], "$.references[0].unit"),
    "a figure that is a text": ([example_reference(figure="1.7")], "$.references[0].figure"),
    "a negative figure": ([example_reference(figure=-0.1)], "$.references[0].figure"),
    "no data set": ([example_reference(data="mnist")], "$.references[0].data"),
    "a version that is a number": (
        [example_reference(versions={"numpy": 2})],
        "references[0].versions.numpy",
    ),
}


def test_a_baseline_is_read_and_written_as_it_is() -> None:
    text = manifest_text(
        example_entry(), references=[example_reference(), LESS | {"name": "PNG", "figure": 3}]
    )
    found = parse(text, "m.json")
    jsonschema.validate(json.loads(text), schema())
    assert [reference.name for reference in found.references] == ["PNG", "independent pixels"], "in order"
    assert found.references[1].figure == 1.6889471533839415
    assert (found.references[0].stderr, found.references[0].note) == (None, None)
    written = dump(found)
    jsonschema.validate(json.loads(written), schema())
    assert parse(written, "again").references == found.references
    assert dump(parse(written, "again")) == written


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_reference_is_refused(case: str) -> None:
    references, said = BAD[case]
    data = {"schema": 1, "models": [], "references": references}
    with pytest.raises(ManifestError) as caught:
        parse(json.dumps(data), "m.json")
    assert str(caught.value).startswith("m.json: ") and said in str(caught.value)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema())


def test_a_data_set_has_one_reference_of_a_name() -> None:
    other = {**example_reference()["data"], "id": "cifar10"}
    text = manifest_text(references=[example_reference(), example_reference(data=other)])
    assert len(parse(text, "m.json").references) == 2
    twice = manifest_text(references=[example_reference(), example_reference("PNG"), example_reference()])
    with pytest.raises(
        ManifestError, match=r"\$\.references\[2\]: the baseline 'independent pixels' of mnist"
    ):
        parse(twice, "m.json")


def test_without_references_a_file_is_what_an_older_flowzoo_reads() -> None:
    assert list(json.loads(dump(parse(manifest_text(example_entry()), "m.json")))) == ["schema", "models"]


def test_whoever_writes_a_model_keeps_the_references(tmp_path: Path) -> None:
    path = tmp_path / "weights_manifest.json"
    path.write_text(manifest_text(references=[example_reference()]))
    [entry] = parse(manifest_text(example_entry()), "m.json").entries
    write_entry(path, entry)
    found = read_manifest(path)
    assert found.entries == (entry,) and [reference.name for reference in found.references] == [
        "independent pixels"
    ]
    assert with_entry(found, entry).references == found.references


def test_a_reference_may_be_measured_anew(tmp_path: Path) -> None:
    path = tmp_path / "weights_manifest.json"
    path.write_text(manifest_text(example_entry(), references=[example_reference()]))
    before = read_manifest(path)
    [old] = before.references
    new = dataclasses.replace(old, figure=1.5)
    update_manifest(path, lambda manifest: dataclasses.replace(manifest, references=(new,)))
    assert read_manifest(path).references == (new,)
    assert check_append_only(before, read_manifest(path)) == ()


def test_references_of_all_manifests_are_merged(install: Callable[..., None]) -> None:
    parts = [parse(manifest_text(references=[example_reference(name)]), name) for name in ("b", "a")]
    assert [reference.name for reference in merge([*parts, Manifest()]).references] == ["a", "b"]
    before = load_manifests().references
    install(good("brook", manifest=manifest_text(references=[example_reference("of brook's")])))
    after = load_manifests().references
    assert {reference.name for reference in set_of(after) - set_of(before)} == {"of brook's"}


def set_of(references: tuple[Any, ...]) -> set[Any]:
    """References without what cannot be hashed."""
    return {dataclasses.replace(reference, versions=()) for reference in references}
