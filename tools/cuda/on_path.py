"""Plugins of a checkout made visible without installing them: their metadata in a temporary folder on the path."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def plugins_on_path(root: Path = ROOT) -> Iterator[tuple[str, ...]]:
    """A context in which this process and those it starts find flowzoo and the plugins of a checkout.

    What is installed already stays as it is; a distribution that is found twice would be a conflict.

    Args:
        root: The checkout.

    Yields:
        The distributions that were made visible.
    """
    before_path, before_variable = list(sys.path), os.environ.get("PYTHONPATH")
    missing = [path for path in _projects(root) if not _is_installed(_project(path)["name"])]
    with tempfile.TemporaryDirectory(prefix="flowzoo-metadata-") as folder:
        for path in missing:
            write_metadata(_project(path), Path(folder))
        added = [folder, str(root), *(str(path.parent) for path in missing if path.parent != root)]
        sys.path[:0] = added
        os.environ["PYTHONPATH"] = os.pathsep.join([*added, *filter(None, [before_variable])])
        importlib.invalidate_caches()
        try:
            yield tuple(_project(path)["name"] for path in missing)
        finally:
            sys.path[:] = before_path
            os.environ.pop("PYTHONPATH")
            if before_variable is not None:
                os.environ["PYTHONPATH"] = before_variable


def write_metadata(project: Mapping[str, object], folder: Path) -> None:
    """Writes the ``.dist-info`` of a project, as an installation would: name, version and entry points."""
    name, version = str(project["name"]), str(project["version"])
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = project.get("entry-points", {})
    assert isinstance(groups, dict)
    lines = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def _projects(root: Path) -> list[Path]:
    return [root / "pyproject.toml", *sorted(root.glob("plugins/*/pyproject.toml"))]


def _project(path: Path) -> dict[str, str]:
    found: dict[str, str] = tomllib.loads(path.read_text())["project"]
    return found


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
