"""The pages of a built site: their links, anchors and assets, and the tools that build and show it."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


def generator() -> list[str] | None:
    """The command that runs zensical with mkdocstrings: of this interpreter, else on the path; None without one."""
    if all(importlib.util.find_spec(name) for name in ("zensical", "mkdocstrings")):
        return [sys.executable, "-m", "zensical"]
    found = shutil.which("zensical")
    own = Path(sys.executable).parent.resolve()
    return [found] if found and Path(found).parent.resolve() != own else None


def browser() -> str | None:
    """A Chromium, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass
class Page(HTMLParser):
    """One page: the ids that it has, and what it refers to, each with the element that does."""

    path: Path
    ids: set[str] = field(default_factory=set)
    references: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def __hash__(self) -> int:
        return hash(self.path)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes ids and references."""
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.ids.add(value)
            if name in ("href", "src") or (name == "data" and tag == "object"):
                self.references.append((tag, value))


def pages(site: Path) -> dict[Path, Page]:
    """Every page of a site by its resolved path; the page for what is not found has addresses of its own."""
    return {path.resolve(): Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def broken(site: Path) -> Iterator[str]:
    """Each reference within a site to a file or an anchor that is not there."""
    known = pages(site)
    for path, page in known.items():
        for tag, reference in page.references:
            parts = urlsplit(reference)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            where = f"{path.relative_to(site.resolve())}: <{tag}> {reference}"
            if not target.is_file():
                yield f"{where}: no file"
            elif parts.fragment and target in known and unquote(parts.fragment) not in known[target].ids:
                yield f"{where}: no anchor"
