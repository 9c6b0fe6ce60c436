"""Prints the lines of each package at two commits: ``python -m tools.lines BEFORE [AFTER]``."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections import Counter
from pathlib import Path, PurePosixPath

import click

ROOT = Path(__file__).resolve().parent.parent


def package_of(path: PurePosixPath) -> str | None:
    """The package that a file of Python counts for: ``flowzoo/ops``, ``plugins/glow``, ``tests``; None of others."""
    if path.suffix != ".py" or len(path.parts) < 2:
        return None
    if path.parts[0] == "flowzoo":
        return f"flowzoo/{path.parts[1]}" if len(path.parts) > 2 else "flowzoo"
    if path.parts[0] == "plugins":
        return "tests" if "tests" in path.parts else f"plugins/{path.parts[1]}"
    return path.parts[0]


def lines(commit: str) -> Counter[str]:
    """Lines of Python of each package at a commit, comments and docstrings included.

    Raises:
        click.ClickException: There is no such commit.
    """
    done = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise click.ClickException(f"git knows no commit {commit!r} here: {done.stderr.decode().strip()}")
    found: Counter[str] = Counter()
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:
            package, file = package_of(PurePosixPath(member.name)), archive.extractfile(member)
            if package is not None and file is not None:
                found[package] += file.read().count(b"\n")
    return found


@click.command()
@click.argument("before")
@click.argument("after", default="HEAD")
def main(before: str, after: str) -> None:
    """Prints a table of the lines of Python of each package at two commits."""
    one, other = lines(before), lines(after)
    click.echo(f"| package | {before} | {after} |\n|---|---:|---:|")
    for package in sorted({*one, *other}):
        click.echo(f"| {package} | {one[package] or ''} | {other[package] or ''} |")
    click.echo(f"| all | {one.total()} | {other.total()} |")


if __name__ == "__main__":
    main()
