"""``flowzoo publish``: weights, card and manifest entry of a run: in its plugin, in a directory, or on the Hub."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowzoo.cli.output import json_option, note, print_json, print_line, table
from flowzoo.errors import IntegrityError
from flowzoo.manifest.read import core_manifest_path
from flowzoo.weights.hub import HubSettings, hub_settings

if TYPE_CHECKING:
    from flowzoo.manifest.schema import Entry
    from flowzoo.publishing import Staged

_DTYPE = click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="How the weights are stored; what is measured is what was stored.",
)
_SHARED = (
    click.option("--name", help="The model's name in the manifest [the recipe's]."),
    click.option("--note", help="What a user should know before using it [that of the entry it replaces]."),
    click.option(
        "--temperature",
        type=click.FloatRange(0, min_open=True),
        help="Recommended factor on the latents, of the card's samples too [that of the entry it replaces].",
    ),
    click.option(
        "--license", "license_id", default="Apache-2.0", show_default=True, help="Of the weights, SPDX."
    ),
    click.option(
        "--samples",
        type=click.IntRange(1),
        help="Noise samples an image of the measured figure: a tighter bound, as many times the work to verify "
        "[those of the entry it replaces, else 1].",
    ),
    click.option("--data", "dataset", help="The data set on this machine [the run's]."),
    click.option("--data-root", type=click.Path(path_type=Path), help="Where data sets are [$FLOWZOO_DATA]."),
    click.option(
        "--manifest",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The manifest that the entry goes into [the plugin's; flowzoo's own for its plugins].",
    ),
    _DTYPE,
    json_option,
)


def _shared(command: Any) -> Any:
    for option in reversed(_SHARED):
        command = option(command)
    return command


@click.command()
@click.argument("subject", metavar="[RUN]", required=False)
@click.option(
    "--plugin", is_flag=True, help="Put the weights into the plugin that builds the model, in a checkout."
)
@click.option(
    "--package",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Put the weights into this package: of a distribution that brings weights alone (docs/plugins.md).",
)
@click.option("--repo", metavar="ORG/NAME", help="The repository on the Hub that the model becomes.")
@click.option(
    "--all", "everything", is_flag=True, help="Every model of the manifest that is not on the Hub yet."
)
@click.option(
    "--record", is_flag=True, help="RUN is a listed model's name: measure it and write its figures."
)
@click.option(
    "--org",
    default="flowzoo",
    show_default=True,
    help="With --all: whose the repositories are that no entry names; named as the models.",
)
@click.option(
    "--yes", is_flag=True, help="Upload and write the manifest; without it nothing leaves this machine."
)
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option(
    "--stage",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the files to upload are put together: missing, empty or an earlier stage [RUN/publish].",
)
@click.option("--endpoint", help="Another Hub [FLOWZOO_HUB_ENDPOINT].")
@_shared
def publish(
    subject: str | None,
    plugin: bool,
    package: Path | None,
    everything: bool,
    record: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Publish the best weights of RUN, a training run or an exported directory.

    Exports the averaged weights, draws 10,000 samples that must all be finite, measures bits per dimension on the whole
    test split, takes the fingerprint, and writes a model card and the recipes of the training. --plugin puts weights
    and manifest entry into the plugin's checkout, --package into another package. --repo uploads to the Hub, where a
    second commit names the first in the card, and writes the entry with it; without --yes it stops before
    uploading. --stage alone writes the directory. --all uploads every model of the manifest whose revision is null.
    """
    targets = [plugin, package is not None, options["repo"] is not None, everything, record]
    if (
        sum(targets) > 1
        or (sum(targets) == 0 and options["stage"] is None)
        or (subject is None) != everything
    ):
        raise click.UsageError(
            "Give RUN and one of --plugin, --package DIR, --repo ORG/NAME and --stage DIR; or --all."
        )
    if options["yes"] and not everything and options["repo"] is None:
        raise click.UsageError("--yes uploads: it goes with --repo ORG/NAME or --all.")
    if record:
        return _record(str(subject), options, as_json)
    run = None if subject is None else Path(subject)
    if run is not None and not run.is_dir():
        raise click.UsageError(f"RUN: {subject!r} is no directory; give a training run or an exported model.")
    if plugin or package is not None:
        _into_package(run, package, options, as_json)
        return 0
    return _to_hub(run, options, as_json)


@click.command(hidden=True)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_shared
def bundle(run: Path, as_json: bool, **options: Any) -> None:
    """Deprecated: the same as publish RUN --plugin."""
    note("`flowzoo bundle RUN` is now `flowzoo publish RUN --plugin`; the old name will go.")
    _into_package(run, None, options, as_json)


