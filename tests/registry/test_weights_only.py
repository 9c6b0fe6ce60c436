"""Distributions that bring weights for somebody else's architecture, installed by a real pip, good and bad ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from flowzoo.manifest.read import Manifest, dump
from flowzoo.manifest.schema import Entry
from tests.pip_site import pip_install, run_flowzoo, run_python
from tests.probe import Probe, fingerprinted, save, trained


def project(home: Path, name: str, entries: dict[str, str], files: dict[str, str]) -> Path:
    """A project of one package that has no code but what ``files`` hold."""
    root, package = home / name, home / name / name.replace("-", "_")
    (package / "weights").mkdir(parents=True)
    for file, text in {"__init__.py": "", **files}.items():
        (package / file).write_text(text)
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in entries.items())
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n\n'
        f'[project]\nname = "{name}"\nversion = "1.0"\n\n[project.entry-points."flowzoo.manifests"]\n{lines}'
    )
    return root


def listed(home: Path, name: str, model: str, entry: Entry) -> Path:
    """A good one: a manifest that lists the model, and its weights in the folder ``weights``."""
    text = dump(Manifest(entries=(dataclasses.replace(entry, name=model),)))
    package = name.replace("-", "_")
    return project(home, name, {f"{name}-models": f"{package}:mine.json"}, {"mine.json": text})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation of the architecture ``probe`` and of seven distributions with manifests for it."""
    home = tmp_path_factory.mktemp("weights-only")
    with pytest.MonkeyPatch.context() as patch, Probe.installed(home / "site", patch):
        flow = trained(seed=5)
        weights = dataclasses.replace(save(flow, home / "probe.safetensors"), filename="probe.safetensors")
        entry = fingerprinted(flow, weights)
    faces = listed(home, "zoo-faces", "probe-faces", entry)
    (faces / "zoo_faces/__init__.py").write_text("open(__file__.replace('__init__.py', 'ran'), 'w')\n")
    attribute = project(
        home, "zoo-named", {"named": "zoo_named.where:MANIFEST"},
        {"where.py": "from pathlib import Path\nMANIFEST = Path(__file__).parent / 'inner' / 'm.json'\n"},
    )  # fmt: skip
    inner = attribute / "zoo_named" / "inner"
    inner.mkdir()
    (inner / "m.json").write_text(dump(Manifest(entries=(dataclasses.replace(entry, name="probe-named"),))))
    damaged = listed(home, "zoo-damaged", "probe-damaged", entry)
    good = (home / "probe.safetensors").read_bytes()
    (faces / "zoo_faces/weights/probe.safetensors").write_bytes(good)
    (inner / "probe.safetensors").write_bytes(good)  # beside the manifest
    (damaged / "zoo_damaged/weights/probe.safetensors").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    twins = [listed(home, name, "probe-twice", entry) for name in ("zoo-left", "zoo-right")]
    entries = {
        "gone": "zoo_broken:no.json", "text": "zoo_broken:bad.json", "code": "zoo_broken.raises:M",
        "number": "zoo_broken.number:M", "odd": "zoo_broken",
    }  # fmt: skip
    files = {"bad.json": "{", "raises.py": "1 / 0\n", "number.py": "M = 7\n"}
    broken = project(home, "zoo-broken", entries, files)
    one, two = (listed(home, name, f"probe-{name}", entry) for name in ("zoo-one", "zoo-two"))
    for root in (one, two):
        text = (root / "pyproject.toml").read_text()
        (root / "pyproject.toml").write_text(
            text.replace("zoo-one-models", "shared").replace("zoo-two-models", "shared")
        )
    pip_install(home / "site", faces, attribute, damaged, *twins, broken, one, two)
    return home / "site"


def test_every_one_has_its_state_and_a_mend(site: Path) -> None:
    done = run_flowzoo(site, "plugins", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout) if row["kind"] == "manifest"}
    assert {name: row["state"] for name, row in rows.items()} == {
        "zoo-faces-models": "ok", "named": "ok", "zoo-damaged-models": "ok", "zoo-left-models": "ok",
        "zoo-right-models": "ok", "gone": "broken", "text": "broken", "code": "broken", "number": "broken",
        "odd": "broken", "shared": "conflict",
    }  # fmt: skip
    for name, expected in {
        "gone": "no.json", "text": "not valid JSON", "code": "ZeroDivisionError", "number": "int",
        "odd": "'package:file.json'", "shared": "zoo-two",
    }.items():  # fmt: skip
        assert expected in rows[name]["cause"] and rows[name]["mend"], name
    assert "zoo-faces-models" in run_flowzoo(site, "plugins").stdout


def test_its_models_are_listed_and_bad_neighbours_take_none_down(site: Path) -> None:
    done = run_flowzoo(site, "list", "--json")
    assert done.returncode == 0, done.stderr
    names = {row["model"] for row in json.loads(done.stdout)}
    assert {"probe-faces", "probe-named", "probe-damaged", "nice-mnist"} <= names
    assert not names & {"probe-twice", "probe-zoo-one", "probe-zoo-two"}
    for expected in ("probe-twice", "zoo-left", "not valid JSON", "shared", "flowzoo plugins"):
        assert expected in done.stderr
    assert "zoo-faces 1.0" in run_flowzoo(site, "info", "probe-faces").stdout


def test_its_weights_load_and_prove_their_fingerprint(site: Path) -> None:
    done = run_flowzoo(site, "verify", "probe-faces", "probe-named", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (site / "zoo_faces" / "ran").exists(), "code of a distribution of weights runs"


def test_damaged_weights_and_two_of_one_name_are_refused(site: Path) -> None:
    program = """
from flowzoo.errors import FlowzooError
from flowzoo.weights.hub import hub_settings
from flowzoo.weights.load import prepare

for name in ("probe-damaged", "probe-twice"):
    try:
        prepare(name, hub_settings(offline=True))
    except FlowzooError as error:
        print(type(error).__name__, " ".join(str(error).split()))
"""
    damaged, twice = run_python(site, "-c", program).stdout.splitlines()
    assert damaged.startswith("IntegrityError") and "pip install --force-reinstall" in damaged
    assert twice.startswith("ManifestError") and "zoo-left" in twice and "zoo-right" in twice


def test_one_that_is_disabled_leaves_the_name_to_the_other(site: Path) -> None:
    done = run_flowzoo(site, "list", "--json", FLOWZOO_DISABLE_PLUGINS="zoo-one,zoo-left,named")
    names = {row["model"] for row in json.loads(done.stdout)}
    assert {"probe-zoo-two", "probe-twice"} <= names and "probe-named" not in names
