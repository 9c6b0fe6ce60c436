"""Names of one's own images that mean something on another machine."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl

from flowzoo.data.api import SPLITS
from flowzoo.data.own import PREFIXES
from flowzoo.data.paths import is_folder

__all__ = ["holds_all_in_every_split", "is_own", "is_split_by_content", "portable_id"]


def is_own(dataset: str) -> bool:
    """Whether a data set's id names files of the user: ``folder:``, ``numpy:`` or ``csv:``."""
    return dataset.startswith(PREFIXES)


def portable_id(dataset: str) -> str:
    """The id without the directories that only this machine has; ids of the catalogue stay as they are.

    ``folder:/home/me/faces?size=64`` becomes ``folder:faces?size=64``.
    """
    if not is_own(dataset):
        return dataset
    kind, _, rest = dataset.partition(":")
    place, question, options = rest.partition("?")
    return f"{kind}:{place.rstrip('/').rpartition('/')[2]}{question}{options}"


def is_split_by_content(dataset: str) -> bool:
    """Whether flowzoo chose the splits of one's own images: no subfolders do, and not all images are in each."""
    if not is_own(dataset) or holds_all_in_every_split(dataset):
        return False
    kind, _, rest = dataset.partition(":")
    folder = Path(rest.partition("?")[0]).expanduser()
    return kind != "folder" or not any(is_folder(folder / split) for split in SPLITS)


def holds_all_in_every_split(dataset: str) -> bool:
    """Whether ``split=all`` makes training, validation and test one and the same images."""
    return is_own(dataset) and ("split", "all") in parse_qsl(dataset.partition("?")[2])
