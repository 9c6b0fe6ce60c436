"""The page on what one does with a flow: its commands run, and its pictures and figures are what they give."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.documents import ROOT
from tests.documents_page import run_page

PAGE = "docs/what-you-can-do.md"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The page, run once in a folder of its own."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, run_page(PAGE)


def test_the_pictures_are_those_that_the_commands_draw(ran: tuple[Path, dict[str, str]]) -> None:
    folder, _ = ran
    shown = set(re.findall(r"\]\((images/what-[\w-]+\.png)\)", (ROOT / PAGE).read_text(encoding="utf-8")))
    assert len(shown) >= 9
    shown.remove("images/what-demo.png")  # of a browser, by tools.demo_screenshot
    for name in sorted(shown):
        with Image.open(folder / "docs" / name) as new, Image.open(ROOT / "docs" / name) as kept:
            assert (new.size, new.info) == (kept.size, kept.info), name
            gap = np.abs(np.asarray(new.convert("L")).astype(int) - np.asarray(kept.convert("L")).astype(int))
        assert (gap > 32).mean() < 0.01, name


def test_the_page_shows_what_the_command_prints(ran: tuple[Path, dict[str, str]]) -> None:
    _, outputs = ran
    printed = next(
        text for command, text in outputs.items() if "score glow-mnist" in command and "grey:0" in command
    )
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    for line in printed.splitlines():
        name, value = re.fullmatch(r"(.*?)  +([\d.]+).*", line).groups()  # type: ignore[union-attr]
        kept = re.search(rf"^{re.escape(name)}  +([\d.]+)", text, re.MULTILINE)
        assert kept is not None
        assert float(kept[1]) == pytest.approx(float(value), abs=2e-3)


def test_the_pictures_are_small() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "docs" / "images").glob("what-*.png")) < 1_500_000
