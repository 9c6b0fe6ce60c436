"""``flowzoo manifest``: check what the manifests promise, without weights; print their schema."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from flowzoo.cli.output import json_option, note, print_json, table
from flowzoo.errors import ManifestError, PluginError
from flowzoo.manifest.check import Finding, check_entry, check_online
from flowzoo.manifest.raw import MAX_BYTES
from flowzoo.manifest.read import (
    Manifest,
    check_append_only,
    core_manifest_path,
    load_manifests,
    parse,
    schema,
)
from flowzoo.registry.files import read_small_text

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def manifest() -> None:
    """Check a weights manifest, or print its JSON Schema."""


@manifest.command(short_help="Check manifests: flowzoo's, plugins', FILE.")
@click.argument("file", required=False, type=_FILE)
@click.option(
    "--online", is_flag=True, help="Ask the Hub for size and digest of every file; downloads nothing."
)
@click.option("--endpoint", metavar="URL", help="A mirror of the Hub (also: FLOWZOO_HUB_ENDPOINT).")
@click.option(
    "--against",
    metavar="OLD",
    type=_FILE,
    help="Check that nothing that OLD released was changed or removed.",
)
@json_option
def check(file: Path | None, online: bool, endpoint: str | None, against: Path | None, as_json: bool) -> int:
    """Check the manifests of flowzoo and all plugins, or FILE, against the installed code.

    Every entry's config must build and have the stated hash and number of parameters. The exit code is 0
    if everything holds, 8 if an entry is wrong, 4 if a plugin is, 5 if the Hub holds another file, 6 if
    it does not give it.
    """
    found = _read(file) if file else load_manifests()
    findings = [*_sources(found), *(finding for entry in found.entries for finding in check_entry(entry))]
    if against is not None:
        # With no file named it is core's manifest that grows; plugins have releases of their own.
        new = found if file else _read(core_manifest_path())
        findings += _growth(_read(against), new, against)
    if online:
        from flowzoo.weights.hub import hub_settings

        settings = hub_settings(endpoint=endpoint, offline=False)
        findings += [finding for entry in found.entries for finding in check_online(entry, settings)]
    _show(findings, as_json)
    return _exit_code(findings)


@manifest.command("schema", short_help="Print the JSON Schema of a manifest.")
def print_schema() -> None:
    """Print the JSON Schema of a manifest file, as in docs/manifest.schema.json."""
    print_json(schema())


def _read(path: Path) -> Manifest:
    try:
        text = read_small_text(str(path), MAX_BYTES)
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8 text: {error.reason}.") from error
    except ValueError as error:
        raise ManifestError(f"{path} cannot be read: {error}. Name a manifest file.") from error
    return parse(text, str(path))


def _sources(found: Manifest) -> Iterator[Finding]:
    for name, sources in found.conflicts.items():
        detail = f"listed by {' and by '.join(sources)}; uninstall or disable one"
        yield Finding(name, "conflict", detail, PluginError.exit_code)
    for problem in found.problems:
        yield Finding("-", "plugin's manifest", problem, ManifestError.exit_code)


def _growth(old: Manifest, new: Manifest, path: Path) -> list[Finding]:
    broken = check_append_only(old, new)
    if not broken:
        return [Finding("-", "append-only", f"keeps everything that {path} released")]
    return [Finding("-", "append-only", promise, ManifestError.exit_code) for promise in broken]


def _show(findings: list[Finding], as_json: bool) -> None:
    failed = sum(not finding.passed for finding in findings)
    if as_json:
        print_json({"passed": not failed, "findings": [asdict(f) | {"passed": f.passed} for f in findings]})
        return
    rows = [(f.entry, f.check, "passed" if f.passed else "FAILED", f.detail) for f in findings]
    table(("entry", "check", "result", "detail"), rows)
    note(f"{len(findings) - failed} of {len(findings)} checks passed.")


def _exit_code(findings: list[Finding]) -> int:
    codes = {finding.error for finding in findings}
    return next((code for code in (8, 4, 5, 6) if code in codes), max(codes, default=0))
