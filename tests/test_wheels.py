"""The wheels of flowzoo and its plugins, installed without the checkout, are a working zoo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.first_party import PLUGINS

ROOT = Path(__file__).resolve().parent.parent


def bundled_models() -> list[dict[str, Any]]:
    """The manifest's entries whose weights lie inside a plugin's package."""
    entries = json.loads((ROOT / "weights_manifest.json").read_text())["models"]
    return [entry for entry in entries if entry["weights"] and weights_path(entry).is_file()]


def weights_path(entry: dict[str, Any]) -> Path:
    architecture, filename = entry["architecture"], entry["weights"]["filename"]
    return ROOT / f"plugins/{architecture}/flowzoo_{architecture}/weights" / filename


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Distribution name to wheel, built here without an isolated environment, hence without a network."""
    out = tmp_path_factory.mktemp("wheels")
    sources = [ROOT, *(ROOT / "plugins" / name for name in PLUGINS)]
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", out)
    run(sys.executable, "-m", "pip", "wheel", *options, *sources, cwd=out)
    return {path.name.split("-")[0]: path for path in out.glob("*.whl")}


def dependencies_without_flowzoo(directory: Path) -> Path:
    """A folder of links to all that is installed here but flowzoo, so that torch needs no second copy."""
    directory.mkdir()
    for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for item in Path(folder).iterdir():
            ours = item.name.startswith("flowzoo") or item.suffix == ".pth"
            if not ours and not (directory / item.name).exists():
                (directory / item.name).symlink_to(item)
    return directory


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of a new virtual environment that holds the wheels and cannot see the checkout."""
    home = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", home / "venv", cwd=home)
    python = home / "venv/bin/python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    (site / "dependencies.pth").write_text(f"{dependencies_without_flowzoo(home / 'dependencies')}\n")
    options = ("--quiet", "--no-deps", "--no-index")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, *wheels.values(), cwd=home)
    return python.parent


@pytest.fixture
def environment(installed: Path, tmp_path: Path) -> dict[str, str]:
    """A user's shell after the installation: no data, no cache, no variable of ours, and no network."""
    kept = {key: value for key, value in os.environ.items() if key in {"LANG", "OMP_NUM_THREADS", "TMPDIR"}}
    return kept | {
        "PATH": f"{installed}{os.pathsep}{os.defpath}",
        "HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
    }


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_five_distributions_build(wheels: dict[str, Path]) -> None:
    assert set(wheels) == {"flowzoo", *(f"flowzoo_{name}" for name in PLUGINS)}


def test_the_core_wheel_carries_manifest_types_license_and_test_images(
    wheels: dict[str, Path],
) -> None:
    names = names_in(wheels["flowzoo"])
    assert {"flowzoo/weights_manifest.json", "flowzoo/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    bundled = {path.relative_to(ROOT).as_posix() for path in (ROOT / "flowzoo/data/bundled").rglob("*.*")}
    assert bundled, "the MNIST test split is not in flowzoo/data/bundled"
    assert {name for name in bundled if "__pycache__" not in name} <= names
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "flowzoo/templates").rglob("*.*")}
    assert sum(name.endswith(".tmpl") for name in templates) > 10
    assert {name for name in templates if "__pycache__" not in name} <= names


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_wheel_carries_its_whole_package(wheels: dict[str, Path], name: str) -> None:
    package = ROOT / f"plugins/{name}/flowzoo_{name}"
    sources = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources <= names_in(wheels[f"flowzoo_{name}"])
    assert f"flowzoo_{name}/py.typed" in sources


def test_wheels_hold_no_tests_and_nothing_compiled(wheels: dict[str, Path]) -> None:
    for wheel in wheels.values():
        assert not [name for name in names_in(wheel) if name.startswith("tests/") or name.endswith(".pyc")]


def test_the_checkout_is_out_of_sight(installed: Path, environment: dict[str, str], tmp_path: Path) -> None:
    code = "import flowzoo, flowzoo_glow; print(flowzoo.__file__); print(flowzoo_glow.__file__)"
    for line in run(installed / "python", "-c", code, cwd=tmp_path, env=environment).splitlines():
        assert Path(line).is_relative_to(installed.parent)


def test_declared_dependencies_are_met(installed: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "--python", installed / "python", "check", cwd=tmp_path)


def test_list_shows_every_model_of_the_manifest(
    installed: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    listed = run(installed / "flowzoo", "list", cwd=tmp_path, env=environment)
    entries = json.loads((ROOT / "weights_manifest.json").read_text())["models"]
    assert [entry["name"] for entry in entries if entry["name"] not in listed] == []


def test_every_plugin_is_ok(installed: Path, environment: dict[str, str], tmp_path: Path) -> None:
    rows = json.loads(run(installed / "flowzoo", "plugins", "--json", cwd=tmp_path, env=environment))
    assert {row["name"]: row["state"] for row in rows} == dict.fromkeys(sorted(PLUGINS), "ok")


def test_a_shipped_model_is_evaluated_on_real_images(
    installed: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    (entry,) = (entry for entry in bundled_models() if entry["name"] == "glow-mnist")
    command = (installed / "flowzoo", "eval", "glow-mnist", "--limit", "20", "--json")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout} {done.stderr}"
    found = json.loads(done.stdout)
    assert found["verdict"]["state"] == "partial"
    assert abs(found["bpd"] - entry["measured"]["bpd"]) < 6 * found["stderr"]


def test_every_bundled_model_proves_its_fingerprint(
    installed: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    names = [entry["name"] for entry in bundled_models()]
    assert names, "weights_manifest.json lists no bundled model"
    run(installed / "flowzoo", "verify", *names, cwd=tmp_path, env=environment)
