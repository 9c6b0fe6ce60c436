"""``flowzoo compress`` and ``decompress``: folders, files and data sets there and back, and what ends in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from flowzoo.cli.main import cli
from flowzoo.codec.outputs import write_images
from flowzoo.codec.sources import find_files
from flowzoo.errors import FlowzooError, InputError, IntegrityError
from tests.codec.examples import GOLDEN, GOLDEN_FILE, golden_images, random_images

MODEL = str(GOLDEN / "model")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def succeeds(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(kind: type[FlowzooError], *arguments: object) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, kind), result.output
    message = str(result.exception)
    assert "\n" not in message
    return message


def folder_of_images(path: Path, count: int = 5) -> np.ndarray:
    """PNG files in a folder and a folder in it; their pixels in the order of the relative paths."""
    pixels = random_images(count, 7)[:, 0].numpy()
    (path / "b").mkdir(parents=True)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(path / ("b" if i >= 2 else ".") / f"image{i}.png")
    order = sorted(range(count), key=lambda i: f"b/image{i}" if i >= 2 else f"image{i}")
    return pixels[order]


@pytest.fixture(autouse=True)
def _coder() -> None:
    pytest.importorskip("constriction", reason="the extra flowzoo[compress]")


def test_names_that_become_one_file_are_an_error_and_no_image_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a system where upper and lower case are one."""
    whole = Path.__truediv__
    monkeypatch.setattr(Path, "__truediv__", lambda path, name: whole(path, str(name).lower()))
    with pytest.raises(InputError, match=r"two of the images would be a\.png"):
        write_images([random_images(2, 0)], tmp_path / "out", shape=(1, 8, 8), count=2, names=("a", "A"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_comes_back_with_its_names(tmp_path: Path) -> None:
    pixels = folder_of_images(tmp_path / "in")
    found = json.loads(succeeds("compress", tmp_path / "in", "-o", tmp_path / "x.flz", "-m", MODEL, "--json"))
    assert found["images"] == 5
    assert found["bytes"] == (tmp_path / "x.flz").stat().st_size
    assert found["bits_per_dim"] == pytest.approx(8 * found["bytes"] / pixels.size)
    succeeds("decompress", tmp_path / "x.flz", "-o", tmp_path / "out", "-m", MODEL)
    for file in (tmp_path / "in").rglob("*.png"):
        back = Image.open(tmp_path / "out" / file.relative_to(tmp_path / "in"))
        assert np.array_equal(np.array(back), np.array(Image.open(file)))
    assert len(list((tmp_path / "out").rglob("*.png"))) == 5
    assert str(GOLDEN).encode() not in (tmp_path / "x.flz").read_bytes()


def test_files_and_an_array_come_back(tmp_path: Path) -> None:
    folder_of_images(tmp_path / "in")
    files = [tmp_path / "in/b/image4.png", tmp_path / "in/image0.png"]
    succeeds("compress", *files, "-o", tmp_path / "x.flz", "-m", MODEL)
    succeeds("decompress", tmp_path / "x.flz", "-o", tmp_path / "x.npy", "-m", MODEL)
    assert np.array_equal(np.load(tmp_path / "x.npy")[1, 0], np.array(Image.open(files[1])))
    assert np.array_equal(np.load(tmp_path / "x.npy")[0, 0], np.array(Image.open(files[0])))


def test_a_data_set_comes_back_and_its_images_are_numbered(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", golden_images(12).numpy())
    source = f"numpy:{tmp_path / 'a.npy'}?layout=nchw&split=all"
    succeeds("compress", source, "-o", tmp_path / "x.flz", "-m", MODEL, "--limit", 11)
    succeeds("decompress", tmp_path / "x.flz", "-o", tmp_path / "x.npy", "-m", MODEL)
    assert np.array_equal(np.load(tmp_path / "x.npy"), golden_images(11).numpy())
    succeeds("decompress", tmp_path / "x.flz", "-o", tmp_path / "out", "-m", MODEL)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{i:02d}.png" for i in range(11)]


def test_images_that_would_have_to_be_changed_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(tmp_path / "wide.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "colour.png")
    (tmp_path / "text.png").write_text("no image")
    for name, message in (
        ("wide", "9x8 of mode L"),
        ("colour", "mode RGB"),
        ("text", "cannot read the image"),
    ):
        out = tmp_path / "x.flz"
        assert message in fails(InputError, "compress", tmp_path / f"{name}.png", "-o", out, "-m", MODEL)
        assert not out.exists()
    assert "no file and no folder" in fails(
        InputError,
        "compress",
        tmp_path / "absent.png",
        tmp_path / "wide.png",
        "-o",
        tmp_path / "x",
        "-m",
        MODEL,
    )


@pytest.mark.parametrize("out", ["new", "new.npy"])
def test_a_damaged_file_writes_nothing(tmp_path: Path, out: str) -> None:
    content = bytearray(GOLDEN_FILE.read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / "x.flz").write_bytes(content)
    message = fails(IntegrityError, "decompress", tmp_path / "x.flz", "-o", tmp_path / out, "-m", MODEL)
    assert "do not have the pixels" in message
    assert [p.name for p in tmp_path.iterdir()] == ["x.flz"]


def test_what_stands_at_the_output_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("mine")
    assert "is there already" in fails(
        InputError, "decompress", GOLDEN_FILE, "-o", tmp_path / "kept", "-m", MODEL
    )
    assert (tmp_path / "kept/file").read_text() == "mine"


def test_a_file_names_no_model_to_load_but_a_listed_one(tmp_path: Path) -> None:
    message = fails(InputError, "decompress", GOLDEN_FILE, "-o", tmp_path / "x")
    assert "no model of `flowzoo list`" in message
    assert "--model" in message


def test_names_are_told_apart(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        (tmp_path / name).write_bytes(b"")
    assert find_files([tmp_path], (1, 8, 8)).names == ("a.jpg", "a.png", "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/b.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"named 'b\.png'"):
        find_files([tmp_path / "b.png", tmp_path / "c/b.png"], (1, 8, 8))


def test_without_the_coder_it_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['constriction'] = None\n"
        "from flowzoo.cli.main import main\n"
        f"main(['decompress', {str(GOLDEN_FILE)!r}, '-o', {str(tmp_path / 'x')!r}, '-m', {MODEL!r}])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 8
    assert "pip install 'flowzoo[compress]'" in done.stderr
    assert not (tmp_path / "x").exists()
