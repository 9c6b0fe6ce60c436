"""The description of a data set: where it comes from, how it is prepared, how it is split, and what it may be used for.

Torch-free: everything here can be listed without importing torch. Pixels, vectors and labels are read by the set's
*reader*, a function named as ``"module:function"`` that is imported only by :meth:`Dataset.load`.
"""

from __future__ import annotations

import importlib
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flowzoo.data.paths import is_folder, is_regular
from flowzoo.errors import DataUnavailable, InputError, IntegrityError, PluginError
from flowzoo.registry.surroundings import output_to_stderr

if TYPE_CHECKING:
    from flowzoo.data.images import ImageSet, ImageSource

__all__ = [
    "ACCEPTED_VERSIONS",
    "API_VERSION",
    "ROOT_PLACEHOLDER",
    "ROOT_VARIABLE",
    "SPLITS",
    "Dataset",
    "Split",
    "data_root",
    "prepared_path",
]

API_VERSION = 2
"""The version of the data set contract that this core speaks: 2 added vectors and labels."""

ACCEPTED_VERSIONS = (1, 2)
"""The versions whose data sets can be used. Version 1 describes images without labels, in the same fields."""

ROOT_VARIABLE = "FLOWZOO_DATA"
"""The environment variable that names the folder under which every data set is looked for."""

ROOT_PLACEHOLDER = "{data_root}"
"""Stands in :attr:`Dataset.how_to_get` for the data root, which :meth:`Dataset.hint` puts there, quoted for a shell."""