def _run_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options that describe the model."""
    import torch

    keys = ("name", "note", "temperature", "license_id", "samples", "dataset", "data_root")
    dtype = None if options["dtype"] == "float32" else getattr(torch, options["dtype"])
    return {key: options[key] for key in keys} | {"dtype": dtype}


def _into_package(run: Path | None, package: Path | None, options: dict[str, Any], as_json: bool) -> None:
    from flowzoo.publishing.plugin_package import publish_in_plugin

    assert run is not None
    entry = publish_in_plugin(run, options["manifest"], package=package, **_run_options(options))
    if as_json:
        print_json(dataclasses.asdict(entry))
        return
    assert entry.weights is not None
    assert entry.measured is not None
    assert entry.sampling is not None
    row = (
        entry.key,
        _figure(entry.measured.bpd, entry.measured.nats),
        f"{entry.measured.stderr:.4f}",
        f"{entry.sampling.finite} of {entry.sampling.drawn}",
        entry.weights.size,
        entry.weights.filename,
    )
    headers = ("model", "measured", "stderr", "finite samples", "bytes", "file")
    table(headers, [row], right=("measured", "stderr", "finite samples", "bytes"))


def _record(name: str, options: dict[str, Any], as_json: bool) -> int:
    from flowzoo.cli.evaluate import record_figure

    found, path = record_figure(name, samples=options["samples"], data_root=options["data_root"])
    key = "bpd" if found.unit == "bits/dim" else "nats"
    value, stderr = (found.bpd, found.stderr) if key == "bpd" else (found.nats, found.nats_stderr)
    if as_json:
        print_json({"name": name, key: value, "stderr": stderr, "manifest": str(path)})
    else:
        print_line(f"{name}: {value:.6f} ± {stderr:.4f} {found.unit}")
    note(f"Recorded in {path}.")
    return 0


def _to_hub(run: Path | None, options: dict[str, Any], as_json: bool) -> int:
    """Stages, checks and, with --yes, uploads; a model that fails takes no other down."""
    hub = hub_settings(endpoint=options["endpoint"])
    stage = options["stage"]
    results, failures = [], []
    if run is not None:
        path = options["manifest"] or _manifest_of(run)
        if path is None and options["yes"]:
            note(
                "No manifest will list it: it is of your own images, and loads by its repository and commit."
            )
        staged = _stage_run(run, stage or run / "publish", path, options)
        results.append(_publish(staged, path, hub, yes=options["yes"], private=options["private"]))
    else:
        path = options["manifest"] or core_manifest_path()
        for entry in _waiting(path):
            try:
                staged = _stage_entry(entry, (stage or Path("publish")) / entry.key, options["org"], hub)
                results.append(_publish(staged, path, hub, yes=options["yes"], private=options["private"]))
            except IntegrityError as error:
                failures.append(error)
                note(f"{entry.key} is not published: {error}")
    _show(results, as_json)
    if not options["yes"]:
        note(
            "Dry run: nothing was uploaded and no manifest was written. Read README.md there, then add --yes."
        )
    return failures[0].exit_code if failures else 0


def _manifest_of(run: Path) -> Path | None:
    """The manifest that a run's model belongs in; None of one's own images, which are nobody's but one's own."""
    from flowzoo.data.portable import is_own
    from flowzoo.publishing.plugin_package import manifest_for
    from flowzoo.weights.checkpoint import read_metadata
    from flowzoo.weights.external import CARD_FILENAME, read_card

    if (run / "run.json").is_file():
        from flowzoo.training.export import run_weights

        facts = read_metadata(run_weights(run))
    else:
        card = read_card(run / CARD_FILENAME)
        facts = {"architecture": card.architecture, **card.details}
    if is_own(str(facts.get("dataset", ""))):
        return None
    return manifest_for(str(facts.get("architecture", "")))


def _stage_run(run: Path, directory: Path, path: Path | None, options: dict[str, Any]) -> Staged:
    from flowzoo.publishing import stage_run

    return stage_run(run, directory, path, repo_id=options["repo"], **_run_options(options))


def _waiting(path: Path) -> list[Entry]:
    from flowzoo.manifest.write import read_manifest

    waiting = [e for e in read_manifest(path).entries if e.weights is not None and e.weights.revision is None]
    if not waiting:
        note(f"{path} lists no model with weights whose revision is null; there is nothing to publish.")
    return waiting


def _stage_entry(entry: Entry, directory: Path, org: str, hub: HubSettings) -> Staged:
    from flowzoo.publishing import stage_entry

    repo_id = (entry.weights and entry.weights.repo_id) or f"{org}/{entry.name}"
    return stage_entry(entry, directory, hub, repo_id=repo_id)


def _publish(
    staged: Staged, path: Path | None, hub: HubSettings, *, yes: bool, private: bool
) -> dict[str, Any]:
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
        if path is not None:
            write_entry(path, entry)
        note(f'flowzoo.load("hf:{entry.weights.repo_id}@{entry.weights.revision}")')
    files = {name: (staged.directory / name).stat().st_size for name in staged.filenames}
    return {"directory": str(staged.directory), "files": files, "entry": dataclasses.asdict(entry)}


def _figure(bpd: float | None, nats: float | None) -> str:
    """Bits per dimension of images, nats of a density."""
    return f"{bpd:.4f}" if bpd is not None else f"{nats:.4f} nats"


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
            _figure(result["entry"]["measured"]["bpd"], result["entry"]["measured"]["nats"]),
            sum(result["files"].values()),
            result["directory"],
        )
        for result in results
    ]
    table(
        ("model", "repository", "revision", "measured", "bytes", "files"), rows, right=("measured", "bytes")
    )
