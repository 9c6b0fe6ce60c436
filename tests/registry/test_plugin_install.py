"""Third-party plugins, installed by a real pip into a real environment, good and broken side by side."""

from __future__ import annotations

import json
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.first_party import PLUGINS
from tests.manifest_examples import manifest_text, unpublished_entry
from tests.plugin_factory import Distribution, broken, good, guides_plugin, plugin_source

pytestmark = pytest.mark.xdist_group("plugin_install")

DISTRIBUTIONS = [
    good("brook", manifest=manifest_text(unpublished_entry("brook-example"))),
    good("tides"),
    good("tides", "zoo-tides-fork"),
    broken("syntax", "def ("),
    broken("ending", "import sys\nsys.exit(1)"),
    broken("needy", "import no_such_module"),
    broken("future", plugin_source("future", "zoo_future", api_version=3, extra="invented_later=1,")),
    broken("absent", "x = 1"),
    broken("wrong", "ARCHITECTURE = 42"),
]
STATES = {
    "brook": "ok",
    "tides": "conflict",
    "syntax": "broken",
    "ending": "broken",
    "needy": "broken",
    "future": "incompatible",
    "absent": "broken",
    "wrong": "broken",
    "ripple": "ok",
    **dict.fromkeys(PLUGINS, "ok"),
}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own that sees this one's packages, with all the plugins installed by pip."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home / "venv", with_pip=False, symlinks=True)
    interpreter = home / "venv" / "bin" / "python"
    [site] = (home / "venv").glob("lib/python*/site-packages")
    # addsitedir, unlike a bare path, also follows the .pth files of editable installs.
    (site / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    projects = [str(made.write_project(home)) for made in DISTRIBUTIONS] + [
        str(guides_plugin(home / "ripple"))
    ]
    pip(interpreter, "install", "--no-deps", "--no-build-isolation", "--no-index", *projects)
    return interpreter


def pip(python: Path, *arguments: str) -> None:
    done = subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", "-q", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def run(python: Path) -> Run:
    """Runs the command line in that environment."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-m", "flowzoo", *arguments], capture_output=True, text=True, check=False
        )

    return call


def test_every_plugin_has_its_state(run: Run) -> None:
    done = run("plugins", "--json")
    assert done.returncode == 0
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert {name: row["state"] for name, row in rows.items()} == STATES
    for name, row in rows.items():
        assert (row["cause"] == "") == (row["mend"] == "") == (row["state"] == "ok"), name


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["list", "--presets"], ["info", "glow-tiny"], ["plugins"]]
)
def test_nothing_is_taken_down(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_using_a_bad_plugin_says_what_to_do(run: Run) -> None:
    for name, state in STATES.items():
        if state != "ok":
            done = run("info", f"{name}-tiny")
            assert done.returncode == 4
            for expected in (name, f"is {state}", "zoo-", "1.0", "pip"):
                assert expected in done.stderr


def test_a_good_plugin_builds_and_its_models_are_listed(python: Path, run: Run) -> None:
    program = (
        "import torch, flowzoo; flow = flowzoo.create('brook-tiny'); x = flow.sample(2); "
        "print(flow.architecture, tuple(x.shape), x.dtype, flow.bits_per_dim(x).isfinite().all().item())"
    )
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split(maxsplit=1) == ["brook", "(2, 1, 8, 8) torch.uint8 True\n"], done.stderr
    models = {row["model"]: row["status"] for row in json.loads(run("list", "--json").stdout)}
    assert models["brook-example"] == "unpublished"


@pytest.mark.parametrize("name", ["brook", "ripple"])
def test_a_third_party_plugin_passes_the_conformance_kit(run: Run, name: str) -> None:
    done = run("plugins", "check", name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout


def test_following_the_mend_ends_a_conflict(python: Path, run: Run) -> None:
    pip(python, "uninstall", "-y", "zoo-tides-fork")
    rows = {row["name"]: row for row in json.loads(run("plugins", "--json").stdout)}
    assert (rows["tides"]["state"], rows["tides"]["distribution"]) == ("ok", "zoo-tides")


def test_an_upgrade_mends_a_broken_plugin(python: Path, run: Run, tmp_path: Path) -> None:
    fixed = good("syntax")
    newer = Distribution(fixed.name, fixed.entries, fixed.files, version="1.1")
    pip(
        python, "install", "--no-deps", "--no-build-isolation", "--no-index", "--upgrade",
        str(newer.write_project(tmp_path)),
    )  # fmt: skip
    rows = {row["name"]: row for row in json.loads(run("plugins", "--json").stdout)}
    assert (rows["syntax"]["state"], rows["syntax"]["version"]) == ("ok", "1.1")
