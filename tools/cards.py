"""Writes what the documentation says of the models: ``python -m tools.cards [--check]``.

The README's table and pictures, ``docs/models.md`` and a card for each model under ``docs/models/`` come
from ``weights_manifest.json``, the pictures in ``docs/images`` and what :mod:`tools.beside` reads.
``--check`` writes nothing and fails if anything differs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import click
from PIL import Image

from flowzoo.api import Architecture
from flowzoo.manifest.read import Entry, Manifest, parse
from flowzoo.registry import get_architecture
from tools.beside import Beside
from tools.card import GENERATED, card
from tools.cells import count, finite, published, ranked, several_samples, shape, table, wide
from tools.families import by_family
from tools.gallery import gallery
from tools.points_models import points_models

ROOT = Path(__file__).resolve().parent.parent
PICTURES_A_ROW = 3
COLUMNS = """\
Compare models by the figure of one noise sample an image, which all of them have; that of eight is an
importance-weighted bound. ≤ marks a bound, of learned noise or of eight samples. ± is the standard error over the test
items, and stands at the figure on record, which `flowzoo eval` verifies."""
"""What the columns of figures are, in the README and in docs/models.md."""

Architectures = Callable[[str], Architecture]


def render(
    manifest: Manifest,
    readme: str,
    pictures: Mapping[str, str],
    architectures: Architectures,
    beside: Beside | None = None,
) -> Mapping[str, str]:
    """Every generated file of the repository.

    Args:
        manifest: The models.
        readme: The README as it is; what lies between its markers is replaced.
        pictures: Names of the files in ``docs/images``, each with the temperature that it states.
        architectures: From an architecture's name to what its plugin says of it.
        beside: Times, divergences and captions; none if not given.

    Returns:
        Path relative to the root of the repository to content.
    """
    entries = [entry for name in manifest.names() if (entry := manifest.default(name)) is not None]
    trained = [entry for entry in entries if entry.weights is not None]
    untrained = [entry for entry in entries if entry.weights is None]
    readme = _between(readme, "models", _readme_models(trained, untrained))
    files = {
        "README.md": _between(readme, "samples", _readme_samples(trained, pictures)),
        "docs/models.md": _models_page(trained, untrained, pictures),
    }
    for entry in entries:
        files[f"docs/models/{entry.name}.md"] = card(
            entry, architectures(entry.architecture), pictures, beside
        )
    return files


def _between(page: str, marker: str, content: str) -> str:
    pattern = re.compile(rf"(<!-- {marker}: [^\n]*-->\n).*?(<!-- /{marker} -->)", flags=re.DOTALL)
    found, replaced = pattern.subn(lambda match: f"{match[1]}{content}{match[2]}", page)
    if replaced != 1:
        raise click.ClickException(
            f"README.md has {replaced} places for {marker!r}; expected one pair of markers."
        )
    return found


def _readme_models(trained: list[Entry], untrained: list[Entry]) -> str:
    rows = [
        (
            f"[`{entry.name}`](docs/models/{entry.name}.md)",
            entry.data.id,
            count(entry.num_params),
            ranked(entry),
            several_samples(entry),
            published(entry),
            finite(entry),
        )
        for entry in trained
    ]
    headings = ("bits/dim on test, one sample", "eight samples", "published", "finite samples")
    found = table(("model", "data", "parameters", *headings), rows)
    return (
        f"\n{found}\n\n{COLUMNS} Finite samples\nare counted at temperature 1. Protocols and sources of the published "
        "figures are in each model's card.\n[docs/models.md](docs/models.md) lists these and "
        f"{len(untrained)} configurations that have no weights yet.\n\n"
    )


def _readme_samples(trained: list[Entry], pictures: Mapping[str, str]) -> str:
    shown = [entry.name for entry in trained if f"{entry.name}.png" in pictures]
    blocks = []
    for first in range(0, len(shown), PICTURES_A_ROW):
        names = shown[first : first + PICTURES_A_ROW]
        images = [f"![Samples of {name}](docs/images/{name}.png)" for name in names]
        captions = [f"temperature {pictures[f'{name}.png'] or 'not recorded'}" for name in names]
        blocks.append(table([f"`{name}`" for name in names], [images, captions]))
    return "".join(f"\n{block}\n" for block in blocks) + ("\n" if blocks else "")


def _models_page(trained: list[Entry], untrained: list[Entry], pictures: Mapping[str, str]) -> str:
    sections = [
        f"## {family}\n\n{_with_weights(members)}{_without_weights(members)}"
        for family, members in by_family([*trained, *untrained]).items()
    ]
    return (
        f"{GENERATED}\n\n# Models\n\nFigures are bits per dimension of images, and nats of vectors.\n{COLUMNS}\n"
        "Published figures are references, never gates: each card has source and protocol.\n\n"
        "`flowzoo.load(NAME)` loads a model with weights. `flowzoo.create(NAME)` builds a configuration without "
        "weights\nuntrained, and `flowzoo train NAME --out RUN` trains it.\n\n"
        + "\n".join(sections).rstrip("\n")
        + "\n"
        + "".join(
            f"\n{section}"
            for section in (points_models([*trained, *untrained]), gallery([*trained, *untrained], pictures))
            if section
        )
    )


def _with_weights(members: list[Entry]) -> str:
    rows = [
        (
            f"[`{entry.name}`](models/{entry.name}.md)",
            entry.architecture,
            f"{entry.data.id}/{entry.data.split}",
            shape(entry),
            count(entry.num_params),
            ranked(entry),
            several_samples(entry),
            published(entry),
        )
        for entry in members
        if entry.weights is not None
    ]
    headings = ("data", "shape", "parameters", "one sample", "eight samples", "published")
    found = wide(table(("model with weights", "architecture", *headings), rows))
    return f"{found}\n\n" if rows else ""


def _without_weights(members: list[Entry]) -> str:
    rows = [
        (
            f"[`{entry.name}`](models/{entry.name}.md)",
            entry.architecture,
            entry.data.id,
            shape(entry),
            count(entry.num_params),
            published(entry),
            entry.published.source if entry.published else f"none: {entry.published_reason}",
        )
        for entry in members
        if entry.weights is None
    ]
    headings = ("data", "shape", "parameters", "published", "source")
    found = wide(table(("configuration without weights", "architecture", *headings), rows))
    return f"{found}\n" if rows else ""


def expected(root: Path) -> Mapping[str, str]:
    """The generated files as they should be in the checkout at ``root``."""
    manifest_path = root / "weights_manifest.json"
    manifest = parse(manifest_path.read_text(encoding="utf-8"), manifest_path.name)
    pictures = {path.name: temperature(path) for path in sorted((root / "docs/images").glob("*.png"))}
    readme = (root / "README.md").read_text(encoding="utf-8")
    return render(manifest, readme, pictures, get_architecture, Beside.read(root))


def temperature(picture: Path) -> str:
    """The temperature that a grid of samples states; empty if it states none."""
    with Image.open(picture) as found:
        return str(found.info.get("temperature", ""))


def differences(root: Path) -> list[str]:
    """Generated files that are missing, out of date, or of a model that is gone."""
    files = expected(root)
    cards = {path.relative_to(root).as_posix() for path in (root / "docs/models").glob("*.md")}
    return sorted(
        {name for name, content in files.items() if _content(root / name) != content} | (cards - files.keys())
    )


def _content(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; fail if a generated file differs.")
def main(check: bool) -> None:
    """Writes the README's table and the model cards from the manifest."""
    stale = differences(ROOT)
    if check:
        if stale:
            raise click.ClickException(f"out of date: {', '.join(stale)}. Run: make docs")
        return
    files = expected(ROOT)
    for name in stale:
        path = ROOT / name
        if name in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[name], encoding="utf-8")
        else:
            path.unlink()
        click.echo(f"{'wrote' if name in files else 'removed'} {name}", err=True)


if __name__ == "__main__":
    main()
