"""``flowzoo pull``, ``flowzoo cache`` and ``flowzoo verify``: weights on this machine, and proof that they work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flowzoo.cli.output import json_option, note, print_json, table
from flowzoo.errors import FlowzooError, InputError
from flowzoo.manifest.read import load_manifests
from flowzoo.weights.hub import HubSettings, hub_settings

if TYPE_CHECKING:
    from flowzoo.manifest.schema import Entry
    from flowzoo.weights.cache import Copy

F = TypeVar("F", bound=Callable[..., Any])


def hub_options(command: F) -> F:
    """Adds ``--endpoint``, ``--offline`` and ``--cache-dir`` to a command."""
    for option in (
        click.option("--cache-dir", type=click.Path(path_type=Path), help="The Hub's cache [HF_HUB_CACHE]."),
        click.option("--offline/--online", default=None, help="Make no request [FLOWZOO_OFFLINE]."),
        click.option("--endpoint", help="Address of a mirror of the Hub [FLOWZOO_HUB_ENDPOINT]."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--to", "to", type=click.Path(path_type=Path, file_okay=False), help="Copy them here, too.")
@hub_options
@json_option
def pull(
    names: tuple[str, ...],
    to: Path | None,
    endpoint: str | None,
    offline: bool | None,
    cache_dir: Path | None,
    as_json: bool,
) -> None:
    """Download and check the weights of the models NAMES.

    With --to DIR they are copied to DIR, to be carried to a machine without a network: set
    FLOWZOO_WEIGHTS_DIR=DIR there. Prints where each file is.
    """
    hub = hub_settings(offline=offline, endpoint=endpoint, cache_dir=cache_dir)
    rows = [_pull(name, to, hub) for name in names]
    if as_json:
        print_json([dict(zip(("name", "sha256", "size", "path"), row, strict=True)) for row in rows])
    else:
        table(("model", "sha256", "bytes", "path"), rows, right=("bytes",))
    if to:
        _note_how_to_load(to, rows)


def _note_how_to_load(to: Path, rows: Sequence[tuple[str, str, int, str]]) -> None:
    unlisted = [path for name, _, _, path in rows if name.startswith(("hf:", "path:"))]
    if any(not name.startswith(("hf:", "path:")) for name, *_ in rows):
        note(f"On the other machine: export FLOWZOO_WEIGHTS_DIR={to}")
    for path in unlisted:
        note(f'On the other machine: flowzoo.load("path:{path}")')


def _pull(name: str, to: Path | None, hub: HubSettings) -> tuple[str, str, int, str]:
    from flowzoo.weights.cache import copy_into
    from flowzoo.weights.external import Unlisted, card_file
    from flowzoo.weights.load import prepare
    from flowzoo.weights.safetensors_header import read_header

    card, path = prepare(name, hub)
    assert card.weights is not None
    read_header(path)
    if to is not None:
        path = copy_into(to, card, path, card_file(name, hub) if isinstance(card, Unlisted) else None)
    return name, card.weights.sha256, card.weights.size, str(path)


@click.group()
def cache() -> None:
    """List, check or remove the weights on this machine."""


@cache.command("ls", short_help="List the weights on this machine.")
@click.option("--cache-dir", type=click.Path(path_type=Path), help="The Hub's cache [HF_HUB_CACHE].")
@json_option
def list_copies(cache_dir: Path | None, as_json: bool) -> None:
    """List the weights on this machine, in the order in which loading looks for them."""
    copies = _copies(load_manifests().entries, cache_dir)
    rows = [(copy.entry.key, copy.source, copy.size, str(copy.path)) for copy in copies]
    if as_json:
        print_json([dict(zip(("name", "source", "size", "path"), row, strict=True)) for row in rows])
    else:
        table(("model", "source", "bytes", "path"), rows, right=("bytes",))


@cache.command("verify", short_help="Check size and digest of local weights.")
@click.argument("names", nargs=-1)
@click.option("--cache-dir", type=click.Path(path_type=Path), help="The Hub's cache [HF_HUB_CACHE].")
@json_option
def verify_copies(names: tuple[str, ...], cache_dir: Path | None, as_json: bool) -> int:
    """Check size and digest of the local weights of the models NAMES, or of all; exit code 5 if one is bad."""
    entries = [load_manifests().get(name) for name in names] if names else load_manifests().entries
    checked = [(copy, copy.problem()) for copy in _copies(entries, cache_dir)]
    bad = sum(problem is not None for _, problem in checked)
    rows = [(c.entry.key, c.source, "ok" if p is None else f"BAD: {p}", str(c.path)) for c, p in checked]
    if as_json:
        print_json([dict(zip(("name", "source", "result", "path"), row, strict=True)) for row in rows])
    else:
        table(("model", "source", "result", "path"), rows)
    note(f"{len(checked) - bad} of {len(checked)} files are what the manifest promises.")
    return 5 if bad else 0


@cache.command("rm", short_help="Remove weights from the Hub's cache.")
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every model that a manifest lists.")
@click.option("--cache-dir", type=click.Path(path_type=Path), help="The Hub's cache [HF_HUB_CACHE].")
def remove_copies(names: tuple[str, ...], everything: bool, cache_dir: Path | None) -> None:
    """Remove the models NAMES from the Hub's cache; weights inside plugins and overlays stay."""
    from flowzoo.weights.cache import remove_from_cache

    entries = _chosen(names, everything)
    hub = hub_settings(cache_dir=cache_dir)
    freed = [(entry.key, remove_from_cache(entry, hub)) for entry in entries]
    for name, size in freed:
        if size is None:
            note(f"{name} is being downloaded by another process, so it stays; try again later.")
    rows = [(name, size) for name, size in freed if size]
    if rows:
        table(("model", "bytes freed"), rows, right=("bytes freed",))
    note(f"Freed {sum(size for _, size in rows)} bytes in {hub.cache_dir}; nothing else is touched.")


