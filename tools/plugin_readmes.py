"""The paragraph of each plugin's README that says what a density and a sample cost; `tools.which_flow` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tools.cells import count, two_digits

OPENING = "<!-- cost: generated from docs/which-flow.json by `python -m tools.which_flow` -->"
CLOSING = "<!-- /cost -->"


def cost(row: Mapping[str, Any]) -> str:
    """The paragraph of a row of ``docs/which-flow.json``."""
    parts = (("density", "density_passes", "log_prob_ms"), ("sample", "sampling_passes", "sample_ms"))
    told = [f"a {what} takes {_passes(row[key])}{_time(row.get(ms))}" for what, key, ms in parts]
    where = " (one thread)" if row.get("log_prob_ms") is not None else ""
    return (
        f"Cost of an MNIST image with `{row['preset']}`: {', '.join(told)}{where}; "
        "[docs/which-flow.md](../../docs/which-flow.md) has all."
    )


def _passes(number: int) -> str:
    return f"{count(number)} pass{'' if number == 1 else 'es'} of its networks"


def _time(ms: float | None) -> str:
    return "" if ms is None else f" and {two_digits(ms)} ms"


def rewritten(text: str, row: Mapping[str, Any]) -> str:
    """A README with its paragraph renewed, or set after the first one."""
    block = f"{OPENING}\n\n{cost(row)}\n\n{CLOSING}"
    if OPENING in text:
        return re.sub(re.escape(OPENING) + ".*?" + re.escape(CLOSING), lambda _: block, text, flags=re.DOTALL)
    title, first, rest = text.split("\n\n", 2)
    return f"{title}\n\n{first}\n\n{block}\n\n{rest}"


def readmes(root: Path, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[Path, str]]:
    """The READMEs of plugins, as they should be."""
    for name, row in rows.items():
        path = root / "plugins" / name / "README.md"
        if path.is_file():
            yield path, rewritten(path.read_text(encoding="utf-8"), row)
