"""Declarations are what importlib.metadata says they are, wherever and however a distribution is installed."""

from __future__ import annotations

import importlib.metadata
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowzoo.registry.entry_points import Declaration, declarations

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: Name: none\n\nName: no header\n"


def install(where: Path, name: str, text: str, version: str = "1.0", metadata: str = "METADATA") -> Path:
    """Writes a distribution's metadata; returns their directory."""
    kind = "dist-info" if metadata == "METADATA" else "egg-info"
    info = where / f"{name.replace('-', '_')}-{version}.{kind}"
    info.mkdir(parents=True)
    (info / metadata).write_text(METADATA.format(name=name, version=version))
    (info / "entry_points.txt").write_text(text)
    return info


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is the whole import path while declarations are looked for."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def by_the_book(group: str) -> Iterator[Declaration]:
    """The declarations that :func:`declarations` must yield, in any order."""
    for distribution in importlib.metadata.distributions():
        entries = {(e.name, e.value) for e in distribution.entry_points if e.group == group}
        if entries:
            yield Declaration(distribution.metadata["Name"], distribution.version, tuple(sorted(entries)))


def with_entries(found: Iterable[Declaration]) -> list[Declaration]:
    return sorted(declaration for declaration in found if declaration.entries or declaration.fault)


@pytest.mark.parametrize("group", ["flowzoo.architectures", "console_scripts", "pytest11", "no.such.group"])
def test_they_are_those_of_this_environment(group: str) -> None:
    assert with_entries(declarations(group)) == sorted(by_the_book(group))


words = st.text("ab.: -_#", min_size=1, max_size=6).map(str.strip).filter(lambda w: w and w[0] not in "#[")
lines = st.one_of(
    st.tuples(words, st.sampled_from(["=", " = ", "= "]), words).map("".join),
    st.sampled_from(["[g]", "[ other ]", "[g.h]", "", "  ", "# g", "[g]  "]),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(lines, max_size=8).map("\n".join))
def test_a_file_means_what_it_means_elsewhere(only: Path, text: str) -> None:
    """Of files that can be read at all."""
    info = only / "a-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(METADATA.format(name="a", version="1.0"))
    (info / "entry_points.txt").write_text(text)
    assert with_entries(declarations("g")) == sorted(by_the_book("g"))


@pytest.mark.parametrize("line", ["no value", "= value", "name =x\n another"])
def test_a_line_that_cannot_be_read_is_a_fault_of_its_group_only(only: Path, line: str) -> None:
    install(only, "a", f"[g]\n{line}\n")
    install(only, "b", f"[other]\n{line}\n[g]\nx = y\n")
    first, second = declarations("g")
    assert (first.distribution, first.entries) == ("a", ())
    assert "name = value" in first.fault
    assert second == Declaration("b", "1.0", (("x", "y"),))


def test_every_kind_of_installation_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[g]\nx = y\n"
    install(tmp_path / "plain", "plain", text)
    install(tmp_path / "develop", "develop", text, metadata="PKG-INFO")
    egg = tmp_path / "egg-1.0-py3.egg"
    install(egg, "egg", text, metadata="PKG-INFO").rename(egg / "EGG-INFO")
    zipped = install(tmp_path / "unzipped", "zipped", text)
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in zipped.iterdir():
            file.write(path, f"{zipped.name}/{path.name}")
    places = [tmp_path / "plain", tmp_path / "develop", egg, archive, tmp_path / "absent"]
    monkeypatch.setattr(sys, "path", [*(str(place) for place in places), ""])
    monkeypatch.chdir(install(tmp_path / "here", "here", text).parent)
    found = list(declarations("g"))
    assert [declaration.distribution for declaration in found] == [
        "plain",
        "develop",
        "egg",
        "zipped",
        "here",
    ]
    assert {declaration[1:] for declaration in found} == {("1.0", (("x", "y"),), "")}


def test_another_finder_is_asked(only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = install(only / "elsewhere", "hidden", "[g]\nx = y\n")

    class Finder(importlib.metadata.DistributionFinder):
        def find_distributions(
            self, context: importlib.metadata.DistributionFinder.Context | None = None
        ) -> Iterator[importlib.metadata.Distribution]:
            yield importlib.metadata.Distribution.at(info)

        def find_spec(self, *_: object) -> None:
            return None

    assert list(declarations("g")) == []
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert list(declarations("g")) == [Declaration("hidden", "1.0", (("x", "y"),))]


def test_what_is_installed_changes_at_once(only: Path) -> None:
    info = install(only, "a", "[g]\nx = y\n")
    assert [declaration.entries for declaration in declarations("g")] == [(("x", "y"),)]
    (info / "entry_points.txt").write_text("[g]\nx = z\n")  # an edit of equal length within the same second
    assert [declaration.entries for declaration in declarations("g")] == [(("x", "z"),)]
    (info / "METADATA").write_text(METADATA.format(name="a", version="2.0"))
    assert [declaration.version for declaration in declarations("g")] == ["2.0"]
    (info / "entry_points.txt").unlink()
    assert list(declarations("g")) == []


def test_metadata_that_cannot_be_read_take_nothing_down(only: Path) -> None:
    install(only, "good", "[g]\nx = y\n")
    (install(only, "bytes", "") / "entry_points.txt").write_bytes(b"[g]\nx = \xff\n")
    (install(only, "bare", "[g]\nx = y\n") / "METADATA").unlink()
    folder = install(only, "folder", "") / "entry_points.txt"
    folder.unlink()
    folder.mkdir()
    (only / "file.dist-info").write_text("[g]\nx = y\n")
    assert [declaration.distribution for declaration in declarations("g")] == ["unknown", "good"]