@click.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every released model.")
@hub_options
@json_option
def verify(
    names: tuple[str, ...],
    everything: bool,
    endpoint: str | None,
    offline: bool | None,
    cache_dir: Path | None,
    as_json: bool,
) -> int:
    """Prove code and weights of the models NAMES: load them and compare their fingerprints.

    A fingerprint is the bits per dimension of four images that integer arithmetic generates; no data set is
    needed. Exit code 1 if one differs by more than its tolerance. With --all, models whose plugin is not
    installed or is disabled are skipped; at least one must be verified.
    """
    hub: dict[str, Any] = {"endpoint": endpoint, "offline": offline, "cache_dir": cache_dir}
    if everything:
        listed = [entry for entry in _chosen(names, everything) if entry.status != "unpublished"]
        reports = [_skipped(entry) or _verify_or_explain(entry.key, hub) for entry in listed]
    elif not names:
        raise click.UsageError("Give the names of models, or --all.")
    else:
        # An error of the only model is the command's; among several it is a row and hides no other.
        report = _verify if len(names) == 1 else _verify_or_explain
        reports = [report(name, hub) for name in names]
    if as_json:
        print_json(reports)
    else:
        columns = ("model", "result", "difference", "tolerance", "detail")
        table(columns, [[report[column] for column in columns] for report in reports])
    failed = [int(report["code"]) for report in reports if report["code"]]
    verified = sum(report["result"] == "verified" for report in reports)
    note(f"{verified} of {len(reports)} models are verified.")
    return failed[0] if failed else int(not verified)


def _skipped(entry: Entry) -> dict[str, Any] | None:
    """The row of a model that somebody chose not to have; None if it is here."""
    from flowzoo.registry import absence

    if not (lacking := absence(entry.architecture)):
        return None
    empty = dict.fromkeys(("difference", "tolerance"))
    return {"model": entry.key, "result": "skipped", "detail": lacking, "code": 0, **empty}


def _verify(name: str, hub: dict[str, Any]) -> dict[str, Any]:
    from flowzoo.weights.fingerprint import compare, stated_fingerprint
    from flowzoo.weights.load import load

    flow = load(name, **hub)
    expected = stated_fingerprint(flow.card, name)
    if expected is None:
        raise InputError(
            f"{name} comes without a fingerprint, so there is nothing to compare with; "
            f"measure it with `flowzoo eval {name}`."
        )
    result = compare(flow, expected)
    return {
        "model": name,
        "result": "verified" if result.verified else "NOT VERIFIED",
        "difference": f"{result.difference:.2e}",
        "tolerance": f"{result.tolerance:.0e}",
        "detail": f"{result.unit} " + ", ".join(f"{value:.6f}" for value in result.found),
        "code": 0 if result.verified else 1,
    }


def _verify_or_explain(name: str, hub: dict[str, Any]) -> dict[str, Any]:
    try:
        return _verify(name, hub)
    except FlowzooError as error:
        empty = dict.fromkeys(("difference", "tolerance"))
        return {"model": name, "result": "ERROR", "detail": str(error), "code": error.exit_code, **empty}


def _chosen(names: Sequence[str], everything: bool) -> list[Entry]:
    if bool(names) == everything:
        raise click.UsageError("Give the names of models, or --all.")
    manifests = load_manifests()
    return list(manifests.entries) if everything else [manifests.get(name) for name in names]


def _copies(entries: Iterable[Entry], cache_dir: Path | None) -> list[Copy]:
    from flowzoo.weights.cache import copies_of

    hub = hub_settings(cache_dir=cache_dir)
    return [copy for entry in entries for copy in copies_of(entry, hub)]
