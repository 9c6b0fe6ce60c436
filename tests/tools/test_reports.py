"""The commands that print what a reader of the architecture wants to see measured."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from click.testing import CliRunner

from tools import equality, lines


@pytest.mark.parametrize(
    ("path", "package"),
    [
        ("flowzoo/flow.py", "flowzoo"),
        ("flowzoo/weights/hub/client.py", "flowzoo/weights"),
        ("plugins/glow/flowzoo_glow/model.py", "plugins/glow"),
        ("plugins/glow/tests/test_glow.py", "tests"),
        ("tests/ops/test_lists.py", "tests"),
        ("docs/page.md", None),
        ("setup.py", None),
    ],
)
def test_files_count_for_their_package(path: str, package: str | None) -> None:
    assert lines.package_of(PurePosixPath(path)) == package


def test_a_commit_that_is_not_there_is_named() -> None:
    done = CliRunner().invoke(lines.main, ["no-such-commit"])
    assert done.exit_code == 1
    assert "no-such-commit" in done.output


def test_the_engine_is_near_the_plain_numbers() -> None:
    done = CliRunner().invoke(equality.main, ["nice"], catch_exceptions=False)
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]
    assert [row[1:3] for row in table[:3]] == [[m, "float64"] for m in ("store", "checkpoint", "invertible")]
    assert len(table) == 6
    for row in table:
        assert {"store": "fused", "checkpoint": "computed again", "invertible": "by inversion"}[
            row[1]
        ] in row[-1]
        assert all(float(error) < (1e-9 if row[2] == "float64" else 1e-3) for error in row[3:7])
