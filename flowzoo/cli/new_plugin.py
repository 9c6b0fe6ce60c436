"""``flowzoo new-plugin``: a package to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from flowzoo.cli.output import json_option, note, print_json, print_line


@click.command("new-plugin")
@click.argument("name")
@click.option("--dataset", is_flag=True, help="A plugin that brings a data set instead of an architecture.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    help="Where to write: missing or empty [flowzoo-NAME].",
)
@json_option
def new_plugin(name: str, dataset: bool, directory: Path | None, as_json: bool) -> None:
    """Write a plugin NAME that installs, passes its kit and trains before a line of it is edited.

    The directory gets pyproject.toml, a package with metadata, config, model, recipes and an empty manifest, tests and
    a README that says what to run.
    """
    from flowzoo.templates import PluginKind, rendered
    from flowzoo.templates import new_plugin as write

    kind: PluginKind = "dataset" if dataset else "architecture"
    target = write(name, directory, kind=kind)
    paths = [str(target / path) for path in rendered(name, kind)]
    if as_json:
        print_json({"name": name, "kind": kind, "directory": str(target), "files": paths})
    else:
        for path in paths:
            print_line(path)
    check = "flowzoo data list" if dataset else f"flowzoo plugins check {name}"
    note(f"Next: pip install -e {target}, then {check}. {target / 'README.md'} has more.")
