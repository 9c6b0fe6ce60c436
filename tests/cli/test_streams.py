"""Standard streams that are closed, full or of another encoding: a result, or one line and a code, never a bug."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowzoo.cli.main import main
from flowzoo.cli.output import fields, note, print_json, print_line, table

HOSTILE = "a\x1b[2J\x9b1m\x7f\u202eb\ud800c\r"
"""A terminal would be cleared, coloured, and read backwards; and no encoding has the last but one."""
ESCAPED = r"a\u001b[2J\u009b1m\u007f\u202eb\ud800c\u000d"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs ``flowzoo`` with arguments and redirections."""
    return subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} -m flowzoo {line}"],
        capture_output=True,
        text=True,
        encoding="latin-1" if "PYTHONIOENCODING" in environment else "utf-8",
        env=os.environ | environment,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "code", "err"),
    [
        ("list >&-", 0, ""),
        ("list 2>&-", 0, ""),
        ("list >&- 2>&- <&-", 0, ""),
        ("--version >&-", 0, ""),
        ("info nosuch 2>&-", 3, ""),
        ("info nosuch 2>/dev/full", 3, ""),
        ("nosuch 2>/dev/full", 2, ""),
        ("list >/dev/full", 8, "Error: standard output: No space left on device.\n"),
        ("list --json >/dev/full", 8, "Error: standard output: No space left on device.\n"),
        ("--help >/dev/full", 8, "Error: No space left on device.\n"),
        ("list >/dev/full 2>/dev/full", 8, ""),
    ],
)
def test_streams_that_cannot_be_written(line: str, code: int, err: str) -> None:
    done = shell(line)
    assert (done.returncode, done.stderr) == (code, err)


def test_a_result_goes_to_the_one_stream_that_is_open() -> None:
    assert "glow-mnist" in shell("list 2>&-").stdout


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_letters_that_the_encoding_lacks_are_escaped(encoding: str) -> None:
    text = "caf\u00e9 \u2212 \u540d"
    command = (
        "from flowzoo.cli.output import *; prepare_streams(); "
        f"print_json([{text!r}]); print_line({text!r}); note({text!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", command],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        check=True,
    )
    *lines, last = done.stdout.decode("latin-1").splitlines()
    assert json.loads("\n".join(lines)) == [text]
    assert last == done.stderr.decode("latin-1").strip()
    if encoding == "latin-1":  # for ASCII, which is taken for a mistake, UTF-8 is written
        assert last == "caf\u00e9 \\u2212 \\u540d"


def test_a_command_in_latin_1_ends_well() -> None:
    done = shell("info glow-mnist", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_others_wrote_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_line(HOSTILE)
    note(HOSTILE)
    table(["name", "next"], [[HOSTILE, "x"]])
    fields([("name", HOSTILE)])
    captured = capsys.readouterr()
    line, header, row, field = captured.out.splitlines()
    assert (line, captured.err) == (ESCAPED, ESCAPED + "\n")
    assert row.index("x") == header.index("NEXT"), "columns are as wide as what is shown"
    assert ESCAPED in row
    assert ESCAPED in field


def test_json_says_the_same_in_its_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([HOSTILE, "caf\u00e9"])
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable()
    assert json.loads(out) == [HOSTILE, "caf\u00e9"]


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_no_handler_of_errors_lets_half_a_pair_end_the_command(errors: str) -> None:
    command = (
        "import click; from flowzoo.cli.output import *; prepare_streams(); "
        "print_line('a\\ud800'); click.echo('\\udcff\\ud800')"
    )
    environment = os.environ | {"PYTHONIOENCODING": f"utf-8:{errors}"}
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, env=environment, check=True)
    assert done.stdout == b"a\\ud800\n\\udcff\\ud800\n"


@pytest.mark.parametrize(("name", "code"), [("flowzoo.json", 8), ("run.json", 9)])
def test_a_description_with_half_a_pair_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, code: int
) -> None:
    (tmp_path / name).write_text(r'{"schema": 1, "name": "\ud800", "architecture": "glow"}')
    with pytest.raises(SystemExit) as ended:
        main(["info", f"path:{tmp_path}"])
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out) == (code, "")
    assert "surrogate" in captured.err
    assert len(captured.err.splitlines()) == 1
