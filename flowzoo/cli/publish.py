"""``flowzoo publish``: weights, model card and manifest entry in one command; dry run unless ``--yes``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowzoo.cli.output import json_option, note, print_json, table
from flowzoo.errors import IntegrityError
from flowzoo.manifest.read import core_manifest_path
from flowzoo.weights.hub import HubSettings, hub_settings

if TYPE_CHECKING:
    from flowzoo.publishing import Staged


@click.command()
@click.argument("run", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--all", "everything", is_flag=True, help="Every model of the manifest that is not on the Hub yet."
)
@click.option("--repo", metavar="ORG/NAME", help="The repository that the run's model becomes.")
@click.option(
    "--org",
    default="flowzoo",
    show_default=True,
    help="With --all: whose the repositories are; named as the models.",
)
@click.option("--name", help="The model's name in the manifest [the recipe's].")
@click.option(
    "--license", "license_id", default="Apache-2.0", show_default=True, help="Of the weights, SPDX."
)
@click.option(
    "--yes", is_flag=True, help="Upload and write the manifest; without it nothing leaves this machine."
)
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option(
    "--stage",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the files to upload are put together [RUN/publish].",
)
@click.option(
    "--manifest",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The manifest that the entry goes into [flowzoo's own].",
)
@click.option("--data-root", type=click.Path(path_type=Path), help="Where data sets are [$FLOWZOO_DATA].")
@click.option("--endpoint", help="Another Hub [FLOWZOO_HUB_ENDPOINT].")
@json_option
def publish(
    run: Path | None,
    everything: bool,
    repo: str | None,
    org: str,
    stage: Path | None,
    manifest: Path | None,
    endpoint: str | None,
    yes: bool,
    private: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Publish the best weights of RUN on the Hugging Face Hub, as --repo.

    Exports the averaged weights, measures them on the whole test split, takes their fingerprint, writes a
    model card with samples, checks everything, uploads it in one commit, and writes the manifest entry with
    the commit's revision. Without --yes it stops before uploading. With --all, every model of the manifest
    whose revision is null is published, in the repository it names or one of --org.
    """
    if everything in (run is not None, repo is not None):
        raise click.UsageError("Give RUN and --repo ORG/NAME; or --all.")
    hub = hub_settings(endpoint=endpoint)
    path = manifest or core_manifest_path()
    if run is not None:
        from flowzoo.publishing import stage_run

        staged = [stage_run(run, stage or run / "publish", path, repo_id=str(repo), **options)]
    else:
        staged = _stage_all(path, org, stage or Path("publish"), hub)
    results = [_publish(one, path, hub, yes=yes, private=private) for one in staged]
    _show(results, as_json)
    if not yes:
        note(
            "Dry run: nothing was uploaded and no manifest was written. Read README.md there, then add --yes."
        )


def _stage_all(path: Path, org: str, directory: Path, hub: HubSettings) -> list[Staged]:
    from flowzoo.publishing import stage_entry
    from flowzoo.publishing.manifest_file import read_manifest

    waiting = [e for e in read_manifest(path).entries if e.weights is not None and e.weights.revision is None]
    if not waiting:
        note(f"{path} lists no model with weights whose revision is null; there is nothing to publish.")
    return [
        stage_entry(e, directory / e.key, hub, repo_id=(e.weights and e.weights.repo_id) or f"{org}/{e.name}")
        for e in waiting
    ]


def _publish(staged: Staged, path: Path, hub: HubSettings, *, yes: bool, private: bool) -> dict[str, Any]:
    """Checks, uploads and records one model."""
    from flowzoo.publishing import check_before_upload, upload, write_entry

    for check in check_before_upload(staged, path):
        note(f"{staged.entry.key}: {check.name}: {check.problem or 'ok'}")
        if check.problem:
            raise IntegrityError(f"{staged.entry.key} is not published: {check.name}: {check.problem}")
    entry = staged.entry
    if yes:
        entry = upload(staged, hub, private=private)
        assert entry.weights is not None
        # Said before the manifest is written: if that fails, the commit is known.
        note(f"{entry.key} is {entry.weights.repo_id}@{entry.weights.revision}")
        write_entry(path, entry)
    files = {name: (staged.directory / name).stat().st_size for name in staged.filenames}
    return {"directory": str(staged.directory), "files": files, "entry": dataclasses.asdict(entry)}


def _show(results: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(results)
        return
    if not results:
        return
    rows = [
        (
            result["entry"]["name"],
            result["entry"]["weights"]["repo_id"],
            result["entry"]["weights"]["revision"],
            f"{result['entry']['measured']['bpd']:.4f}",
            sum(result["files"].values()),
            result["directory"],
        )
        for result in results
    ]
    table(("model", "repository", "revision", "bpd", "bytes", "files"), rows, right=("bpd", "bytes"))
