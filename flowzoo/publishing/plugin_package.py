"""Publishing a run's weights inside the plugin that builds it, with the manifest entry that describes them."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flowzoo.atomic import remove_leftovers, sha256_file, write_chunks, write_text
from flowzoo.directories import exclusive
from flowzoo.errors import InputError, ManifestError, PluginError
from flowzoo.manifest.raw import FILENAME, core_manifest_path
from flowzoo.manifest.read import Manifest, check_append_only, dump
from flowzoo.manifest.schema import Entry
from flowzoo.manifest.write import check_writable, read_manifest, update_manifest, with_entry
from flowzoo.publishing.describe import check_held_out, describe, measured_images
from flowzoo.publishing.figures import measure_model, run_dataset
from flowzoo.registry import get_architecture
from flowzoo.weights.external import CARD_FILENAME, read_card
from flowzoo.weights.resolve import package_directory

if TYPE_CHECKING:
    import torch

__all__ = ["manifest_for", "publish_in_plugin"]


def publish_in_plugin(
    run: Path,
    manifest: Path | None = None,
    *,
    name: str | None = None,
    license_id: str = "Apache-2.0",
    dtype: torch.dtype | None = None,
    note: str | None = None,
    samples: int | None = None,
    repo_id: str | None = None,
    temperature: float | None = None,
    dataset: str | None = None,
    data_root: Path | None = None,
    package: Path | None = None,
) -> Entry:
    """Exports, measures and fingerprints a run's best weights and puts them into a package: its plugin's, or another.

    An entry of that name whose weights were never on the Hub is replaced, and its file removed: what nobody can have
    fetched is no promise yet. Otherwise the model gets a new version. Killed at any moment, manifest and package agree.

    Args:
        run: The training run's directory.
        manifest: The manifest file that the entry goes into; None for the one of :func:`manifest_for`.
        name: The model's name; None for the recipe's.
        license_id: SPDX identifier of the weights' license.
        dtype: How floating-point tensors are stored; None for float32.
        note: What a user should know before using it; None keeps the note of the entry that is replaced.
        samples: Noise samples an image of the measured figure; None for those of the entry that is replaced, else 1.
        repo_id: The repository that the model will have on the Hub; None keeps that of the entry that is replaced.
        temperature: Recommended factor on the latents; None keeps that of the entry that is replaced.
        dataset: Id of the data set on this machine; None for the run's.
        data_root: Where data sets are.
        package: The package's directory, of a distribution that brings weights alone; None for the plugin's. Its
            manifest is ``weights_manifest.json`` there, and is begun if there is none.

    Returns:
        The entry as it was written.

    Raises:
        PluginError: The plugin is not installed from a checkout that can be written to.
        InputError: The model was trained or chosen on its test split.
        IntegrityError: Some of its samples are not finite.
        FlowzooError: The run is not whole, or the data set is not to be had.
    """
    from flowzoo.training.export import export_weights
    from flowzoo.weights.load import load

    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder) / "export"
        weights_path = export_weights(run, stage, dtype=dtype, name=name)
        card = read_card(stage / CARD_FILENAME)
        owner = _checkout(card.name, card.architecture) if package is None else package
        path = manifest or (manifest_for(card.architecture) if package is None else _manifest_in(package))
        check_writable(path)
        check_held_out(card)
        here = dataset or run_dataset(run)
        data = measured_images(card, here, data_root)
        flow = load(f"path:{stage}")
        before = _replaceable(read_manifest(path), card.name)
        figures = measure_model(
            stage,
            flow,
            data,
            samples=samples or (before.measured.samples if before and before.measured else 1),
            dataset=here,
            data_root=data_root,
        )

        def entry_in(known: Manifest, replaced: Entry | None, filename: str | None) -> Entry:
            entry = describe(
                card,
                [old for old in known.entries if old is not replaced],
                name=card.name,
                repo_id=repo_id or _repository(replaced),
                license_id=license_id,
                num_params=sum(parameter.numel() for parameter in flow.parameters()),
                data=data,
                note=note or (replaced.note if replaced else None),
                filename=filename,
            )
            kept = replaced.recommended_temperature if replaced else None
            entry = dataclasses.replace(
                entry,
                version=replaced.version if replaced else entry.version,
                recommended_temperature=temperature or kept,
            )
            return figures.of(entry)

        return _install(path, owner / "weights", card.name, weights_path, entry_in)


def manifest_for(architecture: str) -> Path:
    """The manifest that an architecture's models belong in: its plugin's own, else flowzoo's in the same checkout.

    Raises:
        PluginError: The plugin brings none and is not flowzoo's.
    """
    package = package_directory(architecture)
    reference = get_architecture(architecture).manifest
    if reference is not None and package is not None:
        owner, _, filename = reference.partition(":")
        if owner == package.name:
            return package / filename
    core = core_manifest_path().resolve()
    if package is not None and core.parent in package.resolve().parents:
        return core
    raise PluginError(
        f"The plugin for {architecture} brings no manifest, and its models are not flowzoo's to list. Put "
        '{"schema": 1, "models": []} into weights_manifest.json inside its package, and '
        'manifest="PACKAGE:weights_manifest.json" into its Architecture; or give --manifest.'
    )


def _manifest_in(package: Path) -> Path:
    """The manifest of a package that brings weights alone; begun if there is none.

    Raises:
        InputError: The package is no directory.
    """
    if not package.is_dir():
        raise InputError(
            f"{package} is no directory; name the package that the weights are to lie in, such as "
            "flowzoo_mine/ beside its pyproject.toml."
        )
    path = package / FILENAME
    if not path.exists():
        write_text(path, dump(Manifest()))
    return path


def _checkout(name: str, architecture: str) -> Path:
    """The plugin's package, if it lies in a checkout."""
    package = package_directory(architecture)
    if package is None or not (package.parent / "pyproject.toml").is_file():
        raise PluginError(
            f"{name} can only be published in its plugin from a checkout: the plugin for {architecture} is at "
            f"{package}. Install it from the repository with `pip install -e`."
        )
    return package


