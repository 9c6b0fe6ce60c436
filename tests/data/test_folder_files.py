"""Files of a folder: pixels of other depths, transparency, links and hidden names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from flowzoo.cli.data import data
from flowzoo.data import get_dataset
from flowzoo.data.readers.folder import SkippedFiles
from flowzoo.data.survey import survey
from flowzoo.errors import IntegrityError


def read(folder: Path, channels: int = 1) -> torch.Tensor:
    images = get_dataset(f"folder:{folder}?size=4&split=all&channels={channels}").load("train").images
    return images if isinstance(images, torch.Tensor) else images.batch(torch.arange(images.shape[0]))


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, suffix: str) -> None:
    levels = np.arange(16, dtype=np.uint16).reshape(4, 4) * 17
    Image.fromarray(levels * 257).save(tmp_path / f"a.{suffix}")
    assert torch.equal(read(tmp_path)[0, 0], torch.from_numpy(levels.astype(np.uint8)))


def test_pixels_of_unknown_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(IntegrityError, match="no known range"):
        read(tmp_path)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_white_whatever_colour_they_hide(tmp_path: Path, mode: str) -> None:
    hidden = Image.new(mode, (4, 4), (10, 20, 30, 0) if mode == "RGBA" else (10, 0))
    hidden.save(tmp_path / "a.png")
    assert bool((read(tmp_path, channels=3) == 255).all())


def test_each_real_file_counts_once_and_hidden_ones_never(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / ".ipynb_checkpoints").mkdir()
    picture = Image.new("L", (4, 4), 100)
    for name in ("inside/a.png", "._a.png", ".ipynb_checkpoints/a.png"):
        picture.save(tmp_path / name)
    (tmp_path / "inside" / "up").symlink_to(tmp_path)
    (tmp_path / "again.png").symlink_to(tmp_path / "inside" / "a.png")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "missing.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert len(read(tmp_path)) == 1


def test_the_real_file_counts_and_not_the_link(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    Image.new("L", (4, 4), 100).save(tmp_path / "deep" / "z.png")
    (tmp_path / "a.png").symlink_to(tmp_path / "deep" / "z.png")
    (tmp_path / "b").symlink_to(tmp_path / "deep")
    (tmp_path / "up").symlink_to(tmp_path.parent)
    found = survey(tmp_path)
    assert found.files == (tmp_path / "deep" / "z.png",)
    assert found.skipped == {"another name of a file or folder that counts already": ("a.png", "b", "up")}


def test_what_is_skipped_is_counted_and_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.PNG", ".hidden.png"):
        Image.new("L", (4, 4), 100).save(tmp_path / name)
    for number in range(5):
        (tmp_path / f"notes{number}\x1b.txt").write_text("no image")
    with pytest.warns(
        SkippedFiles, match=r"hidden: 1 \(\.hidden\.png\); no known image suffix: 5 \(notes0"
    ) as said:
        assert len(read(tmp_path)) == 2
    assert "and 2 more" in str(said[0].message)
    assert "\x1b" not in str(said[0].message)
    for command in ("show", "check"):
        done = CliRunner().invoke(
            data, [command, f"folder:{tmp_path}?size=4&split=all"], standalone_mode=False
        )
        assert done.exception is None
        assert "no known image suffix: 5 (notes0" in done.output


def test_files_beside_the_subfolders_are_named(tmp_path: Path) -> None:
    for name in ("train/a.png", "valid/b.png", "test/c.png", "stray.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), len(name)).save(tmp_path / name)
    done = CliRunner().invoke(data, ["show", f"folder:{tmp_path}?size=4", "--json"])
    assert json.loads(done.stdout)["not_used"] == "outside train/, valid/, test/: 1 (stray.png)"


@pytest.mark.parametrize("in_memory", [True, False])
def test_all_bad_files_are_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.setattr("flowzoo.data.readers.npy.IN_MEMORY_BYTES", 0)
    for number in range(30):
        Image.new("L", (4, 4), number).save(tmp_path / f"good{number:02d}.png")
        (tmp_path / f"bad{number:02d}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    name = f"folder:{tmp_path}?size=4&split=all"
    done = CliRunner().invoke(data, ["check", name, "--json"], standalone_mode=False)
    error = json.loads(done.stdout)[0]["error"]
    assert error.startswith("30 of 60 files cannot be used as images")
    assert all(f"bad{number:02d}.png: " in error for number in range(20))
    assert "bad20" not in error
    assert error.endswith("and 10 more")


def test_an_error_of_all_splits_is_said_once(tmp_path: Path) -> None:
    for name in ("cats/a.png", "dogs/b.png", "stray.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), len(name)).save(tmp_path / name)
    name = f"folder:{tmp_path}?size=4&labels=folders&split=all"
    done = CliRunner().invoke(data, ["check", name], standalone_mode=False)
    assert done.return_value == IntegrityError.exit_code
    assert done.stderr.count("stray.png is in no folder of a class") == 1
    assert "no images" not in done.stdout, "there are three, one of them where it should not be"
    assert done.stdout.count("wrong") == 3
    (tmp_path / "stray.png").unlink()
    done = CliRunner().invoke(data, ["check", name], standalone_mode=False)
    assert done.return_value == 0, done.output


def test_a_split_without_any_says_what_is_lacking(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("x,y\n1.5,2.5\n")
    done = CliRunner().invoke(
        data, ["check", f"csv:{tmp_path / 'table.csv'}", "--json"], standalone_mode=False
    )
    verdicts = sorted(row["verdict"] for row in json.loads(done.stdout))
    assert verdicts == ["no digest on record", "no vectors", "no vectors"]
