"""Whatever stands in a field of an Architecture, listing goes on, and says who if it is not what belongs there."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flowzoo.api import Architecture, Citation, Preset, Published
from flowzoo.cli.main import main
from flowzoo.registry import PluginState, reset_registry, survey
from flowzoo.registry.contents import _KINDS
from tests.plugin_factory import good


class Evil:
    def __repr__(self) -> str:
        raise SystemExit(3)


class EvilText(str):
    __slots__ = ()

    def __format__(self, spec: str) -> str:
        raise RuntimeError

    __str__ = __repr__ = lambda self: self.__format__("")  # type: ignore[assignment]


VALUES = [
    None, 123, b"x", [], ("a", 1), Evil(), EvilText("hello"), "a\x1b[2J", "x" * 20_000, float("nan"), 10**400,
    "\ud800",
]  # fmt: skip
PUBLISHED = Published(bpd=1.0, dataset="d", source="s", protocol="p")
CITATION = Citation(key="k", title="t", authors=("a",), year=2000, venue="v", arxiv="1")
PRESET = Preset(
    summary="s", config={"image_shape": (1, 8, 8)}, dataset="d", recipe="a:b", published=PUBLISHED, parameters=3
)  # fmt: skip


def variants(base: Architecture, value: Any) -> Iterator[tuple[str, Architecture]]:
    """The architecture with the value in each place in turn."""
    for field in dataclasses.fields(Architecture):
        yield field.name, dataclasses.replace(base, **{field.name: value})
    for field in dataclasses.fields(Preset):
        changed = dataclasses.replace(PRESET, **{field.name: value})
        yield f"preset: {field.name}", dataclasses.replace(base, presets={"tiny": changed})
    for field in dataclasses.fields(Published):
        figure = dataclasses.replace(PUBLISHED, **{field.name: value})
        changed = dataclasses.replace(PRESET, published=figure)
        yield f"published: {field.name}", dataclasses.replace(base, presets={"tiny": changed})
    for field in dataclasses.fields(Citation):
        citation = dataclasses.replace(CITATION, **{field.name: value})
        yield f"citation: {field.name}", dataclasses.replace(base, citations=(citation,))


def test_every_field_has_a_type_that_is_checked() -> None:
    """Those that are not in the table are checked by name."""
    by_name = {"api_version", "presets", "citations", "config"}
    for kind in (Architecture, Preset, Published, Citation):
        unknown = {f.name for f in dataclasses.fields(kind) if str(f.type) not in _KINDS}
        assert unknown <= by_name, kind


def test_an_unknown_code_of_what_is_not_comparable_is_named(install: Callable[..., None]) -> None:
    install(good("waves"))
    module = importlib.import_module("zoo_waves.plugin")
    figure = dataclasses.replace(PUBLISHED, incomparable=("one-sample", "just-because"))
    changed = dataclasses.replace(PRESET, published=figure)
    module.ARCHITECTURE = dataclasses.replace(module.ARCHITECTURE, presets={"tiny": changed})  # type: ignore[attr-defined]
    reset_registry()
    assert "incomparable has 'just-because'" in survey()["waves"].cause


@pytest.mark.parametrize("index", range(len(VALUES)))
def test_listing_goes_on(
    install: Callable[..., None], capsys: pytest.CaptureFixture[str], index: int
) -> None:
    install(good("waves"))
    module = importlib.import_module("zoo_waves.plugin")
    sound = dataclasses.replace(module.ARCHITECTURE, presets={"tiny": PRESET}, citations=(CITATION,))
    for where, made in variants(sound, VALUES[index]):
        module.ARCHITECTURE = made  # type: ignore[attr-defined]
        reset_registry()
        plugin = survey()["waves"]
        assert (plugin.state is PluginState.OK) == (not plugin.cause), where
        assert plugin.cause.isprintable()
        for arguments in (["list", "--presets", "--json"], ["plugins", "--json"]):
            with pytest.raises(SystemExit) as ended:
                main(arguments)
            assert ended.value.code == 0, where
            printed = capsys.readouterr().out
            assert json.loads(printed.encode("utf-8"))


def test_what_belongs_there_is_ok(install: Callable[..., None]) -> None:
    install(good("waves"))
    module = importlib.import_module("zoo_waves.plugin")
    module.ARCHITECTURE = dataclasses.replace(  # type: ignore[attr-defined]
        module.ARCHITECTURE, presets={"tiny": PRESET}, citations=(CITATION,)
    )
    reset_registry()
    assert survey()["waves"].state is PluginState.OK
