"""``flowzoo new-plugin``: what it writes is installed by a real pip, passes its checks and trains, unedited."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flowzoo.cli.main import cli
from flowzoo.errors import InputError
from flowzoo.templates import new_plugin, rendered
from tests.pip_site import pip_install, run_flowzoo, run_python
from tests.plugin_factory import good

SMALL = [
    "steps=3", "batch_size=8", "init_images=16", "validate_every=3", "validate_images=16", "samples=4",
]  # fmt: skip
SETS = [*(f"train.{text}" for text in SMALL), "schedule.0.steps=1"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both plugins as the command writes them, and both installed in ``site``."""
    home = tmp_path_factory.mktemp("new-plugin")
    for words in (["tide-pool"], ["pebbles", "--dataset"]):
        done = subprocess.run(
            [sys.executable, "-m", "flowzoo", "new-plugin", *words, "--dir", str(home / words[0])],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert {Path(line) for line in done.stdout.splitlines()} == {
            path for path in (home / words[0]).rglob("*") if path.is_file()
        }
        assert "pip install -e" in done.stderr
    pip_install(home / "site", home / "tide-pool", home / "pebbles")
    return home


def test_the_architecture_is_ok_and_passes_its_kit(home: Path) -> None:
    rows = {row["name"]: row for row in json.loads(run_flowzoo(home / "site", "plugins", "--json").stdout)}
    assert (rows["tide-pool"]["state"], rows["tide-pool"]["distribution"]) == ("ok", "flowzoo-tide-pool")
    done = run_flowzoo(home / "site", "plugins", "check", "tide-pool", "--json")
    assert done.returncode == 0, done.stdout
    checks = json.loads(done.stdout)["checks"]
    assert len(checks) > 10 and all(check["passed"] for check in checks)


def test_every_field_of_its_config_has_a_meaning(home: Path) -> None:
    found = json.loads(run_flowzoo(home / "site", "info", "tide-pool", "--json").stdout)
    assert len(found["config_fields"]) > 4
    assert [row["name"] for row in found["config_fields"] if not row["meaning"]] == []


TRAINING = """
import flowzoo
from flowzoo.training.export import export_weights

for preset, sets in PRESETS.items():
    outcome = flowzoo.train(preset, preset, sets=sets, progress=False)
    export_weights(preset, preset + "-exported")
    flow = flowzoo.load(f"path:{preset}-exported")
    print(preset, outcome.step, flow.architecture, tuple(flow.data_shape))
"""


@pytest.fixture(scope="module")
def trained(home: Path) -> dict[str, str]:
    """By preset, of a training of three steps: steps, architecture and data of the model that its export loads."""
    presets = {"tide-pool-tiny": [*SETS, "data.dataset=pebbles"], "tide-pool-moons": SETS}
    done = run_python(home / "site", "-c", f"PRESETS = {presets!r}\n{TRAINING}", cwd=home)
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_its_preset_of_images_trains_on_the_other_plugins_data_set(trained: dict[str, str]) -> None:
    assert trained["tide-pool-tiny"] == "3 tide-pool (1, 8, 8)"


def test_its_preset_of_vectors_trains_from_nothing(trained: dict[str, str]) -> None:
    assert trained["tide-pool-moons"] == "3 tide-pool (2,)"


def test_their_own_tests_pass(home: Path) -> None:
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", "--import-mode=importlib", "--rootdir=."]
    # The kit has run above.
    words += ["-k", "compress or splits or vary", "tide-pool/tests", "pebbles/tests"]
    done = run_python(home / "site", *words, cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


@pytest.mark.parametrize("kind", ["architecture", "dataset"])
def test_nothing_is_left_to_fill_in_and_it_is_plain_python(kind: str) -> None:
    for path, text in rendered("a-b_c2", kind).items():  # type: ignore[arg-type]
        assert "tmpl" not in path and "package/" not in path
        assert not re.search(r"\$\{?(name|package|distribution|version|year)", text), path
        if path.endswith(".py"):
            compile(text, path, "exec")
            assert max(map(len, text.splitlines()), default=0) <= 120
    assert "flowzoo_a_b_c2/__init__.py" in rendered("a-b_c2", kind)  # type: ignore[arg-type]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["new-plugin", *arguments], standalone_mode=False)


@pytest.mark.parametrize("name", ["", "1flow", "My", "a b", "a--b", "../x", "a.b", "é", "x" * 65, "-x"])
def test_a_name_that_cannot_be_one_is_refused(name: str, tmp_path: Path) -> None:
    result = run("--dir", str(tmp_path / "new"), "--", name)
    assert isinstance(result.exception, InputError)
    assert "lower-case" in str(result.exception) and "\n" not in str(result.exception)
    assert not (tmp_path / "new").exists()


def test_a_name_that_is_taken_is_refused(tmp_path: Path, install: Callable[..., None]) -> None:
    install(good("waves"))
    for words, owner in (
        (["waves"], "zoo-waves"),
        (["glow-mnist"], "preset"),
        (["mnist", "--dataset"], "built in"),
    ):
        result = run(*words, "--dir", str(tmp_path / "new"))
        assert isinstance(result.exception, InputError)
        assert "is taken" in str(result.exception) and owner in str(result.exception)
    assert not (tmp_path / "new").exists()


def test_a_directory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(InputError, match="precious"):
        new_plugin("ripple", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    file = tmp_path / "precious"
    with pytest.raises(InputError, match="not a directory"):
        new_plugin("ripple", file)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert new_plugin("ripple", empty) == empty and (empty / "pyproject.toml").is_file()


def test_json_names_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = json.loads(run("ripple", "--json").stdout)
    assert found["directory"] == "flowzoo-ripple" and found["kind"] == "architecture"
    assert all(Path(path).is_file() for path in found["files"])
