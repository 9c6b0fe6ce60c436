"""An extension of griffe for the site: Sphinx roles in docstrings, such as those of classes, become links."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc|obj):`(~?)([^`]+)`")


class Roles(griffe.Extension):
    """Rewrites the docstring of every object before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each object that griffe has read."""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(_link, obj.docstring.value)


def _link(found: re.Match[str]) -> str:
    """The name as code, linked if the reference has it; a tilde leaves the modules out of sight."""
    name = found[2]
    shown = name.rpartition(".")[2] if found[1] else name
    return f'<autoref optional identifier="{name}"><code>{shown}</code></autoref>'
