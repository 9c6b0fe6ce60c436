"""The READMEs of plugins say what a density and a sample cost, as docs/which-flow.json has it."""

from __future__ import annotations

from pathlib import Path

from tools.plugin_readmes import CLOSING, OPENING, cost, readmes, rewritten
from tools.which_flow import ROOT, read_rows

ROW = {
    "preset": "glow-mnist",
    "density_passes": 1,
    "sampling_passes": 784,
    "log_prob_ms": 4.7123,
    "sample_ms": 1234.5,
}


def test_the_paragraph_has_passes_and_times() -> None:
    text = cost(ROW)
    assert "a density takes 1 pass of its networks and 4.7 ms" in text
    assert "a sample takes 784 passes of its networks and 1,200 ms (one thread)" in text
    unmeasured = cost({**ROW, "log_prob_ms": None, "sample_ms": None})
    assert "ms" not in unmeasured.replace("glow-mnist", "")


def test_it_stands_after_the_first_paragraph_and_is_renewed_in_place() -> None:
    text = "# title\n\nfirst\nparagraph\n\n## rest\n\nmore\n"
    once = rewritten(text, ROW)
    assert once.startswith("# title\n\nfirst\nparagraph\n\n" + OPENING)
    assert once.endswith(CLOSING + "\n\n## rest\n\nmore\n")
    again = rewritten(once, {**ROW, "log_prob_ms": 9.9})
    assert again == once.replace("4.7 ms", "9.9 ms")


def test_every_plugin_says_what_it_is_good_for() -> None:
    found = dict(readmes(ROOT, read_rows(ROOT)))
    assert {path.parent.name for path in found} == {
        p.parent.name for p in Path(ROOT).glob("plugins/*/pyproject.toml")
    }
    for path, text in found.items():
        first = " ".join(text.split("\n\n")[1].lower().split())
        assert "good for" in first or "good as" in first, path
