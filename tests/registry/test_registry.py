"""Plugins are discovered, judged and isolated: none can take another one down."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import flowzoo
from flowzoo.errors import ConfigError, PluginError, UnknownArchitecture
from flowzoo.factory import create, preset_names, resolve
from flowzoo.registry import (
    DISABLE_VARIABLE,
    Plugin,
    PluginState,
    config_class,
    discover,
    get_architecture,
    get_plugin,
    list_architectures,
    plugin_names,
    reset_registry,
    survey,
)
from tests.first_party import PLUGINS
from tests.plugin_factory import Distribution, broken, good, plugin_source

FIRST_PARTY = set(PLUGINS)

Install = Callable[..., None]


def test_first_party_plugins_are_ok() -> None:
    assert set(list_architectures()) >= FIRST_PARTY


def test_a_good_plugin_is_found_and_builds(install: Install) -> None:
    install(good("waves"))
    assert "waves" in flowzoo.list_architectures()
    assert "waves-tiny" in preset_names()
    flow = flowzoo.create("waves-tiny", hidden=4)
    assert (flow.architecture, flow.config.hidden, flow.image_shape) == ("waves", 4, (1, 8, 8))


BROKEN = {
    "syntax error": (broken("waves", "def ("), "SyntaxError"),
    "SystemExit": (broken("waves", "raise SystemExit(3)"), "SystemExit"),
    "any BaseException": (broken("waves", "raise BaseException('no')"), "BaseException: no"),
    "an exception that cannot be printed": (
        broken("waves", "class E(Exception):\n    def __str__(self): raise ValueError\nraise E"),
        "E",
    ),
    "endless recursion": (broken("waves", "def f(): f()\nf()"), "RecursionError"),
    "missing dependency": (broken("waves", "import no_such_module"), "no_such_module"),
    "missing attribute": (broken("waves", "x = 1"), "ARCHITECTURE"),
    "wrong type": (broken("waves", "ARCHITECTURE = {'name': 'waves'}"), "dict"),
    "a class": (broken("waves", "from flowzoo.api import Architecture as ARCHITECTURE"), "type"),
    "an object that ends the interpreter when looked at": (
        broken("waves", "class A:\n    def __getattr__(self, name): raise SystemExit(1)\nARCHITECTURE = A()"),
        "SystemExit",
    ),
    "another name": (broken("waves", plugin_source("sea", "zoo_waves")), "'sea'"),
    "no tiny preset": (broken("waves", plugin_source("waves", "zoo_waves", tiny="big")), "tiny"),
    "api_version is a text": (
        broken("waves", plugin_source("waves", "zoo_waves", api_version="1")),
        "api_version",
    ),
    "presets is a list": (
        broken(
            "waves",
            plugin_source("waves", "zoo_waves") + "\n    object.__setattr__(ARCHITECTURE, 'presets', [])",
        ),
        "tiny",
    ),
    "config is no reference": (
        broken("waves", plugin_source("waves", "zoo_waves").replace("zoo_waves.config:Config", "nonsense")),
        "module:name",
    ),
    "no module": (Distribution("zoo-waves", {"waves": "zoo_elsewhere.plugin:A"}, {}), "zoo_elsewhere"),
    "no reference": (Distribution("zoo-waves", {"waves": "not a reference"}, {}), "module:ATTRIBUTE"),
    "a bad name": (good("Big Waves", "zoo-waves"), "lower-case"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_a_row_and_nothing_else(install: Install, case: str) -> None:
    distribution, cause = BROKEN[case]
    install(distribution, good("fine"))
    [name] = distribution.entries
    plugins = discover()
    assert plugins[name].state is PluginState.BROKEN
    assert cause in plugins[name].cause
    assert plugins["fine"].state is PluginState.OK
    assert set(list_architectures()) > FIRST_PARTY
    with pytest.raises(PluginError) as caught:
        get_architecture(name)
    for expected in (name, distribution.entries[name], "zoo-waves 1.0", cause, "pip install", "zoo-waves"):
        assert expected in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        plugin_source("waves", "zoo_waves", api_version=3),
        plugin_source("waves", "zoo_waves", api_version=3, extra="invented_later=True,"),
        "    from flowzoo.api import InventedLater\n" + plugin_source("waves", "zoo_waves", api_version=3),
    ],
    ids=["declares it", "uses a field of it", "imports a name of it"],
)
def test_a_plugin_for_a_newer_core_is_incompatible(install: Install, source: str) -> None:
    install(broken("waves", source))
    plugin = get_plugin("waves")
    assert plugin.state is PluginState.INCOMPATIBLE
    assert "API 3" in plugin.cause
    assert plugin.mend == "pip install --upgrade flowzoo"


def test_a_plugin_for_an_older_core_is_itself_to_be_upgraded(install: Install) -> None:
    install(broken("waves", plugin_source("waves", "zoo_waves", api_version=0)))
    plugin = get_plugin("waves")
    assert plugin.state is PluginState.INCOMPATIBLE
    assert "pip install --upgrade zoo-waves" in plugin.mend


def test_one_name_in_two_distributions_is_a_conflict_that_names_both(install: Install) -> None:
    install(good("waves"), good("waves", "zoo-tides"))
    plugin = get_plugin("waves")
    assert plugin.state is PluginState.CONFLICT
    with pytest.raises(PluginError, match=r"(?s)zoo-tides.*zoo-waves.*pip uninstall"):
        create("waves-tiny")


def test_a_third_party_cannot_take_a_first_party_name(install: Install) -> None:
    install(good("glow", "zoo-fork"))
    assert get_plugin("glow").state is PluginState.CONFLICT
    with pytest.raises(PluginError, match="zoo-fork"):
        create("glow-tiny")


def test_disabling_a_distribution_ends_a_conflict(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(good("waves"), good("waves", "zoo-tides"))
    monkeypatch.setenv(DISABLE_VARIABLE, "zoo_tides")
    reset_registry()
    assert get_plugin("waves").state is PluginState.OK
    assert get_plugin("waves").distribution == "zoo-waves"


def test_a_disabled_plugin_is_not_imported(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DISABLE_VARIABLE, "other, waves")
    install(good("waves"))
    plugin = get_plugin("waves")
    assert plugin.state is PluginState.DISABLED
    assert "zoo_waves.plugin" not in sys.modules
    with pytest.raises(PluginError, match=DISABLE_VARIABLE):
        create("waves-tiny")


def test_using_one_plugin_loads_no_other(install: Install) -> None:
    install(good("waves"), broken("loud", "raise SystemExit"))
    assert "loud" in plugin_names()
    get_architecture("waves")
    assert "zoo_waves.plugin" in sys.modules
    assert "zoo_loud" not in sys.modules


def test_what_a_plugin_prints_does_not_reach_stdout(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    made = good("waves")
    install(broken("waves", "    print('hello')\n" + made.files["plugin.py"]))
    assert get_plugin("waves").state is PluginState.OK
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")


def test_unreadable_entry_points_are_a_row(install: Install, tmp_path: Path) -> None:
    install(good("waves"))
    [path] = tmp_path.glob("zoo_waves-*/entry_points.txt")
    path.write_text("[flowzoo.architectures]\nthis line has no value\n")
    reset_registry()
    assert set(discover()) > FIRST_PARTY
    states: list[Plugin] = [p for p in discover().values() if p.distribution == "zoo-waves"]
    assert [p.state for p in states] == [PluginState.BROKEN]


def test_an_older_copy_further_down_the_path_is_no_conflict(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = good("waves")
    install(older)
    Distribution(older.name, older.entries, older.files, version="2.0").install_metadata(tmp_path / "first")
    monkeypatch.syspath_prepend(tmp_path / "first")
    reset_registry()
    assert (get_plugin("waves").state, get_plugin("waves").version) == (PluginState.OK, "2.0")


@pytest.mark.parametrize(
    ("filename", "source", "cause"),
    [
        ("config.py", "import no_such_module", "no_such_module"),
        ("config.py", "class Config: pass", "not a dataclass"),
        ("model.py", None, "does not exist"),
    ],
)
def test_a_config_or_model_that_is_not_there_breaks_the_plugin(
    install: Install, filename: str, source: str | None, cause: str
) -> None:
    made = good("waves")
    files = {**made.files, filename: source}
    kept = {name: text for name, text in files.items() if text is not None}
    install(Distribution(made.name, made.entries, kept))
    assert get_plugin("waves").state is PluginState.BROKEN
    assert cause in get_plugin("waves").cause


def test_a_survey_imports_no_config_and_agrees_on_everything_else(install: Install) -> None:
    made = good("waves")
    install(
        Distribution(made.name, made.entries, {**made.files, "config.py": "raise SystemExit"}),
        good("tides"), good("tides", "zoo-fork"), broken("sea", "def ("), good("lake"),
    )  # fmt: skip
    first = dict(survey())
    assert not any(name.startswith("zoo_") and name.endswith(".config") for name in sys.modules)
    later = discover()
    assert dict(survey()) == first
    assert list(first) == list(later)
    differ = {name: (first[name].state, later[name].state) for name in first if first[name] != later[name]}
    assert differ == {"waves": (PluginState.OK, PluginState.BROKEN)}
    assert later["waves"].architecture is None


def test_a_model_that_cannot_be_imported_is_the_plugins_error(install: Install) -> None:
    made = good("waves")
    install(Distribution(made.name, made.entries, {**made.files, "model.py": "raise SystemExit"}))
    assert config_class("waves").__name__ == "Config"
    with pytest.raises(PluginError, match=r"(?s)zoo-waves 1\.0.*build function.*SystemExit"):
        create("waves-tiny")


def test_a_build_that_fails_or_returns_no_flow_is_the_plugins_error(install: Install) -> None:
    made, other = good("waves"), good("sea")
    install(
        Distribution(made.name, made.entries, {**made.files, "model.py": "def build(config): return 1"}),
        Distribution(
            other.name, other.entries, {**other.files, "model.py": "def build(config): return 1 / 0"}
        ),
    )
    with pytest.raises(PluginError, match=r"zoo-waves 1\.0.*not a Flow"):
        create("waves-tiny")
    with pytest.raises(PluginError, match=r"zoo-sea 1\.0.*ZeroDivisionError"):
        create("sea-tiny")


# --- names ----------------------------------------------------------------------------------------------


def test_unknown_names_get_suggestions() -> None:
    with pytest.raises(UnknownArchitecture, match="'glow-cifar10'"):
        create("glow-cifar")
    with pytest.raises(UnknownArchitecture, match="'glow-mnist'"):
        create("glov-mnist")
    with pytest.raises(UnknownArchitecture, match="'realnvp'"):
        get_architecture("realvnp")


def test_the_longest_architecture_that_fits_is_meant(install: Install) -> None:
    install(good("waves"), good("waves-deep"))
    assert resolve("waves-deep-tiny", {})[0].name == "waves-deep"
    assert resolve("waves-tiny", {})[0].name == "waves"


def test_a_name_that_means_two_things_is_refused(install: Install) -> None:
    shallow = good("waves")
    plugin = shallow.files["plugin.py"].replace("'tiny': Preset(", "'tiny': None, 'deep-tiny': Preset(")
    plugin = plugin.replace("'tiny': None", "'tiny': Preset(summary='', config={})")
    install(broken("waves", plugin), good("waves-deep"))
    with pytest.raises(UnknownArchitecture, match="could mean"):
        resolve("waves-deep-tiny", {})


def test_an_architecture_without_its_config_names_the_presets() -> None:
    with pytest.raises(ConfigError, match=r"image_shape.*glow-tiny"):
        create("glow")


def test_overrides_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"hidden_chanels.*'hidden_channels'"):
        create("glow-tiny", hidden_chanels=4)
    with pytest.raises(ConfigError, match="depth"):
        create("glow-tiny", depth="deep")


def test_meta_device_allocates_nothing() -> None:
    flow = create("glow-cifar10", device="meta")
    assert {parameter.device.type for parameter in flow.parameters()} == {"meta"}
