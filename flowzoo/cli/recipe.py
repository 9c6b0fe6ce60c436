"""``flowzoo recipe``: a preset's recipe as a file to begin one's own with."""

from __future__ import annotations

import click

from flowzoo.cli.output import json_option, note, print_json, print_line


@click.command()
@click.argument("name")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override: train.steps=2000.")
@click.option(
    "--data", "dataset", metavar="ID", help="The data set: an id, folder:DIR?size=N, ... [the preset's]."
)
@json_option
def recipe(name: str, sets: tuple[str, ...], dataset: str | None, as_json: bool) -> None:
    """Write the recipe of the preset NAME to stdout, resolved, each key with its meaning.

    flowzoo recipe glow-mnist > my.toml, edit it, and flowzoo train my.toml --out run. A preset that brings no recipe
    gets a general one.
    """
    from flowzoo.training.starter import GENERAL, commented, starter

    found = starter(name, sets, dataset=dataset)
    if as_json:
        print_json(found.to_dict())
    else:
        for line in commented(found):
            print_line(line)
    if found.note == GENERAL["note"]:
        note(f"{name} brings no recipe: this is a general one.")
    if not found.data.dataset:
        note("No data set is named: fill in data.dataset, or give --data ID (`flowzoo data list`).")
