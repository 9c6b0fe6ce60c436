"""The command that checks a GPU: all of it on the CPU, from a checkout without installation, and without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import cuda as speed
from flowzoo.registry.entry_points import declarations
from tests.first_party import PLUGINS
from tools.cuda import __main__ as command
from tools.cuda import page, shipped
from tools.cuda.on_path import ROOT, plugins_on_path, write_metadata

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
INSTALLED = ("flowzoo", "_editable_impl_flowzoo", "__editable__")


def run(arguments: list[str], *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-m", "tools.cuda", "--device", "cpu", "--smallest", "--json", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_whole_command_on_the_cpu(tmp_path: Path) -> None:
    before = (ROOT / "docs/cuda.md").read_text()
    done = run(["--out", str(tmp_path)])
    assert done.returncode == 0, done.stderr
    rows = {row["check"]: row for row in json.loads(done.stdout)}
    assert tuple(rows) == command.NAMES
    assert {name for name, row in rows.items() if row["outcome"] != "ok"} == {"host_waits"}
    assert "bit for bit" in rows["resumes"]["detail"]
    assert rows["two_processes"]["detail"].startswith("gloo")
    assert "--set train.accumulate=2" in rows["out_of_memory"]["detail"]
    written = (tmp_path / "cuda.md").read_text()
    assert "card CPU" in written
    assert all(f"| {name} |" in written for name in command.NAMES)
    assert (ROOT / "docs/cuda.md").read_text() == before


def test_a_checkout_and_its_path_suffice(tmp_path: Path) -> None:
    """Nothing of flowzoo is installed for this interpreter: libraries are linked, and ``-S`` reads no ``.pth``."""
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(INSTALLED):
            (libraries / entry.name).symlink_to(entry)
    path = os.pathsep.join([str(ROOT), str(libraries)])
    done = run(["tiny_models", "keyed_figure"], "-S", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert [row["outcome"] for row in json.loads(done.stdout)] == ["ok", "ok"]


def test_plugins_that_are_not_installed_are_declared(tmp_path: Path) -> None:
    plugin = tmp_path / "plugins/unheard"
    plugin.mkdir(parents=True)
    entry = '[project.entry-points."flowzoo.architectures"]\nunheard = "unheard.plugin:ARCHITECTURE"\n'
    (plugin / "pyproject.toml").write_text(f'[project]\nname = "flowzoo-unheard"\nversion = "3.1"\n{entry}')
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "flowzoo"\nversion = "0.1.0"\n')
    before, variable = list(sys.path), os.environ.get("PYTHONPATH")
    with plugins_on_path(tmp_path) as added:
        assert "flowzoo-unheard" in added
        found = {d.distribution: d for d in declarations("flowzoo.architectures")}
        assert found["flowzoo-unheard"].version == "3.1"
        assert str(plugin) in os.environ["PYTHONPATH"]
    assert (sys.path, os.environ.get("PYTHONPATH")) == (before, variable)
    assert "flowzoo-unheard" not in {d.distribution for d in declarations("flowzoo.architectures")}


def test_every_first_party_plugin_gets_the_entry_points_it_declares(tmp_path: Path) -> None:
    import tomllib

    for name in PLUGINS:
        project = tomllib.loads((ROOT / f"plugins/{name}/pyproject.toml").read_text())["project"]
        write_metadata(project, tmp_path)
        written = (tmp_path / f"flowzoo_{name}-{project['version']}.dist-info/entry_points.txt").read_text()
        assert f"[flowzoo.architectures]\n{name} = " in written


@without_gpu
def test_without_a_gpu_one_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = CliRunner().invoke(command.main, ["--out", str(tmp_path)])
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith("skipped: device 'cuda' was asked for")
    assert len(done.stderr.splitlines()) == 1
    speed.main("cuda", tmp_path, 1)
    assert capsys.readouterr().err == done.stderr
    assert not list(tmp_path.iterdir())


def test_a_wrong_number_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shipped, "SAME_BITS", -1.0)
    monkeypatch.setattr(shipped, "OWN_ERRORS", -1.0)
    arguments = ["bits_of_shipped_models", "--device", "cpu", "--smallest", "--out", str(tmp_path)]
    done = CliRunner().invoke(command.main, arguments)
    assert done.exit_code == 1
    assert "WRONG    bits_of_shipped_models: AssertionError: cdf-mnist" in done.stderr
    assert "| WRONG |" in (tmp_path / "cuda.md").read_text()


def test_an_unknown_check_is_named() -> None:
    done = CliRunner().invoke(command.main, ["resume", "--device", "cpu"])
    assert done.exit_code == 2
    assert "no check 'resume'" in done.stderr


def test_the_page_in_the_repository_is_that_of_its_results() -> None:
    data = ROOT / "docs/cuda.json"
    results = json.loads(data.read_text()) if data.exists() else {}
    assert (ROOT / "docs/cuda.md").read_text() == page.page(results)
    assert page.page({}) == "# CUDA\n\nnot measured yet\n"
