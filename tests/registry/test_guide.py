"""The plugin that docs/plugins.md builds does what the page says: it is found, trains, and its run loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from tests.plugin_factory import guides_plugin

FILES = {
    "pyproject.toml", "flowzoo_ripple/__init__.py", "flowzoo_ripple/recipes/mnist.toml",
    "flowzoo_ripple/weights_manifest.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin in a folder, with the metadata that ``pip install -e`` leaves."""
    project = guides_plugin(tmp_path_factory.mktemp("guide") / "ripple")
    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    info = project / f"flowzoo_ripple-{table['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {table['name']}\nVersion: {table['version']}\n"
    )
    [(group, entries)] = table["entry-points"].items()
    lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")
    return project


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(project, "-m", "flowzoo", *arguments)


def python(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(project), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip


COMMANDS = """
import json, os
import torch, flowzoo
from flowzoo.cli.main import main

ends = []
for words in WORDS:
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        main(words)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps([ends, flowzoo.load("path:exported").architecture]))
"""
"""Each command in a process of its own, forked from one that has imported torch."""


def test_it_is_four_files(project: Path) -> None:
    files = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert {name for name in files if "dist-info" not in name and "__pycache__" not in name} == FILES


def test_it_is_ok_and_passes_the_conformance_kit(project: Path) -> None:
    rows = {row["name"]: row["state"] for row in json.loads(run(project, "plugins", "--json").stdout)}
    assert rows["ripple"] == "ok"
    done = run(project, "plugins", "check", "ripple")
    assert done.returncode == 0, done.stdout


def test_its_recipe_trains_and_what_it_exports_loads(project: Path, tmp_path: Path) -> None:
    images = tmp_path / "images.npy"
    np.save(images, np.random.default_rng(0).integers(0, 256, (300, 28, 28), dtype=np.uint8))
    short = [
        "steps=4",
        "validate_every=4",
        "validate_images=8",
        "init_images=16",
        "batch_size=8",
        "samples=4",
    ]
    sets = [word for text in short for word in ("--set", f"train.{text}")]
    sets += ["--set", f"data.dataset=numpy:{images}", "--set", "schedule.0.steps=2"]
    words = [
        ["train", "ripple-mnist", "--out", "run", *sets],
        ["export", "run", "-o", "exported"],
        ["sample", "path:exported", "-n", "4", "-o", "grid.png", "--temperature", "0.5"],
    ]
    done = python(project, "-c", f"WORDS = {words!r}\n{COMMANDS}")
    assert done.returncode == 0, done.stderr
    (trained, exported, drawn), loaded = json.loads(done.stdout)
    assert (trained, exported) == (0, 0), done.stderr
    assert drawn in (0, 8), done.stderr  # so short a training may draw what is not finite
    assert loaded == "ripple"


def test_its_empty_manifest_is_sound(project: Path) -> None:
    done = run(project, "manifest", "check", "flowzoo_ripple/weights_manifest.json")
    assert done.returncode == 0, done.stderr
    assert "cannot be read" not in run(project, "list").stderr
