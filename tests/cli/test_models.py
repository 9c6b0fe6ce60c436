"""``flowzoo list``, ``info`` and ``manifest``: everything known, as tables and as JSON."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from flowzoo.cli.main import main
from flowzoo.factory import preset_names
from flowzoo.manifest.read import dump, list_models, load_manifests, merge, parse, schema
from flowzoo.registry import plugin_names
from tests.manifest_examples import example_entry, manifest_text, unpublished_entry
from tests.plugin_factory import broken, good

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line; returns exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        captured = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, captured.out, captured.err

    return call


@pytest.fixture
def example(install: Callable[..., None]) -> None:
    """A plugin ``brook`` whose manifest lists three versions of one model."""
    entries = [
        example_entry("brook-example", 1, status="deprecated"),
        example_entry("brook-example", 2),
        unpublished_entry("brook-example", 3),
    ]
    install(good("brook", manifest=manifest_text(*entries)))


def test_list_shows_each_model_once(run: Run) -> None:
    code, out, _ = run("list", "--json")
    assert code == 0
    assert [row["model"] for row in json.loads(out)] == list_models()


def test_list_shows_measured_and_published_side_by_side(run: Run, example: None) -> None:
    code, out, _ = run("list")
    assert code == 0
    [line] = [line.split() for line in out.splitlines() if line.startswith("brook-example")]
    assert line == ["brook-example", "2", "nice", "mnist", "4.2512", "±", "0.0012", "4.36", "released"]
    assert sum(line.startswith("brook-example") for line in run("list", "--all")[1].splitlines()) == 3


def test_list_presets_are_the_names_that_create_takes(run: Run) -> None:
    rows = json.loads(run("list", "--presets", "--json")[1])
    assert sorted(row["preset"] for row in rows) == preset_names()
    assert run("list", "--presets")[0] == 0


def test_list_architectures_shows_broken_ones_too(run: Run, install: Callable[..., None]) -> None:
    install(broken("rapid", "def ("))
    code, out, err = run("list", "--architectures")
    assert code == 0
    assert "rapid         broken" in out
    assert err == "Not usable: rapid; see `flowzoo plugins`.\n"
    assert run("list")[0] == 0


def test_list_notes_conflicts_and_unreadable_manifests(run: Run, install: Callable[..., None]) -> None:
    text = manifest_text(example_entry("both"))
    install(good("brook", manifest=text), good("creek", manifest=text), good("dam", manifest="{"))
    code, out, err = run("list")
    assert code == 0
    assert "both" not in out
    assert "zoo-brook 1.0 (zoo_brook:weights_manifest.json) and by zoo-creek 1.0" in err
    assert "zoo-dam 1.0" in err
    assert run("info", "both")[0] == 8


def test_info_of_a_model(run: Run, example: None) -> None:
    code, out, err = run("info", "brook-example")
    assert (code, err) == (0, "")
    for expected in (
        "4.2512", "0.0012", "one sample", "Table 1", "12,736", "51,234", "CC BY-SA 3.0", "Apache-2.0",
        'flowzoo.load("brook-example")', "flowzoo/nice-example", "NICE", "flowzoo eval nice-example",
    ):  # fmt: skip
        assert expected in out
    found = json.loads(run("info", "brook-example@1", "--json")[1])
    assert (found["kind"], found["version"], found["status"]) == ("model", 1, "deprecated")
    assert found["listed_by"] == "zoo-brook 1.0 (zoo_brook:weights_manifest.json)"
    assert found["plugin"]["distribution"] == "flowzoo-nice"
    assert json.loads(run("info", "brook-example@3", "--json")[1])["load"] is None


@pytest.mark.parametrize("name", ["glow-cifar10", "flowpp-celeba64", "realnvp-imagenet32", "nice-mnist"])
def test_info_explains_the_published_number_of_parameters(run: Run, name: str) -> None:
    found = json.loads(run("info", name, "--json")[1])
    assert abs(found["published_parameters"]["count"] / found["num_params"] - 1) < 0.015
    shown = " ".join(run("info", name)[1].split())
    assert found["published_parameters"]["note"] in shown
    if found["published_parameters"]["count"] != found["num_params"]:
        assert f"{found['num_params']:,}" in found["published_parameters"]["note"]


def test_info_of_another_model_of_a_presets_name_keeps_to_its_entry(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = merge([parse(manifest_text(example_entry("nice-mnist")), "other.json")])
    monkeypatch.setattr("flowzoo.cli.info.load_manifests", lambda: other)
    assert "published_parameters" not in json.loads(run("info", "nice-mnist", "--json")[1])


def test_a_mapping_within_a_mapping_is_one_line(run: Run, example: None) -> None:
    entry = json.loads(run("info", "brook-example@1", "--json")[1])
    versions = ", ".join(f"{name} {version}" for name, version in entry["measured"]["versions"].items())
    assert f"versions: {versions}\n" in run("info", "brook-example@1")[1]


def test_a_bound_is_listed_as_one(run: Run, install: Callable[..., None]) -> None:
    entry = example_entry("brook-bound")
    entry["measured"]["dequantization"] = "variational"
    install(good("brook", manifest=manifest_text(entry)))
    [line] = [line for line in run("list")[1].splitlines() if line.startswith("brook-bound")]
    assert "≤ 4.2512 ± 0.0012" in line


def test_info_of_a_model_whose_plugin_is_absent(run: Run, install: Callable[..., None]) -> None:
    install(good("brook", manifest=manifest_text(example_entry("sea-example", architecture="sea"))))
    code, out, _ = run("info", "sea-example")
    assert code == 0
    assert "sea-example" in out
    assert run("info", "sea-example", "--stack")[0] == 3


def test_info_of_a_preset(run: Run) -> None:
    found = json.loads(run("info", "glow-tiny", "--json")[1])
    assert (found["kind"], found["architecture"]) == ("preset", "glow")
    assert found["config"]["image_shape"][1:] == [8, 8]
    assert found["create"] == 'flowzoo.create("glow-tiny")'
    code, out, _ = run("info", "glow-tiny")
    assert code == 0
    assert "Kingma" in out


def test_info_of_an_architecture(run: Run) -> None:
    found = json.loads(run("info", "glow", "--json")[1])
    assert found["kind"] == "architecture"
    assert {"tiny", "cifar10"} <= set(found["presets"])
    assert run("info", "glow")[0] == 0
    code, _, err = run("info", "glow", "--stack")
    assert code == 2
    assert "glow-tiny" in err


def test_info_prints_the_stack_and_the_papers(run: Run) -> None:
    assert "AffineCoupling" in run("info", "glow-tiny", "--stack")[1]
    assert "AffineCoupling" in json.loads(run("info", "glow-tiny", "--stack", "--json")[1])["stack"]
    assert run("info", "glow", "--bibtex")[1].startswith("@inproceedings{kingma2018glow,\n")


def test_a_papers_year_is_said_once(run: Run) -> None:
    shown = {}
    for name in plugin_names():
        code, out, _ = run("info", name)
        assert code == 0
        shown[name] = re.findall(r"\b((?:19|20)\d\d),? \1\b", out)
        assert re.search(r"\b(19|20)\d\d[^)]*\)", out), "and it is said"
    assert {name: found for name, found in shown.items() if found} == {}
    assert "ICML 2019)" in run("info", "residual")[1]


@pytest.mark.parametrize("file", ["run.json", "flowzoo.json"])
@pytest.mark.parametrize("command", ["info", "eval"])
def test_what_stands_in_the_place_of_a_card_is_named(
    run: Run, tmp_path: Path, command: str, file: str
) -> None:
    os.mkfifo(tmp_path / file)
    code, _, err = run(command, str(tmp_path))
    assert code in (6, 9) and f"{file} cannot be read (it is not a regular file)" in err


def test_info_of_an_unknown_name_suggests(run: Run) -> None:
    code, out, err = run("info", "glow-cifar")
    assert (code, out) == (3, "")
    assert err.count("'glow-cifar10'") == 1  # a model and a preset, one suggestion


# --- manifest ----------------------------------------------------------------------------------------------


def write(path: Path, *entries: dict[str, object]) -> str:
    path.write_text(dump(parse(manifest_text(*entries), "test")), encoding="utf-8")
    return str(path)


def test_the_shipped_manifests_pass(run: Run) -> None:
    code, out, _ = run("manifest", "check", "--json")
    assert code == 0
    assert json.loads(out)["passed"] is True
    checked = {finding["entry"] for finding in json.loads(out)["findings"]}
    assert checked == {entry.key for entry in load_manifests().entries}


def test_check_of_a_file(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("manifest", "check", write(tmp_path / "m.json", example_entry()))
    assert code == 0
    assert "FAILED" not in out
    code, out, err = run("manifest", "check", write(tmp_path / "m.json", example_entry(num_params=5)))
    assert code == 8
    assert "num_params is 5; the model has 12,736." in out
    assert err.endswith("checks passed.\n")
    (tmp_path / "m.json").write_text('{"schema": 1, "models": [{}]}')
    code, _, err = run("manifest", "check", str(tmp_path / "m.json"))
    assert code == 8
    assert "$.models[0]: the key 'name' is missing" in err


def test_check_against_an_older_release(run: Run, tmp_path: Path) -> None:
    old = write(tmp_path / "old.json", example_entry())
    grown = write(tmp_path / "new.json", example_entry(status="deprecated"), example_entry(version=2))
    assert run("manifest", "check", grown, "--against", old)[0] == 0
    code, out, _ = run("manifest", "check", old, "--against", grown)
    assert code == 8
    assert "nice-example@2 was released and is gone" in out


def test_a_conflict_fails_the_check(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [parse(manifest_text(example_entry("both")), where) for where in ("first.json", "second.json")]
    monkeypatch.setattr("flowzoo.cli.manifest.load_manifests", lambda: merge(both))
    code, out, _ = run("manifest", "check")
    assert code == 4
    assert "listed by first.json and by second.json" in out


def test_schema_is_printed(run: Run) -> None:
    assert json.loads(run("manifest", "schema")[1]) == schema()
