"""The mathematics knows nothing of its speed, and the tensor functions nothing of modules."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import flowzoo

ROOT = Path(flowzoo.__file__).parent
FORBIDDEN = {
    "bijectors": ("engine",),
    "nets": ("engine", "bijectors"),
    "densities": ("engine",),
    "ops": ("engine", "bijectors", "nets", "densities"),
}


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_only_what_it_may_know(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not name.startswith(tuple(f"flowzoo.{other}" for other in FORBIDDEN[room])), path
