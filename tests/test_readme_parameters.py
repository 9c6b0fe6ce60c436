"""The numbers of parameters that the plugins' READMEs state."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowzoo

PLUGINS = Path(__file__).parents[1] / "plugins"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def stated(readme: Path) -> Iterator[tuple[str, int]]:
    """Each preset of a table with a column of parameters, and its number."""
    column = None
    for line in readme.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            column = None
        elif column is None:
            head = cells(line)
            column = head.index("parameters") if "parameters" in head and head[0] == "preset" else -1
        elif column >= 0 and "`" in line:
            row = cells(line)
            names = re.findall(r"`([\w-]+)`", row[0])
            counts = [int(found.replace(",", "")) for found in re.findall(r"\d{1,3}(?:,\d{3})*", row[column])]
            yield from zip(names, counts, strict=True)


STATED = [
    (f"{readme.parent.name}-{preset}", count)
    for readme in sorted(PLUGINS.glob("*/README.md"))
    for preset, count in stated(readme)
]


@pytest.mark.parametrize(("name", "count"), STATED, ids=[name for name, _ in STATED])
def test_a_readme_states_the_parameters_that_a_preset_has(name: str, count: int) -> None:
    model = flowzoo.create(name, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_tables_are_found() -> None:
    assert len(STATED) >= 16
