"""Runs a page as a reader would: its Python and its commands of flowzoo in order, in one process and one folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner

import flowzoo
import flowzoo.data
from flowzoo.cli.main import cli
from tests.documents import blocks, commands

SHELL = "sh"


def run_page(page: str) -> dict[str, str]:
    """Runs the Python and shell blocks of a page in the working directory.

    Returns:
        What each command wrote to stdout, by the command.
    """
    names: dict[str, Any] = {"flowzoo": flowzoo, "torch": torch}
    outputs = {}
    for block in blocks("python", SHELL):
        if block.page != page:
            continue
        if "import gradio" in block.text:
            continue  # which is not installed here
        if block.language == "python":
            exec(compile(block.text, str(block), "exec"), names)
            continue
        for words in commands(block):
            assert words[0] == "flowzoo", words
            if words[1] == "demo":
                continue  # which runs until Ctrl-C: tests/demo
            result = CliRunner().invoke(cli, words[1:], standalone_mode=False)
            assert result.exception is None, (words, result.exception, result.output)
            outputs[shlex.join(words)] = result.stdout
    return outputs


if __name__ == "__main__":
    import sys

    for command, output in run_page(sys.argv[1]).items():
        sys.stdout.write(f"$ {command}\n{output}\n")
    sys.stdout.write(f"{Path.cwd()}\n")
