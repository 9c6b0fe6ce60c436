"""The ratios that the page on what one can do states come from a command that runs."""

from __future__ import annotations

import re

from click.testing import CliRunner

from tools.analysis_speed import main


def test_a_line_for_each_kind_of_work() -> None:
    result = CliRunner().invoke(
        main, ["nice-cdf-mnist", "--images", "16", "--rounds", "1"], catch_exceptions=False
    )
    found = dict(re.findall(r"^(.*): ([\d.]+)", result.stdout, re.MULTILINE))
    assert list(found) == [
        "a grid of 64 samples", "8 ways of 9 images", "scores of 16 images", "weights and images, once",
    ]  # fmt: skip
    assert all(float(value) > 0 for value in found.values())
