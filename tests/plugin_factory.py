"""Makes throw-away plugin distributions: as installed metadata on a path, or as projects that pip installs."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

GROUP = "flowzoo.architectures"

# A complete architecture: one additive coupling on flattened pixels.
CONFIG = """
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Config:
        image_shape: tuple[int, int, int]
        n_bits: int = 8
        hidden: int = 8
"""
MODEL = """
    import math

    from flowzoo.bijectors import AdditiveCoupling, Chain, DiagonalScaling, Flatten, InterleavedFeatures
    from flowzoo.densities import StandardNormal
    from flowzoo.flow import Flow
    from flowzoo.nets.mlp import MLP

    def build(config):
        dims = math.prod(config.image_shape)
        sizes = dims - dims // 2, dims // 2
        couplings = [
            AdditiveCoupling(InterleavedFeatures(swap), MLP(sizes[swap], (config.hidden,), sizes[not swap], 0.1))
            for swap in (False, True)
        ]
        stack = Chain(Flatten(config.image_shape), *couplings, DiagonalScaling((dims,)))
        return Flow(
            image_shape=config.image_shape, n_bits=config.n_bits, bijector=stack, base=StandardNormal()
        )
"""


def plugin_source(
    name: str, package: str, *, api_version: object = 1, tiny: str = "tiny", extra: str = ""
) -> str:
    """Source of a ``plugin.py`` that declares an architecture; ``extra`` are more keyword arguments."""
    return f"""
    from flowzoo.api import Architecture, Preset

    ARCHITECTURE = Architecture(
        api_version={api_version!r},
        name={name!r},
        summary="A throw-away architecture",
        config="{package}.config:Config",
        build="{package}.model:build",
        presets={{{tiny!r}: Preset(summary="8x8 images", config={{"image_shape": (1, 8, 8)}})}},
        {extra}
    )
    """


@dataclass(frozen=True)
class Distribution:
    """A plugin distribution to be made.

    Attributes:
        name: Of the distribution; the package is the same with underscores.
        entries: Entry points of the group: name to value.
        files: More files in the package, by name; ``plugin.py`` replaces the good one.
        version: Of the distribution.
    """

    name: str
    entries: dict[str, str]
    files: dict[str, str]
    version: str = "1.0"

    @property
    def package(self) -> str:
        return self.name.replace("-", "_")

    def write_package(self, where: Path) -> None:
        folder = where / self.package
        folder.mkdir(parents=True)
        for filename, text in {"__init__.py": "", **self.files}.items():
            (folder / filename).write_text(textwrap.dedent(text), encoding="utf-8")

    def install_metadata(self, where: Path) -> None:
        """Puts package and metadata into a directory, as an installer leaves them."""
        self.write_package(where)
        info = where / f"{self.package}-{self.version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}\n")
        lines = "".join(f"{name} = {value}\n" for name, value in self.entries.items())
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")

    def write_project(self, where: Path) -> Path:
        """Writes a project that pip can build; returns its directory."""
        project = where / self.name
        self.write_package(project)
        entries = "".join(
            f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in self.entries.items()
        )
        (project / "pyproject.toml").write_text(
            '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n\n'
            f'[project]\nname = "{self.name}"\nversion = "{self.version}"\nrequires-python = ">=3.11"\n\n'
            f'[project.entry-points."{GROUP}"]\n{entries}'
        )
        return project


def good(architecture: str, distribution: str | None = None, *, manifest: str | None = None) -> Distribution:
    """A distribution that does everything right."""
    name = distribution or f"zoo-{architecture}"
    package = name.replace("-", "_")
    extra = f'manifest="{package}:weights_manifest.json",' if manifest is not None else ""
    files = {
        "plugin.py": plugin_source(architecture, package, extra=extra),
        "config.py": CONFIG,
        "model.py": MODEL,
    }
    if manifest is not None:
        files["weights_manifest.json"] = manifest
    return Distribution(name, {architecture: f"{package}.plugin:ARCHITECTURE"}, files)


def broken(architecture: str, source: str, *, attribute: str = "ARCHITECTURE") -> Distribution:
    """A distribution whose ``plugin.py`` is ``source``."""
    made = good(architecture)
    value = f"{made.package}.plugin:{attribute}"
    return Distribution(made.name, {architecture: value}, {**made.files, "plugin.py": source})


def guides_plugin(project: Path) -> Path:
    """Writes the files of the plugin that docs/plugins.md builds into a new directory; returns it."""
    return _write_files(project, "plugins.md", "", "## What the parts have to be")


def guides_data_set(project: Path) -> Path:
    """Writes the files of the data set that docs/data.md builds into a new directory; returns it."""
    return _write_files(project, "data.md", "## Adding a data set", "Then, in that folder:")


def _write_files(project: Path, page: str, start: str, end: str) -> Path:
    text = (Path(__file__).parents[1] / "docs" / page).read_text(encoding="utf-8")
    part = text[text.index(start) :].partition(end)[0]
    # Each file's block follows a paragraph that begins with its name.
    for name, text in re.findall(
        r"^`([\w/]+\.(?:py|toml|json))`.*?^```\w+\n(.*?)^```", part, re.DOTALL | re.MULTILINE
    ):
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return project
