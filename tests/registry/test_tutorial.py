"""docs/tutorial.md from its first file to verified weights: its files are written and its commands run."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.documents import ROOT, blocks, commands
from tests.plugin_factory import tutorials_plugin

FILES = (
    "pyproject.toml", "tests/test_terrace.py", "flowzoo_terrace/model.py", "flowzoo_terrace/plugin.py",
    "flowzoo_terrace/bars.py", "flowzoo_terrace/reading.py", "flowzoo_terrace/recipes/bars.toml",
    "flowzoo_terrace/weights_manifest.json",
)  # fmt: skip
SHORT = [
    "train.steps=40",
    "train.validate_every=20",
    "train.validate_images=64",
    "train.samples=0",
    "schedule.0.steps=5",
]
PROGRAM = """
import json, sys
from click.testing import CliRunner
from flowzoo.cli.main import cli
runner = CliRunner()
for words in json.loads(sys.argv[1]):
    done = runner.invoke(cli, words)
    print(json.dumps([words[0], done.exit_code, done.output, repr(done.exception)]))
from flowzoo.data import get_dataset
splits = [get_dataset("bars").load(name) for name in ("train", "test")]
print(json.dumps([split.images.flatten().bincount(minlength=256).tolist() for split in splits]))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tutorial's folder, with the metadata that ``pip install -e`` leaves."""
    project = tutorials_plugin(tmp_path_factory.mktemp("tutorial") / "terrace")
    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    info = project / f"flowzoo_terrace-{table['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {table['name']}\nVersion: {table['version']}\n"
    )
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in table["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("".join(groups))
    return project


@pytest.fixture(scope="module")
def lines(project: Path) -> list[list[object]]:
    """What each of the page's commands of flowzoo gave, the training shortened, in one process."""
    found = [words[1:] for block in blocks("console") if block.page == "docs/tutorial.md" for words in commands(block)
             if words[0] == "flowzoo"]  # fmt: skip
    [train] = [words for words in found if words[0] == "train"]
    train += [word for text in SHORT for word in ("--set", text)]
    path = os.pathsep.join([str(project), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(found)],
        cwd=project, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_it_is_eight_files(project: Path) -> None:
    """Those that the page counts; what the commands add is no source."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    assert "eight small files" in text
    assert all((project / name).is_file() for name in FILES)


def test_every_command_does_what_the_page_says(lines: list[list[object]], project: Path) -> None:
    *results, _ = lines
    assert [name for name, *_ in results] == ["plugins", "train", "publish", "manifest", "eval"]
    for name, code, output, exception in results:
        assert code == 0, (name, output, exception)
    outputs = {str(name): str(output) for name, _, output, _ in results}
    assert "checks passed" in outputs["plugins"]
    assert "10000 of 10000" in outputs["publish"]
    assert "verified" in outputs["eval"]
    assert "not verified" not in outputs["eval"]
    [entry] = json.loads((project / "flowzoo_terrace" / "weights_manifest.json").read_text())["models"]
    assert entry["name"] == "terrace-bars"
    assert (project / "flowzoo_terrace" / "weights" / entry["weights"]["filename"]).is_file()
    assert entry["measured"]["bpd"] > 4.0625, "no model can be below the entropy"


def test_the_data_set_has_the_entropy_that_the_page_gives(lines: list[list[object]]) -> None:
    """Sixteen bars, and sixteen levels a pixel that are equally likely on a bar and beside it."""
    assert 4 + math.log2(16) / 64 == 4.0625
    train, test = (list(map(int, counts)) for counts in lines[-1])  # type: ignore[call-overload]
    assert sum(train) == 4096 * 64
    for first, share in ((50, 7 / 8), (200, 1 / 8)):
        levels = train[first : first + 16]
        assert sum(levels) == sum(train) * share
        assert max(levels) / min(levels) < 1.2
    assert [level for level, times in enumerate(train) if times] == [*range(50, 66), *range(200, 216)]
    assert train != test
