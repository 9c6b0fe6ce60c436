"""What docs/data.md tells the reader to do works: its data set is made, checked and trained; hints are commands."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from flowzoo.cli.main import cli
from flowzoo.data import Dataset, get_dataset
from flowzoo.errors import DataUnavailable
from tests.documents import blocks, commands
from tests.plugin_factory import guides_data_set

TORCHVISION = """
import json

class datasets:
    pass

def _stand_in(name):
    def download(root, download):
        json.dump([name, root, download], open("called.json", "w"))
    return download

for _name in ("MNIST", "FashionMNIST", "CIFAR10"):
    setattr(datasets, _name, _stand_in(_name))
"""


def install(project: Path) -> None:
    """Leaves the metadata that ``pip install -e .`` leaves."""
    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    info = project / f"dots_data-{table['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {table['name']}\nVersion: {table['version']}\n"
    )
    [(group, entries)] = table["entry-points"].items()
    lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")


def test_the_example_data_set_is_made_checked_and_trained(tmp_path: Path) -> None:
    project = guides_data_set(tmp_path / "dots")
    files = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    assert files == {"pyproject.toml", *(f"dots_data/{name}.py" for name in ("__init__", "reading", "make"))}
    install(project)
    [block] = [block for block in blocks("sh") if block.page == "docs/data.md" and "dots" in block.text]
    path = os.pathsep.join([str(project), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "FLOWZOO_DATA": str(project / "data")}
    printed: list[str] = []
    for words in commands(block):
        if words[0] in ("pip", "export"):
            continue
        program = [sys.executable, *(words[1:] if words[0] == "python" else ["-m", *words])]
        done = subprocess.run(
            program, cwd=project, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert len(printed) == 3
    assert printed[1].count("no digest on record") == 3
    header = json.loads((project / "run" / "run.json").read_text())
    assert header["data"]["training"]["number"] == 512
    assert (project / "run" / "best.safetensors").is_file()


def without_system_files(name: str) -> Dataset:
    """The data set, looked for below the data root alone."""
    dataset = get_dataset(name)
    splits = {
        key: dataclasses.replace(
            split, alternatives=tuple(paths for paths in split.alternatives if paths[0][0] != "/")
        )
        for key, split in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=splits)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
@pytest.mark.parametrize("folder", ["plain", "two words", 'quote\'s "$HOME"'])
def test_the_download_hint_is_a_command_that_downloads_to_the_data_root(
    name: str, folder: str, tmp_path: Path
) -> None:
    (tmp_path / "torchvision.py").write_text(TORCHVISION)
    root = tmp_path / folder
    with pytest.raises(DataUnavailable) as caught:
        without_system_files(name).find("train", root)
    hint = str(caught.value).partition("How to get it: ")[2]
    command, _, otherwise = hint.partition("\n")
    assert otherwise.startswith("Or")
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path, env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    class_name = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10"}[name]
    assert json.loads((tmp_path / "called.json").read_text()) == [class_name, str(root), True]


def test_digits_are_learned_measured_and_sampled_by_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's commands, on 8x8 images whose class is the column that is bright."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 400)
    images = random.integers(0, 30, (400, 8, 8), dtype=np.uint8)
    images[np.arange(400), :, labels % 8] += 200
    np.savez("digits.npz", x=images, labels=labels)
    sets = ["data.dataset=numpy:digits.npz", "model.image_shape=[1,8,8]", "model.depth=1", "train.steps=8"]
    sets += ["train.init_images=64", "train.validate_every=8", "train.samples=0", "schedule.0.steps=2"]
    quick = {"train": [part for text in sets for part in ("--set", text)], "eval": ["--json"], "sample": []}
    [block] = [b for b in blocks("sh") if b.page == "docs/data.md" and "--label 3" in b.text]
    lines = [shlex.split(line, comments=True)[1:] for line in block.text.splitlines()]
    assert [words[0] for words in lines] == ["train", "eval", "eval", "sample"]
    rows = []
    for words in lines:
        done = CliRunner().invoke(cli, [*words, *quick[words[0]], "--device", "cpu"], standalone_mode=False)
        assert done.exception is None, done.output
        rows += [json.loads(done.stdout)] if words[0] == "eval" else []
    given, alone = rows
    assert given["bpd"] != alone["bpd"]
    assert 0 <= given["accuracy"] <= 1
    assert Path("threes.png").stat().st_size > 0
