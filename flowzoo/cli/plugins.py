"""``flowzoo plugins``: what is installed, in which state, and the conformance kit for one of them."""

from __future__ import annotations

import click

from flowzoo.cli.output import json_option, note, print_json, table
from flowzoo.registry import GROUP, discover, get_architecture
from flowzoo.registry.manifests import GROUP as MANIFESTS
from flowzoo.registry.surroundings import output_to_stderr

COLUMNS = ("name", "kind", "state", "distribution", "version", "cause", "mend")


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def plugins(ctx: click.Context, as_json: bool) -> None:
    """Show the installed architectures, and distributions that bring weights alone, with their states.

    A plugin is ok, broken, incompatible (written for another plugin API), conflict (two distributions
    declare one name) or disabled (by FLOWZOO_DISABLE_PLUGINS=name,...). For one that is not ok, cause
    says why and mend what to run.
    """
    if ctx.invoked_subcommand is not None:
        return
    from flowzoo.manifest.read import shipped_manifests

    found = [*discover().values(), *(row for row, _ in shipped_manifests())]
    if as_json:
        keys = ("name", "kind", "state", "distribution", "version", "entry_point", "cause", "mend")
        print_json([{key: str(getattr(plugin, key)) for key in keys} for plugin in found])
        return
    table(COLUMNS, [[str(getattr(plugin, key)) for key in COLUMNS] for plugin in found])
    if not found:
        note(f"No installed distribution declares an entry point in the group {GROUP!r} or {MANIFESTS!r}.")


@plugins.command(short_help="Run the conformance kit on an architecture.")
@click.argument("name")
@json_option
def check(name: str, as_json: bool) -> int:
    """Run the conformance kit on the architecture NAME; exit code 1 if a check fails."""
    get_architecture(name)
    from flowzoo.testing import NotAsked, run_conformance

    with output_to_stderr():
        results = [tuple(result) for result in run_conformance(name)]
    failed = sum(not passed for _, passed, _ in results)
    if as_json:
        rows = [
            {"check": check, "passed": bool(passed), "detail": detail} for check, passed, detail in results
        ]
        print_json({"architecture": name, "passed": not failed, "checks": rows})
    else:
        table(
            ("check", "result", "detail"),
            [
                (
                    check,
                    "FAILED" if not ok else "not asked" if isinstance(detail, NotAsked) else "passed",
                    detail,
                )
                for check, ok, detail in results
            ],
        )
        note(f"{name}: {len(results) - failed} of {len(results)} checks passed.")
    return 1 if failed or not results else 0
