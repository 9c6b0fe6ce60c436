"""Properties of the repository itself: sizes, versions, links between pages, the two commands."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.first_party import PLUGINS

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = (ROOT, *(ROOT / "plugins" / name for name in PLUGINS))

MAX_FUNCTION_LINES = 50
MAX_WEIGHTS_BYTES = 120_000_000
"""Of all weights together, by the budget of the repository."""
MAX_FILE_BYTES = {"cifar10": 16_000_000, "celeba64": 16_000_000, "nice-mnist": 38_400_000, "": 6_000_000}
"""Of a file whose name has these words, the first that fit; nice-mnist is the paper's net of 19 million parameters."""
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def tracked(pattern: str) -> list[Path]:
    """Files of the repository, those that git ignores left out."""
    listing = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "--", pattern)
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for path in (ROOT / line for line in done.stdout.splitlines()) if path.is_file()]


def project(directory: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((directory / "pyproject.toml").read_text())["project"]
    return table


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and number of lines of every function in a file, decorators and docstring not counted."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - first.lineno + 1


def test_no_function_is_too_long() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{name}": lines
        for path in tracked("*.py")
        if "tests" not in path.relative_to(ROOT).parts
        for name, lines in functions(path)
        if lines >= MAX_FUNCTION_LINES
    }
    assert long == {}


def test_nothing_is_left_to_do() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    this = Path(__file__).resolve()
    sources = [path for path in tracked("*.py") if path != this]
    assert [path.relative_to(ROOT).as_posix() for path in sources if marks.search(path.read_text())] == []


def test_five_distributions_share_one_version() -> None:
    assert {project(directory)["version"] for directory in PROJECTS} == {project(ROOT)["version"]}


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_needs_this_core_and_registers_itself(name: str) -> None:
    table = project(ROOT / "plugins" / name)
    assert table["name"] == f"flowzoo-{name}"
    major_minor = ".".join(project(ROOT)["version"].split(".")[:2])
    assert f"flowzoo>={major_minor}" in table["dependencies"]
    assert set(table["entry-points"]["flowzoo.architectures"]) == {name}


def test_the_changelog_opens_with_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[0] in {project(ROOT)["version"], "Unreleased"}
    assert project(ROOT)["version"] in headings


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()


def test_an_unfit_python_is_refused_with_advice(tmp_path: Path) -> None:
    command = ("make", "setup", "PYTHON=no-such-python", f"VENV={tmp_path / 'venv'}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_weights_stay_small_enough_to_clone() -> None:
    weights = tracked("*.safetensors")
    assert sum(path.stat().st_size for path in weights) <= MAX_WEIGHTS_BYTES
    for path in weights:
        limit = next(size for word, size in MAX_FILE_BYTES.items() if word in path.name)
        assert path.stat().st_size <= limit, path.name


def test_links_between_pages_resolve() -> None:
    broken = []
    for page in tracked("*.md"):
        for target in LINK.findall(page.read_text()):
            if "://" in target or target.startswith(("#", "mailto:")):
                continue
            if not (page.parent / target.partition("#")[0]).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []
