"""Every block of README and docs is run, or, where it needs a network or data that are not here, checked."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import flowzoo.bijectors
from flowzoo.bijectors import Bijector, Coupling
from flowzoo.training.recipe import parse_recipe
from tests.documents import ROOT, SHELL, Block, blocks, check_command, check_python, commands

NEEDS = {
    r"flowzoo\.load\(\"hf:": "a network",
    r"accelerate|lightning": "a package that may not be here; tests/training/test_own_loop.py runs it where it is",
    r"flowzoo\.save\(flow, \"my-glow\"": "seconds; tests/training/test_own_loop.py runs it",
    r"\"path:": "a directory that an earlier command has written",
    r"flowzoo\.train\(": "hours, and MNIST's training images",
    r"flowzoo\.evaluate\(": "minutes",
    r"tensorflow": "TensorFlow",
    r"import gradio": "gradio",
    r"\btrain\b.*device=\"cuda\"": "a GPU",
    r"conformance_suite": "the plugin to be installed",
}
"""Why a block of Python cannot be run here, by a pattern of its text."""

PYTHON = blocks("python")
RUN = [block for block in PYTHON if not any(re.search(pattern, block.text) for pattern in NEEDS)]

PROGRAM = """
import os, sys, traceback
import flowzoo, torch

for page, blocks in {pages!r}.items():
    child = os.fork()
    if child:
        if os.waitpid(child, 0)[1]:
            sys.exit(page)
        continue
    try:
        sys.modules["page"] = type(sys)("page")
        names = {{"flowzoo": flowzoo, "torch": torch, "__name__": "page"}}
        for place, text in blocks:
            print(place, file=sys.stderr)
            exec(compile(text, place, "exec"), names)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)
"""
"""Runs pages in processes of their own: what one imports is not there for the next."""


def sessions() -> list[list[str]]:
    """Pages that share an import of torch, which takes longer than most of them."""
    pages = sorted({block.page for block in RUN})
    return [pages[start::4] for start in range(4)]


def test_every_page_is_looked_at() -> None:
    pages = {block.page for block in blocks()}
    assert {"README.md", "docs/data.md", "docs/weights.md", "docs/plugins.md", "docs/training.md"} <= pages
    assert {"docs/convert.md", "docs/evaluation.md", "docs/models/glow-mnist.md"} <= pages
    known = {*SHELL, "python", "toml", "json", "bibtex", "text"}
    assert {block.language for block in blocks()} <= known


@pytest.mark.parametrize("block", blocks(*SHELL), ids=str)
def test_commands_exist_with_their_options(block: Block) -> None:
    found = commands(block)
    assert found
    for words in found:
        check_command(words)
        if words[0] == "make":
            listed = subprocess.run(
                ("make", "-n", words[1], "VENV=x"), cwd=ROOT, capture_output=True, check=False
            )
            assert listed.returncode == 0


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_names_what_exists(block: Block) -> None:
    check_python(block.text)


@pytest.mark.parametrize("pages", sessions(), ids=lambda pages: pages[0])
def test_python_runs(pages: list[str], tmp_path: Path) -> None:
    """Block after block, as a reader would, each page with names of its own."""
    texts = {page: [(str(block), block.text) for block in RUN if block.page == page] for page in pages}
    script = tmp_path / "page.py"
    script.write_text(PROGRAM.format(pages=texts), encoding="utf-8")
    env = {key: value for key, value in os.environ.items() if not key.startswith("FLOWZOO_")}
    done = subprocess.run(
        (sys.executable, script), cwd=tmp_path, env={**env, "FLOWZOO_OFFLINE": "1"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_only_what_must_be_is_left_unrun() -> None:
    ran = {block.page for block in RUN}
    assert {"README.md", "docs/data.md", "docs/plugins.md", "docs/models/glow-mnist.md"} <= ran


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_toml_is_toml_and_recipes_are_recipes(block: Block) -> None:
    data = tomllib.loads(block.text)
    if "schema" in data and "train" in data:
        assert parse_recipe(data, str(block)).name


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


def test_exported_is_said_of_the_command_that_exports() -> None:
    texts = [path.read_text("utf-8") for folder in ("docs", "flowzoo") for path in (ROOT / folder).rglob("*.*")
             if path.suffix in (".md", ".py")]  # fmt: skip
    wrong = re.compile(r"flowzoo train`? exports|exports? it with `flowzoo train|`flowzoo train` exports")
    assert [text for text in texts if wrong.search(text)] == []


# --- the table of bijectors ------------------------------------------------------------------------------------


def table() -> dict[str, str]:
    """The arguments of each bijector in docs/plugins.md, by its name."""
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| .* \|$", text, re.MULTILINE)
    return {name: arguments for name, arguments in rows if hasattr(flowzoo.bijectors, name)}


@pytest.mark.parametrize("name", table())
def test_a_bijectors_arguments_are_those_of_the_table(name: str) -> None:
    parameters = inspect.signature(getattr(flowzoo.bijectors, name)).parameters
    named: dict[str, Any] = {}
    for text in re.findall(r"`\*?([^`]*)`", table()[name]):
        argument, _, default = text.partition("=")
        assert argument in parameters, argument
        assert not default or repr(parameters[argument].default) == default.replace('"', "'"), text
        named[argument] = default
    fixed = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    required = {n for n, p in parameters.items() if p.default is p.empty and p.kind in fixed}
    assert required <= set(named)


def test_the_table_has_every_bijector() -> None:
    offered = [getattr(flowzoo.bijectors, name) for name in flowzoo.bijectors.__all__]
    kinds = {kind.__name__ for kind in offered if inspect.isclass(kind) and issubclass(kind, Bijector)}
    assert set(table()) == kinds - {Bijector.__name__, Coupling.__name__}
