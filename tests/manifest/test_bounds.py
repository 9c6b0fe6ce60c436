"""Manifests that are too deep, too long or no file: one line, in bounded time, whoever reads them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowzoo.cli.main import main
from flowzoo.errors import ManifestError
from flowzoo.manifest.read import parse
from tests.manifest_examples import example_entry, manifest_text

NUMBER = manifest_text(example_entry()).replace("12736", "{}")
DEEP = manifest_text(example_entry(note="DEEP")).replace('"DEEP"', "{}")

TEXTS = {
    "a config 40 deep": (manifest_text(example_entry(config={"a": "X"})).replace('"X"', "[" * 40 + "]" * 40), "nested"),
    "lists 500 deep": (DEEP.replace("{}", "[" * 500 + "]" * 500), "nested"),
    "objects 500 deep": (DEEP.replace("{}", '{"a":' * 500 + "1" + "}" * 500), "nested"),
    "lists a million deep": ("[" * 10**6, "nested"),
    "an integer of 5,000 digits": (NUMBER.replace("{}", "9" * 5_000), "5,000 digits"),
    "an integer of 4,000 digits": (NUMBER.replace("{}", "9" * 4_000), "4,000 digits"),
    "an integer of a million digits": (NUMBER.replace("{}", "9" * 10**6), "1,000,000 digits"),
    "half of a surrogate pair": (manifest_text(example_entry(note="HALF")).replace("HALF", r"\ud800"), "surrogate"),
    "a name of 300 characters": (manifest_text(example_entry("a" * 300)), "at most 100"),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_it_is_an_error_of_one_short_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, words = TEXTS[case]
    with pytest.raises(ManifestError, match=words) as caught:
        parse(text, "here")
    assert len(str(caught.value)) < 300
    place = tmp_path / "weights_manifest.json"
    place.write_text(text)
    for arguments in (["manifest", "check", str(place)], ["list", "--json"]):
        monkeypatch.setattr("flowzoo.manifest.raw.core_manifest", lambda: str(place))
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = capsys.readouterr()
        if case != "a name of 300 characters":  # which the list of core's own manifest shows as it is
            assert (ended.value.code, captured.out) == (8, "")
            assert words in captured.err
            assert len(captured.err.splitlines()) == 1


def test_a_config_as_deep_as_configs_are_is_read() -> None:
    nested: object = 1
    for _ in range(20):
        nested = [nested]
    assert parse(manifest_text(example_entry(config={"a": nested})), "here").entries


@pytest.mark.parametrize("what", ["pipe", "device"])
def test_what_is_no_file_is_refused_at_once(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "weights_manifest.json"
    if what == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/zero")
    with pytest.raises(SystemExit) as ended:
        main(["manifest", "check", str(place)])
    assert ended.value.code == 8
    assert "not a regular file" in capsys.readouterr().err
