"""The page on what one does with a flow: its commands run, and its pictures and figures are what they give."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.documents import ROOT, blocks
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


def test_the_app_of_a_space_draws_what_its_gallery_takes() -> None:
    """The whole of it where gradio is installed; elsewhere all lines but those that build the page with gradio."""
    [block] = [block for block in blocks("python") if block.page == PAGE and "import gradio" in block.text]
    names: dict[str, Any] = {"__name__": "app"}
    tree = ast.parse(block.text)
    if importlib.util.find_spec("gradio") is None:
        tree.body = [
            line for line in tree.body
            if not re.search(r"\b(gradio|app)\b", ast.unparse(line))
        ]  # fmt: skip
    exec(compile(tree, str(block), "exec"), names)
    images = names["draw"](0.8, 3.0)  # sliders and number fields give floats
    assert [(image.shape, image.dtype) for image in images] == [((28, 28), np.uint8)] * 16
    drawn = names["flow"].sample(16, temperature=0.8, seed=3)[:, 0].numpy()
    assert np.array_equal(np.stack(images), drawn)
