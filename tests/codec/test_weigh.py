"""The tool that weighs a model's files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from flowzoo.codec import compress_images
from flowzoo.evaluation.trained_model import find_target
from flowzoo.manifest.read import load_manifests
from tests.codec.examples import golden_flow, golden_images
from tools import complete, weigh
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
    assert [row.form.split()[0] for row in rows][:4] == ["file", "xz", "PNG", "WebP"]
    assert all(row.size > 0 and row.write is not None and row.read is not None for row in rows)
    print_table(rows, images)
    shown = capsys.readouterr().out
    assert f"| {8 * written.size / images.numel():.4f} | {written.size:,} |" in shown


def test_an_entry_gets_the_size_of_the_file_that_its_command_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("constriction", reason="the extra flowzoo[compress]")
    flow, images = golden_flow(), golden_images(20)

    class Golden:
        def load(self, split: str, root: Path | None) -> torch.Tensor:
            assert split == "test"
            return images

    monkeypatch.setattr(complete, "load", lambda key: flow)
    monkeypatch.setattr(complete, "get_dataset", lambda name: Golden())
    before = dataclasses.replace(load_manifests().get("idf-mnist@1"), compressed=None)
    after = complete.completed(before, None)
    written = compress_images(flow, [images], 20, tmp_path / "x.flz", name="idf-mnist")
    assert after.compressed is not None
    assert (after.compressed.size, after.compressed.num_images) == (written.size, 20)
    assert after.compressed.bpd == written.bits_per_dim > after.compressed.integers > 0
    assert after.compressed.command == "flowzoo compress mnist -m idf-mnist@1 -o mnist.flz"
    assert complete.completed(after, None) == after


def test_the_model_weighs_what_its_file_does() -> None:
    listed = find_target("idf-mnist")
    assert listed.entry is not None and listed.entry.weights is not None
    assert weigh.weights_size(listed) == listed.entry.weights.size
    unlisted = dataclasses.replace(listed, entry=None)
    assert weigh.weights_size(unlisted) > 1.5 * listed.entry.weights.size, "single precision in memory"
