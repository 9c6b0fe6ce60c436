"""Writes the leaderboard: ``python -m tools.leaderboard [--check]``.

``docs/leaderboard.md``, ``.csv`` and ``.json``, the pictures in ``docs/images/leaderboard`` and the table in the README
come from ``weights_manifest.json``, ``docs/timings.json`` and ``tools/leaderboard/published.json``. ``--check`` writes
nothing and fails if anything differs.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click

from flowzoo.api import INCOMPARABLE
from flowzoo.manifest.read import parse
from tools.leaderboard.page import page, readme
from tools.leaderboard.plots import AXES, draw, file_name, is_current, points
from tools.leaderboard.rows import Sources, Table, as_records, tables

ROOT = Path(__file__).resolve().parents[2]
README_TABLE, README_ROWS = "mnist", 10
PICTURES = "docs/images/leaderboard"


def sources(root: Path) -> Sources:
    """Everything that the leaderboard of the checkout at ``root`` is made from."""
    manifest = root / "weights_manifest.json"
    text = manifest.read_text(encoding="utf-8")
    others = ("docs/timings.json", "tools/leaderboard/published.json")
    return Sources.read(
        parse(text, manifest.name), text, *((root / name).read_text("utf-8") for name in others)
    )


def pages(found: Sources, old_readme: str) -> Mapping[str, str]:
    """The generated texts by path from the repository's root."""
    made = tables(found)
    plots = {table.name: [file_name(table, axis) for axis in _axes(table)] for table in made}
    return {
        "README.md": _between(old_readme, "leaderboard", readme(made, README_TABLE, README_ROWS)),
        "docs/leaderboard.md": page(made, INCOMPARABLE, plots),
        "docs/leaderboard.csv": _csv(made),
        "docs/leaderboard.json": json.dumps(as_records(made), indent=1, ensure_ascii=False) + "\n",
    }


def pictures(found: Sources) -> Mapping[str, tuple[Table, str]]:
    """The pictures by path, with the table and the axis that each is of."""
    return {
        f"docs/{file_name(table, axis)}": (table, axis) for table in tables(found) for axis in _axes(table)
    }


def _axes(table: Table) -> Sequence[str]:
    """The costs that at least two rows of a table have, one of them a model."""
    return [
        axis
        for axis in AXES
        if len(points(table, axis)) > 1 and any(row.what == "model" for row in table.rows)
    ]


def _csv(made: Sequence[Table]) -> str:
    buffer = io.StringIO()
    records = as_records(made)
    writer = csv.DictWriter(buffer, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**record, "reasons": " ".join(record["reasons"])} for record in records)
    return buffer.getvalue()


def _between(text: str, marker: str, content: str) -> str:
    pattern = re.compile(rf"(<!-- {marker}: [^\n]*-->\n).*?(<!-- /{marker} -->)", flags=re.DOTALL)
    replaced, times = pattern.subn(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", text)
    if times != 1:
        raise click.ClickException(
            f"README.md has {times} places for {marker!r}; expected one pair of markers."
        )
    return replaced


def differences(root: Path) -> Mapping[str, Callable[[], str]]:
    """Files that are missing or out of date, each with what makes its text, and pictures that nothing shows."""
    found = sources(root)
    stale: dict[str, Callable[[], str]] = {}
    for name, text in pages(found, (root / "README.md").read_text(encoding="utf-8")).items():
        if not (root / name).is_file() or (root / name).read_text(encoding="utf-8") != text:
            stale[name] = lambda text=text: text  # type: ignore[misc]
    wanted = pictures(found)
    for name, (table, axis) in wanted.items():
        path = root / name
        if not path.is_file() or not is_current(path.read_text(encoding="utf-8"), table, axis):
            stale[name] = lambda table=table, axis=axis: draw(table, axis)  # type: ignore[misc]
    for path in (root / PICTURES).glob("*.svg"):
        if path.relative_to(root).as_posix() not in wanted:
            stale[path.relative_to(root).as_posix()] = str
    return stale


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; fail if a generated file differs.")
def main(check: bool) -> None:
    """Writes the leaderboard's page, data, pictures and the README's table."""
    stale = differences(ROOT)
    if check and stale:
        raise click.ClickException(f"out of date: {', '.join(sorted(stale))}. Run: make docs")
    for name, make in stale.items():
        path, text = ROOT / name, make()
        if text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        else:
            path.unlink()
        click.echo(f"{'wrote' if text else 'removed'} {name}", err=True)


if __name__ == "__main__":
    main()
