"""The pages of the documentation, their fenced blocks, and what can be checked of a block without running it."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import click
import torch

import flowzoo
from flowzoo.cli.main import cli
from flowzoo.factory import preset_names
from tests.first_party import PLUGINS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("plugins/*/README.md")]
)  # fmt: skip
SHELL = ("sh", "bash", "console")
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_MODEL = re.compile(rf"(?:{'|'.join(PLUGINS)})-[a-z0-9]+(?:-[a-z0-9]+)*")


class Block(NamedTuple):
    """A fenced block: the page it is on, the line it begins at, its language and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """The blocks of all pages in these languages, or in any."""
    return [block for page in PAGES for block in _of(page) if not languages or block.language in languages]


def _of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        inside = "\n".join(line.removeprefix(match[1]) for line in match[3].splitlines()) + "\n"
        line = text.count("\n", 0, match.start()) + 1
        language = match[2] or ("sh" if re.match(r"\s*(\$ )?(flowzoo|torchrun) ", match[3]) else "text")
        yield Block(page.relative_to(ROOT).as_posix(), line, language, inside)


# --- commands -----------------------------------------------------------------------------------------------


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a shell block, comments and prompts left out."""
    lines = block.text.replace("\\\n", " ").splitlines()
    split = [shlex.split(line.strip().removeprefix("$ "), comments=True) for line in lines]
    return [words for words in split if words]


def check_command(words: list[str]) -> None:
    """Fails unless a command of flowzoo has this name and these options, and the models it names exist."""
    if "-m" in words and words[words.index("-m") + 1] == "flowzoo":
        words = words[words.index("-m") + 1 :]
    if words[0] != "flowzoo":
        assert words[0] in ("pip", "make", "export", "hf", "python"), words
        return
    command, rest = _command(words[1:])
    with click.Context(command) as context:
        command.make_parser(context).parse_args(rest)
    for before, name in pairwise(words):
        if _MODEL.fullmatch(name) and not before.startswith("-"):
            assert name in {*preset_names(), *flowzoo.list_models()}, name


def _command(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the first words name, and what follows them."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        with click.Context(command) as context:
            found = command.get_command(context, words[0])
        assert found is not None, f"no command {words[0]!r}"
        command, words = found, words[1:]
    return command, words


# --- Python -------------------------------------------------------------------------------------------------


def check_python(text: str) -> None:
    """Fails unless it is Python, and the names and keywords that it takes from installed packages are there."""
    tree = ast.parse(text)
    known: dict[str, Any] = {"flowzoo": flowzoo, "torch": torch, "flow": flowzoo.create("nice-tiny")}
    for node in ast.walk(tree):
        known |= dict(_imported(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            _resolve(node, known)
        if isinstance(node, ast.Call):
            _check_keywords(node, _resolve(node.func, known))


def _imported(node: ast.AST) -> Iterator[tuple[str, Any]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if _is_there(alias.name):
                importlib.import_module(alias.name)
                top = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or top, importlib.import_module(top)
    elif isinstance(node, ast.ImportFrom) and node.module and _is_there(node.module):
        module = importlib.import_module(node.module)
        for alias in node.names:
            yield alias.asname or alias.name, getattr(module, alias.name)


def _is_there(module: str) -> bool:
    """True for flowzoo's own modules, and for others that are installed: a page may invent the reader's."""
    top = module.partition(".")[0]
    return top == "flowzoo" or importlib.util.find_spec(top) is not None


def _resolve(node: ast.AST, known: dict[str, Any]) -> Any:
    """The object that a dotted name stands for; None where that shows only when it runs."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    owner = _resolve(node.value, known)
    if owner is None or not isinstance(owner, ModuleType | type | torch.nn.Module):
        return None
    assert hasattr(owner, node.attr), f"{ast.unparse(node)} does not exist"
    return getattr(owner, node.attr)


def _check_keywords(call: ast.Call, function: Any) -> None:
    if function is None:
        return
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for keyword in call.keywords:
        assert keyword.arg is None or keyword.arg in parameters, f"{ast.unparse(call)}: {keyword.arg}"
