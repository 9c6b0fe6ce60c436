"""Standard streams that are closed, full or of another encoding: a result, or one line and a code, never a bug."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


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
