"""``flowzoo list`` reads of core's manifest only what it shows, and shows what the strict reader would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowzoo.cli.main import main
from flowzoo.manifest.raw import core_text
from tests.manifest_examples import example_entry, example_reference, manifest_text, unpublished_entry
from tests.plugin_factory import Distribution, good

Outcome = tuple[object, str, str]
Listing = Callable[..., Outcome]


@pytest.fixture
def listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Listing:
    """Lists what a text as core's manifest holds; returns exit code, stdout and stderr."""
    path = tmp_path / "weights_manifest.json"
    monkeypatch.setattr("flowzoo.manifest.raw.core_manifest", lambda: str(path))

    def run(text: str | None, *flags: str) -> Outcome:
        if text is not None:
            path.write_text(text, encoding="utf-8")
        with pytest.raises(SystemExit) as caught:
            main(["list", *flags])
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return run


VERSIONS = [
    example_entry("many", 1, status="deprecated"),
    example_entry("many", 10),
    example_entry("many", 9),
    unpublished_entry("many", 11),
    example_entry("bound", measured={**example_entry()["measured"], "dequantization": "variational"}),
    example_entry("no-figure", measured=None, published=None, published_reason="none"),
]
FULL = [
    {"weights": None, "measured": None, "fingerprint": None, "training": None, **entry} for entry in VERSIONS
]


@pytest.mark.parametrize(
    "text",
    [
        core_text(),
        manifest_text(),
        manifest_text(*FULL),
        manifest_text(*FULL[::-1]),
        manifest_text(*VERSIONS),
    ],
    ids=["core's", "nothing", "versions", "in another order", "optional keys left out"],
)
def test_the_list_is_that_of_the_strict_reader(
    listing: Listing, install: Callable[..., None], text: str
) -> None:
    flags: list[tuple[str, ...]] = [(), ("--all",), ("--json",), ("--all", "--json")]
    quick = [listing(text, *flag) for flag in flags]
    assert [code for code, _, _ in quick] == [0] * len(flags)
    install(good("brook", manifest=manifest_text()))  # beside a plugin's manifest core's is read strictly
    assert [listing(text, *flag) for flag in flags] == quick


def test_references_are_listed_best_first(listing: Listing, install: Callable[..., None]) -> None:
    exact = example_reference("xz", figure=1.38, stderr=None, note=None)
    text = manifest_text(example_entry(), references=[example_reference(), exact])
    code, out, err = listing(text, "--references")
    assert (code, err) == (0, "")
    assert [line.split() for line in str(out).splitlines()] == [
        ["DATA", "REFERENCE", "KIND", "FIGURE", "NOTE"],
        ["mnist", "xz", "baseline", "1.3800", "-"],
        [
            "mnist",
            "independent",
            "pixels",
            "baseline",
            "1.6889",
            "±",
            "0.0036",
            "counted",
            "on",
            "50,000",
            "training",
            "images",
        ],
    ]
    rows = json.loads(str(listing(None, "--references", "--json")[1]))
    assert [row["reference"] for row in rows] == ["xz", "independent pixels"]
    assert (rows[1]["figure"], rows[1]["unit"]) == (1.6889471533839415, "bits per dimension")
    assert rows[1]["command"] == "python -m tools.baselines mnist"
    install(good("brook", manifest=manifest_text(references=[example_reference("PNG", figure=3)])))
    rows = json.loads(str(listing(None, "--references", "--json")[1]))
    assert [row["reference"] for row in rows] == ["xz", "independent pixels", "PNG"]
    assert [row["model"] for row in json.loads(str(listing(None, "--json")[1]))] == ["nice-example"]


BAD: dict[str, Any] = {
    "no JSON": "{",
    "a key twice": '{"schema": 1, "schema": 1, "models": []}',
    "a newer schema": '{"schema": 2, "models": []}',
    "a list": "[]",
    "no models": '{"schema": 1}',
    "an entry that is none": '{"schema": 1, "models": ["nice-mnist"]}',
    "a figure without its bits": manifest_text(example_entry(measured={})),
    "bits that are a text": manifest_text(example_entry(published={"bpd": "4.36"})),
    "a status of one's own": manifest_text(example_entry(status="draft")),
    "a version that is a text": manifest_text(example_entry(), {**example_entry(), "version": "2"}),
    **{
        f"no {key}": manifest_text({k: v for k, v in example_entry().items() if k != key})
        for key in ("name", "version", "architecture", "data", "status")
    },
}


@pytest.mark.parametrize("case", BAD)
def test_a_manifest_that_cannot_be_shown_gets_the_strict_readers_error(listing: Listing, case: str) -> None:
    for flags in [(), ("--json",)]:
        code, out, err = listing(BAD[case], *flags)
        assert (code, out) == (8, "")
        assert err.startswith("Error: flowzoo (weights_manifest.json): ")


def test_a_manifest_that_is_not_there_is_an_error(listing: Listing) -> None:
    code, out, err = listing(None)
    assert (code, out) == (8, "")
    assert "Reinstall flowzoo" in err


def test_what_changes_is_listed_at_once(
    listing: Listing, install: Callable[..., None], tmp_path: Path
) -> None:
    def models() -> list[str]:
        return [row["model"] for row in json.loads(str(listing(None, "--json")[1]))]

    listing(manifest_text(example_entry("mine")))
    assert models() == ["mine"]
    install(good("brook", manifest=manifest_text(example_entry("brook-one"))))
    assert models() == ["brook-one", "mine"]
    [path] = tmp_path.glob("zoo_brook/weights_manifest.json")
    path.write_text(manifest_text(example_entry("brook-two")))  # of the same size, within the same second
    assert models() == ["brook-two", "mine"]


def test_models_are_listed_whatever_becomes_of_their_config(
    listing: Listing, install: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    made = good("brook", manifest=manifest_text(example_entry("brook-one", architecture="brook")))
    install(Distribution(made.name, made.entries, {**made.files, "config.py": "import no_such_module"}))
    code, out, err = listing(manifest_text())
    assert (code, err) == (0, "")
    assert str(out).splitlines()[-1].split()[0] == "brook-one"
    for arguments, expected in (["plugins"], 0), (["info", "brook-one"], 0), (["info", "brook-tiny"], 4):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == expected
        assert "no_such_module" in "".join(capsys.readouterr())
