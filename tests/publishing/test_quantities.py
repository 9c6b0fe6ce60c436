"""Lengths of files and times in cards: never "0.0 MB" or "0.0 hours"."""

from __future__ import annotations

import pytest

from flowzoo.publishing.quantities import duration, file_length


@pytest.mark.parametrize(
    ("size", "text"), [(1_061, "1.1 kB"), (99_999, "100.0 kB"), (143_417, "0.1 MB"), (38_322_657, "38.3 MB")]
)
def test_the_length_of_a_file(size: int, text: str) -> None:
    assert file_length(size) == text


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0.0053, "19 seconds"), (0.1265, "8 minutes"), (0.999, "60 minutes"), (2.4457, "2.4 hours")],
)
def test_a_time(hours: float, text: str) -> None:
    assert duration(hours) == text
