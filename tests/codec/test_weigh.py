"""The tool that weighs a model's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowzoo.codec import compress_images
from tests.codec.examples import golden_flow, golden_images
from tools.weigh import of_model, of_others, print_table


def test_the_rows_are_those_of_the_files_themselves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("constriction", reason="the extra flowzoo[compress]")
    flow, images = golden_flow(), golden_images(20)
    exact, integers, file = of_model(flow, images, "idf-golden")
    written = compress_images(flow, [images], 20, tmp_path / "x.flz", name="idf-golden")
    assert file.size == written.size
    assert exact.size == pytest.approx(integers.size, rel=0.05)
    assert integers.size < file.size
    rows = [file, *of_others(images)]
    assert [row.form.split()[0] for row in rows] == ["file", "xz", "PNG,", "WebP"]
    assert all(row.size > 0 and row.write is not None and row.read is not None for row in rows)
    print_table(rows, images)
    shown = capsys.readouterr().out
    assert f"| {8 * written.size / images.numel():.4f} | {written.size:,} |" in shown
