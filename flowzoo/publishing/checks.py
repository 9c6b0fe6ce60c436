"""Everything that has to hold before a model leaves this machine."""

from __future__ import annotations

import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flowzoo.errors import FlowzooError, InputError, IntegrityError
from flowzoo.evaluation.sampling import check_shippable
from flowzoo.manifest.write import plan_entry
from flowzoo.publishing.card import SAMPLES_FILENAME, check_model_card
from flowzoo.publishing.describe import check_held_out
from flowzoo.publishing.stage import Staged
from flowzoo.weights.external import CARD_FILENAME, read_card

__all__ = ["Check", "check_before_upload"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to hold.

    Attributes:
        name: What was checked.
        problem: Why it does not hold, or None.
    """

    name: str
    problem: str | None = None


def check_before_upload(staged: Staged, manifest: Path | None) -> list[Check]:
    """Checks a staged model: its files, its weights, its figures, its card, its entry, its discretion.

    Args:
        staged: The model.
        manifest: The manifest file that the entry will go into; None if it goes into none.
    """
    checks: dict[str, Callable[[], None]] = {
        "files": lambda: _check_files(staged),
        "weights and fingerprint": lambda: _check_weights(staged),
        "finite samples": lambda: check_shippable(staged.entry.key, staged.entry.sampling),
        "measured figure": lambda: _check_measured(staged),
        "held-out test split": lambda: check_held_out(read_card(staged.directory / CARD_FILENAME)),
        "model card": lambda: check_model_card(
            (staged.directory / "README.md").read_text("utf-8"), staged.entry
        ),
        "sample grid": lambda: _check_samples(staged),
        "manifest entry": lambda: _check_entry(staged, manifest),
        "nothing private": lambda: _check_private(staged),
    }
    return [_run(name, check) for name, check in checks.items()]


def _run(name: str, check: Callable[[], None]) -> Check:
    try:
        check()
    except (FlowzooError, OSError) as error:
        return Check(name, " ".join(str(error).split()))
    return Check(name)


def _check_files(staged: Staged) -> None:
    found = sorted(path.name for path in staged.directory.iterdir())
    if found != sorted(staged.filenames):
        raise InputError(f"{staged.directory} holds {found}; expected {sorted(staged.filenames)}.")
    for name in found:
        if not stat.S_ISREG((staged.directory / name).lstat().st_mode):
            raise InputError(
                f"{staged.directory / name} is a link or no file; replace it with the file itself."
            )


def _check_weights(staged: Staged) -> None:
    """Loads what will be uploaded the way everyone else will, and compares its fingerprint."""
    from flowzoo.weights.fingerprint import compare
    from flowzoo.weights.load import load

    weights, card = staged.entry.weights, staged.entry.fingerprint
    if weights is None or card is None:
        raise InputError(f"{staged.entry.key} has no weights or no fingerprint.")
    flow = load(f"path:{staged.directory}")
    found = flow.card.weights if flow.card else None
    if found is None or (found.sha256, found.size) != (weights.sha256, weights.size):
        raise IntegrityError(f"{CARD_FILENAME} describes another file than the entry of {staged.entry.key}.")
    parameters = sum(parameter.numel() for parameter in flow.parameters())
    if parameters != staged.entry.num_params:
        raise IntegrityError(f"expected {staged.entry.num_params} parameters, found {parameters}.")
    result = compare(flow, card)
    if not result.verified:
        raise IntegrityError(
            f"the fingerprint differs by {result.difference:.2e}, more than {result.tolerance:g}."
        )


def _check_measured(staged: Staged) -> None:
    measured, data = staged.entry.measured, staged.entry.data
    if measured is None or measured.num_images != data.num_images:
        count = measured.num_images if measured else 0
        raise InputError(
            f"measured on {count} images; expected the whole {data.split} split, {data.num_images}."
        )


def _check_samples(staged: Staged) -> None:
    from PIL import Image

    with Image.open(staged.directory / SAMPLES_FILENAME) as picture:
        picture.verify()


def _check_entry(staged: Staged, manifest: Path | None) -> None:
    if manifest is not None:
        plan_entry(manifest, staged.entry)
    for fault in staged.entry.faults():
        raise InputError(f"{staged.entry.key}: {fault}.")


def _check_private(staged: Staged) -> None:
    """Looks for what names this machine or its user in the texts."""
    revealing = {str(Path.home()), str(staged.directory.resolve().parent), socket.gethostname()}
    for name in ("README.md", CARD_FILENAME, *staged.recipes):
        text = (staged.directory / name).read_text(encoding="utf-8")
        for word in revealing:
            if len(word) > 4 and word in text:
                raise InputError(
                    f"{name} mentions {word!r}, which is nobody's business; edit the run's recipe."
                )