def _replaceable(manifest: Manifest, name: str) -> Entry | None:
    """The newest entry of this name, if its weights were never on the Hub."""
    newest = max(manifest.versions(name), key=lambda entry: entry.version, default=None)
    if newest is None or (newest.weights is not None and newest.weights.revision is not None):
        return None
    return newest


def _repository(replaced: Entry | None) -> str | None:
    """The repository that the entry that is replaced has decided on."""
    return replaced.weights.repo_id if replaced is not None and replaced.weights is not None else None


def _install(
    manifest: Path,
    folder: Path,
    name: str,
    source: Path,
    entry_in: Callable[[Manifest, Entry | None, str | None], Entry],
) -> Entry:
    """Writes weights and recipes under names that no entry uses, then the manifest, then removes what it gave up."""
    folder.mkdir(exist_ok=True)
    written: list[Entry] = []

    def change(known: Manifest) -> Manifest:
        remove_leftovers(folder)
        replaced = _replaceable(known, name)
        entry = entry_in(known, replaced, None)
        assert entry.weights is not None
        target = folder / entry.weights.filename
        if target.exists() and sha256_file(target) != entry.weights.sha256:
            # The old file stays until no manifest names it.
            other = f"{target.stem}-{entry.weights.sha256[:8]}{target.suffix}"
            entry = entry_in(known, replaced, other)
            target = folder / other
        for recipe in source.parent.glob("recipe*.toml"):
            write_chunks(folder / f"{target.stem}.{recipe.name}", [recipe.read_bytes()])
        write_chunks(target, [source.read_bytes()])
        kept = dataclasses.replace(known, entries=tuple(old for old in known.entries if old is not replaced))
        after = with_entry(kept, entry)
        if broken := check_append_only(kept, after):
            raise ManifestError(f"{manifest}: {broken[0]}.")
        written.append(entry)
        return after

    update_manifest(manifest, change)
    _remove_unlisted(manifest, folder, name)
    return written[0]


def _remove_unlisted(manifest: Path, folder: Path, name: str) -> None:
    """Removes files of a model that no entry names any more, those of a killed process included."""
    ours = re.compile(rf"({re.escape(name)}(-v\d+)?(-[0-9a-f]{{8}})?)(\.safetensors|\.recipe(-\d+)?\.toml)")
    with exclusive(manifest.resolve().parent):
        listed = {
            entry.weights.filename.removesuffix(".safetensors")
            for entry in read_manifest(manifest).entries
            if entry.weights is not None
        }
        for path in folder.iterdir():
            match = ours.fullmatch(path.name)
            if match is not None and match[1] not in listed:
                path.unlink()
