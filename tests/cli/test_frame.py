"""The command line's frame: help without imports, errors as lines and codes, one output sink."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

import flowzoo
from flowzoo import errors
from flowzoo.cli import main as frame
from flowzoo.cli.output import fields, print_json, table
from tests.plugin_factory import broken, good

ROOT = Path(__file__).parents[2]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line as a process."""
    return subprocess.run(
        [sys.executable, "-m", "flowzoo", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def code_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Runs the command line in this process; returns exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as caught:
        frame.main(arguments)
    captured = capsys.readouterr()
    code = caught.value.code
    return code if isinstance(code, int) else 0, captured.out, captured.err


def test_version_is_the_projects() -> None:
    assert f'\nversion = "{flowzoo.__version__}"\n' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("name", frame.COMMANDS)
def test_every_command_of_the_table_exists_and_has_help(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = code_of(capsys, name, "--help")
    assert (code, err) == (0, "")
    assert f"flowzoo {name}" in out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = code_of(capsys, "--help")
    assert code == 0
    assert all((f"\n  {name} " in out) != (name in frame.HIDDEN) for name in frame.COMMANDS)


def test_a_mistyped_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = code_of(capsys, "lst")
    assert (code, out) == (2, "")
    assert "'list'" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UnknownModel("no such model"), 3),
        (errors.PluginError("broken"), 4),
        (errors.IntegrityError("bad hash"), 5),
        (errors.WeightsUnavailable("nowhere"), 6),
        (errors.DataUnavailable("no data"), 7),
        (errors.ConfigError("bad value"), 8),
        (errors.TrainingDiverged("not a number"), 9),
        (PermissionError(13, "Permission denied", "/somewhere"), 8),
        (MemoryError("1 GiB"), 8),
        (click.UsageError("wrong"), 2),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("division by zero"), 70),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_an_error_is_a_message_and_a_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def fails() -> None:
        raise error

    monkeypatch.setattr(frame.LazyGroup, "get_command", lambda *_: fails)
    monkeypatch.delenv("FLOWZOO_DEBUG", raising=False)
    found, out, err = code_of(capsys, "list")
    assert (found, out) == (code, "")
    assert "Traceback" not in err
    assert err.strip()
    assert len(err.splitlines()) <= 4


def test_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWZOO_DEBUG", "0")
    assert "Traceback" not in code_of(capsys, "info", "nothing")[2]
    code, _, err = code_of(capsys, "--debug", "info", "nothing")
    assert code == 3
    assert "Traceback" in err
    assert "Error: 'nothing' is no model" in err


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m flowzoo manifest schema | head -1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=True,
    )
    first, code = done.stdout.split()
    assert first == "{"
    assert code in ("141", "0")
    assert done.stderr == ""


def test_a_closed_pipe_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "flowzoo", "list", "--presets"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, "")


def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    made = broken("sleeper", "import time\nprint('asleep', flush=True)\ntime.sleep(60)")
    made.install_metadata(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "flowzoo", "plugins"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "asleep\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err.strip()) == (130, "Interrupted.")


def test_tables_are_aligned_and_never_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    table(("name", "count"), [("a" * 300, 7), ("b", None)], right=("count",))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "NAME" + " " * 298 + "COUNT"
    assert lines[1] == "a" * 300 + "      7"
    assert lines[2].endswith("  -")


def test_fields_leave_out_none_and_indent_further_lines(capsys: pytest.CaptureFixture[str]) -> None:
    fields([("a", "1\n2"), ("none", None), ("long", 3)])
    assert capsys.readouterr().out == "a     1\n      2\nlong  3\n"


def test_json_refuses_what_json_lacks() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json({"bpd": float("nan")})


# --- plugins -----------------------------------------------------------------------------------------------


def test_plugins_shows_state_cause_and_mend(tmp_path: Path) -> None:
    good("brook").install_metadata(tmp_path)
    broken("rapid", "raise SystemExit(0)").install_metadata(tmp_path)
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = run("plugins", "--json", **environment)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert (done.returncode, rows["brook"]["state"], rows["glow"]["state"]) == (0, "ok", "ok")
    assert rows["rapid"] == {
        "name": "rapid",
        "kind": "architecture",
        "state": "broken",
        "distribution": "zoo-rapid",
        "version": "1.0",
        "entry_point": "zoo_rapid.plugin:ARCHITECTURE",
        "cause": "SystemExit: importing it ends the interpreter (code 0)",
        "mend": "pip install --upgrade zoo-rapid (or: pip uninstall zoo-rapid)",
    }
    shown = run("plugins", **environment)
    assert (shown.returncode, shown.stderr) == (0, "")
    [line] = [line for line in shown.stdout.splitlines() if line.startswith("rapid")]
    assert "broken" in line
    assert line.endswith(rows["rapid"]["mend"])


def test_check_refuses_a_plugin_that_is_not_ok_or_not_there(tmp_path: Path) -> None:
    broken("rapid", "raise SystemExit(0)").install_metadata(tmp_path)
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    assert run("plugins", "check", "rapid", **environment).returncode == 4
    assert run("plugins", "check", "gloww", **environment).returncode == 3


def test_check_runs_the_conformance_kit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = code_of(capsys, "plugins", "check", "nice", "--json")
    found = json.loads(out)
    assert (code, found["passed"], found["architecture"]) == (0, True, "nice")
    monkeypatch.setattr("flowzoo.testing.run_conformance", lambda _: [("a", True, ""), ("b", False, "why")])
    code, out, err = code_of(capsys, "plugins", "check", "nice")
    assert code == 1
    assert "b      FAILED  why" in out
    assert err == "nice: 1 of 2 checks passed.\n"