SPLITS = ("train", "valid", "test")


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Returns the folder under which data sets are looked for.

    Args:
        root: An explicit folder; wins over everything else.

    Returns:
        ``root``, else ``$FLOWZOO_DATA``, else ``$XDG_DATA_HOME/flowzoo`` (``~/.local/share/flowzoo``).
    """
    if root is not None:
        return Path(root).expanduser()
    if named := os.environ.get(ROOT_VARIABLE):
        return Path(named).expanduser()
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "flowzoo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One split of a data set.

    Attributes:
        description: Which images of the release these are, in words.
        size: Number of images or vectors, or None where it depends on the user's files.
        sha256: Digest of the uint8 pixels, images in order, each channel by channel, row by row; of vectors, of
            their little-endian float32, row by row; None if unknown.
        alternatives: Each a tuple of paths (relative to the data root) that together hold the split; the
            first one that is complete is read. Empty: the reader needs no files, the split is always there.
    """

    description: str
    size: int | None = None
    sha256: str | None = None
    alternatives: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set with one exact preprocessing: the value of an entry point in the group ``flowzoo.datasets``.

    Attributes:
        id: Its name everywhere: manifests, recipes, command line.
        title: One line.
        release: Which release of the images this is.
        preprocessing: Id of the preprocessing; two sets of images with the same id were made by the same
            steps.
        preprocessing_note: These steps in words, rounding included.
        kind: ``"images"``, or ``"vectors"`` of real numbers.
        image_shape: (C, H, W) of every image; None for vectors.
        dims: Numbers in a vector; None for images.
        label_names: Names of the classes, label k the k-th; empty where there are none, or only the files say.
        splits: ``train``, ``valid`` and ``test``.
        reader: ``"module:function"``; called with (this data set, split, paths) it returns the images, as a
            uint8 tensor (N, C, H, W) or an :class:`flowzoo.data.images.ImageSource`, or the vectors, float32
            (N, D). Where there are labels it returns (images, labels), whole numbers (N,); or (images,
            labels, names) where the files name the classes.
        terms: License or terms of use, one line.
        attribution: Whom to credit, and the paper.
        how_to_get: What to do when it is missing, in words; ``{data_root}`` stands for the data root.
        md5: Official md5 of the files, by relative path, of the content once gunzipped.
        options: Whatever the reader wants to know.
        api_version: The contract it was written for.
    """

    id: str
    title: str
    release: str
    preprocessing: str
    preprocessing_note: str
    kind: str = "images"
    image_shape: tuple[int, int, int] | None = None
    dims: int | None = None
    label_names: tuple[str, ...] = ()
    splits: Mapping[str, Split]
    reader: str
    terms: str
    attribution: str
    how_to_get: str
    md5: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        for name in ("splits", "md5", "options"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        object.__setattr__(self, "label_names", tuple(self.label_names))
        shapes = {"images": self.image_shape is not None, "vectors": self.dims is not None}
        if not shapes.get(self.kind) or sum(shapes.values()) != 1:
            raise InputError(
                f"The data set {self.id!r} has kind {self.kind!r}, image_shape {self.image_shape}, dims {self.dims}; "
                "expected kind 'images' with image_shape, or kind 'vectors' with dims."
            )

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Shape of one item: (C, H, W) of images, (D,) of vectors."""
        return (self.dims,) if self.dims is not None else tuple(self.image_shape or ())

    def split(self, name: str) -> Split:
        """Returns the description of a split.

        Raises:
            InputError: if the set has no such split.
        """
        if name not in self.splits:
            raise InputError(
                f"The data set {self.id!r} has no split {name!r}; it has {', '.join(self.splits)}."
            )
        return self.splits[name]

    def looked_for(
        self, split: str, root: str | os.PathLike[str] | None = None
    ) -> tuple[tuple[Path, ...], ...]:
        """Returns the full paths of each alternative of a split, without touching the disk."""
        base = data_root(root)
        return tuple(tuple(base / path for path in paths) for paths in self.split(split).alternatives)

    def is_present(self, split: str, root: str | os.PathLike[str] | None = None) -> bool:
        """Whether the files of a split exist; their contents are not looked at."""
        alternatives = self.looked_for(split, root)
        if not alternatives or is_regular(prepared_path(self, split, root)):
            return True
        pairs = zip(self.split(split).alternatives, alternatives, strict=True)
        return any(self._is_complete(names, paths) for names, paths in pairs)

    def hint(self, root: str | os.PathLike[str] | None = None) -> str:
        """How to get it, with commands that can be pasted: the data root stands where they need it."""
        return self.how_to_get.replace(ROOT_PLACEHOLDER, shlex.quote(str(data_root(root))))

    def find(self, split: str, root: str | os.PathLike[str] | None = None) -> tuple[Path, ...]:
        """Returns the files of a split: the first complete alternative.

        Raises:
            DataUnavailable: if none is complete; the message lists where they were looked for.
            IntegrityError: if a file is not the official one.
        """
        alternatives = self.looked_for(split, root)
        if not alternatives:
            return ()
        for names, paths in zip(self.split(split).alternatives, alternatives, strict=True):
            if self._is_complete(names, paths):
                self._check_files(names, paths)
                return paths
        raise DataUnavailable(self._missing(split, root, alternatives))

    def load(
        self, split: str, root: str | os.PathLike[str] | None = None, *, prepared: bool = True
    ) -> ImageSet:
        """Reads a split and checks it against its recorded size and digest.

        Args:
            split: ``"train"``, ``"valid"`` or ``"test"``.
            root: Data root; see :func:`data_root`.
            prepared: Whether a prepared copy may stand in for the release's files.

        Returns:
            The images: in memory where they are few, read from disk batch by batch where they are many. Of a set of
            vectors, the :class:`flowzoo.data.vectors.VectorSet`.

        Raises:
            InputError: if there is no such split.
            DataUnavailable: if its files are missing.
            IntegrityError: if its files are not the official ones.
        """
        info = self.split(split)
        found = self._read(split, root, prepared)
        items, labels, *names = found if isinstance(found, tuple) else (found, None)
        facts = {
            "id": self.id,
            "split": split,
            "preprocessing": self.preprocessing,
            "terms": self.terms,
            "sha256": info.sha256,
            "label_names": names[0] if names else self.label_names,
        }
        try:
            result = self._set_of(items, root, labels=labels, **facts)
        except InputError as error:
            raise IntegrityError(f"{error} The files are damaged, or their reader is wrong.") from error
        result.check(self.data_shape, info.size)
        return result

    def _set_of(self, items: Any, root: str | os.PathLike[str] | None, **facts: Any) -> ImageSet:
        if self.kind == "images":
            from flowzoo.data.images import ImageSet

            return ImageSet(items, **facts)
        from flowzoo.data.vectors import VectorSet

        options = {
            "columns": self.options.get("columns", ()),
            "truth": self.options.get("density"),
            "entropy": self.options.get("entropy"),
        }
        train = None if facts["split"] == "train" else lambda: self.load("train", root)
        return VectorSet(items, train=train, **options, **facts)

    def _read(self, split: str, root: str | os.PathLike[str] | None, prepared: bool) -> ImageSource | Any:
        """Reads the pixels, and labels if there are any: from the prepared copy if it is there, else the release."""
        copy = prepared_path(self, split, root)
        if prepared and self.split(split).alternatives and is_regular(copy):
            from flowzoo.data.prepared import read_prepared

            return read_prepared(copy)
        with output_to_stderr():  # a reader may be a plugin's, and print
            reader = _resolve(self.reader, self.id)
            return reader(self, split, self.find(split, root))

    def _is_complete(self, names: tuple[str, ...], paths: tuple[Path, ...]) -> bool:
        """Whether regular files are there, or folders where no md5 is known; opening a pipe might never end."""
        return all(
            is_regular(path) or (name not in self.md5 and is_folder(path))
            for name, path in zip(names, paths, strict=True)
        )

    def _check_files(self, names: tuple[str, ...], paths: tuple[Path, ...]) -> None:
        from flowzoo.data.digests import check_md5

        for name, path in zip(names, paths, strict=True):
            if name in self.md5:
                check_md5(path, self.md5[name])

    def _missing(
        self, split: str, root: str | os.PathLike[str] | None, alternatives: tuple[tuple[Path, ...], ...]
    ) -> str:
        places = "\n".join("  " + ", ".join(map(_described, paths)) for paths in alternatives)
        source = "the given root" if root is not None else f"${ROOT_VARIABLE}"
        if root is None and not os.environ.get(ROOT_VARIABLE):
            source = f"the default, as ${ROOT_VARIABLE} is not set"
        several = "any of these would do" if len(alternatives) > 1 else "all of these are needed"
        return (
            f"The {split} split of the data set {self.id!r} is not there. It was looked for under "
            f"{data_root(root)} ({source}); {several}:\n{places}\nHow to get it: {self.hint(root)}"
        )


def _described(path: Path) -> str:
    """A path, and what stands there if it is nothing that can be read."""
    unusable = os.path.lexists(path) and not is_regular(path) and not is_folder(path)
    return f"{path} (there, but not a regular file)" if unusable else str(path)


def prepared_path(dataset: Dataset, split: str, root: str | os.PathLike[str] | None = None) -> Path:
    """Where ``flowzoo data prepare`` puts a split's pixels, in the form from which rows can be read."""
    return (
        data_root(root) / "prepared" / dataset.preprocessing / f"{dataset.id.replace(':', '-')}-{split}.npy"
    )


def _resolve(reference: str, dataset_id: str) -> Callable[..., Any]:
    """Imports a reader by its ``"module:function"``."""
    module_name, _, attribute = reference.partition(":")
    try:
        reader = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"The data set {dataset_id!r} names the reader {reference!r}, which cannot be imported: {error}. "
            "Ask whoever published the data set's package, or reinstall it."
        ) from error
    if not callable(reader):
        raise PluginError(
            f"The data set {dataset_id!r} names the reader {reference!r}, which is not a function."
        )
    return reader  # type: ignore[no-any-return]
