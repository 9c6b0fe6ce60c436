"""The first-party plugins get by with what docs/plugins.md offers to everybody."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGINS = sorted((ROOT / "plugins").glob("*/flowzoo_*"))
GUIDE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")


def documented_modules() -> set[str]:
    found = re.search(r"\*\*Use public names only\*\*(.*?)\n\n", GUIDE, re.DOTALL)
    assert found is not None
    return set(re.findall(r"`(flowzoo\.\w+)`", found[1]))


def trees(package: Path) -> Iterator[ast.AST]:
    for path in sorted(package.rglob("*.py")):
        yield ast.parse(path.read_text(encoding="utf-8"))


def core_imports(package: Path) -> set[tuple[str, str]]:
    """The names that a plugin takes from the core, as (module, name); the name is empty for ``import module``."""
    found: set[tuple[str, str]] = set()
    for tree in trees(package):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {(alias.name, "") for alias in node.names if alias.name.split(".")[0] == "flowzoo"}
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "flowzoo":
                found |= {(node.module, alias.name) for alias in node.names}
    return found


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_the_guide_names_modules_that_exist() -> None:
    assert len(documented_modules()) == 9
    for module in documented_modules():
        import_module(module)


@pytest.mark.parametrize("package", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_imports_documented_names(package: Path) -> None:
    imports = core_imports(package)
    assert imports
    for module, name in imports:
        assert ".".join(module.split(".")[:2]) in documented_modules(), module
        assert not any(map(private, [*module.split("."), name]))
        offered = import_module(module)
        assert hasattr(offered, name), f"{module}.{name}"
        assert name in getattr(offered, "__all__", [name]), f"{module}.{name} is not in __all__"
        # Taken from the module that defines it or a package that exports it, not from one that merely uses it.
        assert name in getattr(offered, "__all__", []) or getattr(offered, name).__module__ == module


@pytest.mark.parametrize("package", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_touches_no_private_attribute_but_its_own(package: Path) -> None:
    used: set[str] = set()
    own: set[str] = set()
    for tree in trees(package):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and private(node.attr):
                (own if isinstance(node.ctx, ast.Store) else used).add(node.attr)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                own.add(node.name)
    assert used <= own
