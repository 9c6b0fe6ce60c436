"""Which data sets there are: the built-in ones, those of other distributions, and the user's own files.

Other distributions announce theirs by the entry-point group ``flowzoo.datasets``: the entry's name is the
data set's id, its value a :class:`flowzoo.data.api.Dataset` or a function without arguments that returns one.
One that cannot be loaded is listed with its cause and raises only when it is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from flowzoo.data.api import ACCEPTED_VERSIONS, API_VERSION, Dataset
from flowzoo.data.catalogue import BUILT_IN
from flowzoo.data.labelled import parse_labelled
from flowzoo.data.own import PREFIXES, parse_own
from flowzoo.data.tables import parse_table
from flowzoo.errors import PluginError, UnknownDataset, did_you_mean
from flowzoo.registry.entry_points import declarations
from flowzoo.registry.isolation import ForeignFailure, bounded, import_reference, shortened

__all__ = ["GROUP", "Registered", "discover_datasets", "get_dataset", "list_datasets", "reset_datasets"]

GROUP = "flowzoo.datasets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A row of the registry.

    Attributes:
        id: The data set's id.
        dataset: The data set, or None if it cannot be used.
        origin: ``"built in"``, or the distribution and the entry point it comes from.
        cause: Why it cannot be used; empty if it can.
    """

    id: str
    dataset: Dataset | None
    origin: str
    cause: str = ""


class _Point(NamedTuple):
    """An entry point of the group: name, value, and the distribution with its version."""

    name: str
    value: str
    owner: str


def _points() -> list[_Point]:
    """All entry points of the group, sorted; of a distribution that is installed twice, both."""
    return sorted(
        _Point(name, value, f"{found.distribution} {found.version}")
        for found in declarations(GROUP)
        for name, value in found.entries
    )


@functools.cache
def discover_datasets() -> Mapping[str, Registered]:
    """Returns every registered data set by id, those that cannot be used included; found once a process."""
    rows = {dataset.id: Registered(id=dataset.id, dataset=dataset, origin="built in") for dataset in BUILT_IN}
    for point in _points():
        known = rows.get(point.name)
        if known is None:
            rows[point.name] = _load(point)
        elif known.origin == "built in":
            # A built-in id stays what it is: published figures refer to it.
            name = f"{point.name} ({point.owner})"
            cause = f"{point.name!r} is the id of a built-in data set"
            rows[name] = Registered(id=name, dataset=None, origin=_origin(point), cause=cause)
        elif known.origin != _origin(point):
            origins = f"{known.origin} and {_origin(point)}"
            cause = "two distributions claim this id; uninstall one of them"
            rows[point.name] = Registered(id=point.name, dataset=None, origin=origins, cause=cause)
    return MappingProxyType(rows)


def reset_datasets() -> None:
    """Forgets what was discovered; for tests and for code that installs distributions while it runs."""
    discover_datasets.cache_clear()


def list_datasets() -> list[str]:
    """Returns the ids of all data sets that can be used, sorted."""
    return sorted(row.id for row in discover_datasets().values() if row.dataset is not None)


def get_dataset(name: str) -> Dataset:
    """Returns the data set of an id.

    Args:
        name: An id such as ``"mnist"`` or ``"points:two-moons"``, or ``folder:DIR?size=64``, ``numpy:FILE.npy``,
            ``numpy:FILE.npz``, ``csv:FILE.csv``.

    Raises:
        UnknownDataset: if there is none; the message suggests similar ones.
        PluginError: if the distribution that provides it is broken.
        InputError: if a ``folder:``, ``numpy:`` or ``csv:`` name is malformed.
    """
    if name.startswith(PREFIXES):
        return parse_table(name) or parse_labelled(name) or parse_own(name)
    row = discover_datasets().get(name)
    if row is None:
        raise UnknownDataset(
            f"There is no data set {name!r}.{did_you_mean(name, list_datasets())} "
            f"Known: {', '.join(list_datasets())}, folder:DIR?size=N, numpy:FILE.npy and csv:FILE.csv."
        )
    if row.dataset is None:
        raise PluginError(
            f"The data set {name!r} of {row.origin} cannot be used: {row.cause}. "
            "Update or uninstall that distribution, or tell its authors."
        )
    return row.dataset


def _origin(point: _Point) -> str:
    return f"{point.owner}, entry point {shortened(point.value, 100)!r}"


def _load(point: _Point) -> Registered:
    """Loads one entry point; whatever goes wrong in it is a cause, not an exception."""
    dataset: Dataset | None = None
    try:
        dataset, cause = bounded(lambda: _judged(point))
    except ForeignFailure as failure:
        cause = str(failure)
    usable = dataset if not cause else None
    return Registered(id=shortened(point.name, 100), dataset=usable, origin=_origin(point), cause=cause)


def _judged(point: _Point) -> tuple[Dataset | None, str]:
    value = import_reference(point.value)
    dataset = value if isinstance(value, Dataset) else value()
    return dataset, _objection(point, dataset)


def _objection(point: _Point, dataset: object) -> str:
    if not isinstance(dataset, Dataset):
        return f"its value is a {type(dataset).__name__}, expected a flowzoo.data.Dataset"
    if dataset.id != point.name:
        return f"its id is {dataset.id!r}, expected {point.name!r}, the entry point's name"
    if dataset.api_version not in ACCEPTED_VERSIONS:
        return f"its api_version is {dataset.api_version}, this flowzoo speaks {API_VERSION}"
    return ""
