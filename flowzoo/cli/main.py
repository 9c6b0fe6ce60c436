"""The command ``flowzoo``: a table of lazily imported commands, and errors as helpful lines."""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

from flowzoo import __version__
from flowzoo.cli.ending import ends_at_once, sigterm_interrupts
from flowzoo.cli.output import note, prepare_streams, settle_streams, silence
from flowzoo.errors import FlowzooError, did_you_mean, exhausted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["cli", "main"]

COMMANDS: Mapping[str, tuple[str, str]] = {
    "list": ("listing:list_models", "List the models of the zoo."),
    "info": ("info:info", "Show everything about a model, preset or architecture."),
    "eval": ("evaluate:evaluate", "Measure a model's bits per dimension and check it against the manifest."),
    "sample": ("sample:sample", "Draw images from a model into a PNG grid."),
    "interpolate": ("interpolate:interpolate", "Draw the way from one image to another."),
    "manipulate": ("manipulate:manipulate", "Move images along the direction of an attribute."),
    "reconstruct": ("reconstruct:reconstruct", "Rebuild images level by level of the latent."),
    "score": ("score:score", "Score images: bits per dimension, and how unusual each is."),
    "nearest": ("nearest:nearest", "Find the training images nearest to samples."),
    "picture": ("picture:picture", "Draw what a model does, layer by layer."),
    "demo": ("demo:demo", "Open a page in the browser: sample, slide, drag, draw."),
    "compress": (
        "compress:compress",
        "Compress images without loss into a file that decodes on any machine.",
    ),
    "decompress": ("compress:decompress", "Get images back from a file of compress."),
    "verify": ("weights:verify", "Prove code and weights of a model in seconds, without data."),
    "pull": ("weights:pull", "Download the weights of models."),
    "cache": ("weights:cache", "List, check or remove downloaded weights."),
    "recipe": ("recipe:recipe", "Write a preset's recipe as a file to begin your own with."),
    "train": ("train:train", "Train a model, or resume a run."),
    "runs": ("runs:runs", "List training runs, or compare some: recipes, figures, curves."),
    "export": ("export:export", "Write a run's best weights as a directory that loads."),
    "data": ("data:data", "Show the data sets, where they are looked for, and how to get them."),
    "plugins": ("plugins:plugins", "Show the installed architectures and their states, or check one."),
    "new-plugin": (
        "new_plugin:new_plugin",
        "Begin a plugin: a package that installs, passes its kit and trains.",
    ),
    "manifest": ("manifest:manifest", "Check a weights manifest."),
    "convert": ("convert:convert", "Import a checkpoint of another implementation."),
    "publish": ("publish:publish", "Publish a run's weights: in its plugin, or on the Hugging Face Hub."),
    "bundle": ("publish:bundle", "Deprecated: publish --plugin."),
}
"""Every command: where it is, as ``"module:object"`` in ``flowzoo.cli``, and its line in ``--help``.

The line is here so that help imports none of them.
"""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Models": ("list", "info", "pull", "cache"),
    "Use a model": (
        "sample",
        "interpolate",
        "manipulate",
        "reconstruct",
        "score",
        "picture",
        "nearest",
        "demo",
    ),
    "Measure and verify": ("eval", "verify"),
    "Train": ("train", "recipe", "runs", "export", "data"),
    "Extend and publish": ("plugins", "new-plugin", "convert", "manifest", "publish"),
}
"""The sections of ``--help``; a command that is in none comes last, under "More"."""

HIDDEN = frozenset({"bundle"})
"""Names that still work and are not shown any more."""

EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141
EXIT_BUG = 70


class LazyGroup(click.Group):
    """A group that imports a command when it is run or asked for its own help, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the table's order."""
        return [name for name in COMMANDS if name not in HIDDEN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports and returns a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"flowzoo.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command, or suggests the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS)
            raise click.UsageError(f"No command {args[0]!r}.{hint} Try 'flowzoo --help'.", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands in groups, without importing any."""
        shown = self.list_commands(ctx)
        grouped = {name for names in GROUPS.values() for name in names}
        rest = tuple(name for name in shown if name not in grouped)
        width = max(map(len, shown))
        for title, names in {**GROUPS, "More": rest}.items():
            if rows := [(name.ljust(width), COMMANDS[name][1]) for name in names if name in shown]:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command. A reader that has gone away (``| head``) is no error of ours."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _exit_pipe_closed()
        return result


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done or verified, 1 not verified, 2 wrong usage, 3 unknown name, 4 unusable plugin, "
    "5 file not as promised, 6 weights not to be had, 7 data not to be had, 8 invalid input, config, recipe or "
    "manifest, or a limit of the machine (memory, threads, disk), 9 training stopped, 70 a bug, 130 interrupted.",
)
@click.version_option(__version__, prog_name="flowzoo", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error (also: FLOWZOO_DEBUG=1).")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """The model zoo for normalizing flows: trained models whose bits per dimension you can verify."""
    _quiet_hub_client()
    if debug:
        ctx.meta["flowzoo.debug"] = True
        os.environ["FLOWZOO_DEBUG"] = "1"


def _quiet_hub_client() -> None:
    """Keeps the client's warnings and, where nobody watches, its progress bars off a command's stderr.

    What the user has set stands. The client reads this once, when it is imported.
    """
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@ends_at_once
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits.

    A command's return value, if it is an integer, is the exit code; see :mod:`flowzoo.errors`.
    """
    prepare_streams()
    try:
        with sigterm_interrupts():
            _run(argv)
    finally:
        settle_streams()


def _run(argv: Sequence[str] | None) -> NoReturn:
    try:
        result = cli.main(args=argv, prog_name="flowzoo", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        _fail("Interrupted.", EXIT_INTERRUPTED)
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show(sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - the last resort: every error ends as a line and a code
        _report(error)
    sys.exit(result if isinstance(result, int) and not isinstance(result, bool) else 0)


def _report(error: Exception) -> NoReturn:
    """Ends with one helpful message and the code that belongs to the error."""
    if os.environ.get("FLOWZOO_DEBUG", "0") not in ("", "0"):
        import traceback

        note("".join(traceback.format_exception(error)).rstrip())
    message, code = _explain(error)
    _fail(message, code)


def _explain(error: Exception) -> tuple[str, int]:
    if isinstance(error, FlowzooError):
        return f"Error: {error}", error.exit_code
    text = " ".join(str(error).split())
    if limit := _limit_of_the_machine(error, text):
        return limit, 8
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"Error: {place}{error.strerror}.", 8
    what = f"Error: unexpected {type(error).__name__}: {text}"
    hint = "This is a bug in flowzoo or a plugin. FLOWZOO_DEBUG=1 shows where it happened; please report it."
    return f"{what}\n{hint}", EXIT_BUG


def _limit_of_the_machine(error: Exception, text: str) -> str | None:
    """The line for an error that torch, Python or the system raise where a machine has no more to give."""
    lacking = exhausted(error)
    if lacking == "memory":
        return (
            f"Error: out of memory: {text}\nGive a smaller --batch-size (for train: --set train.accumulate=2, or "
            "train.memory=checkpoint), a smaller model, or another --device."
        )
    if lacking == "threads":
        return "Error: the system allows no more threads or processes here. End some, or raise the limit (ulimit -u)."
    if "determine home directory" in text:
        return (
            "Error: there is no home directory: HOME is not set, or a path begins with ~ and an unknown user."
        )
    return None


def _fail(message: str, code: int) -> NoReturn:
    note(message)
    sys.exit(code)


def _exit_pipe_closed() -> NoReturn:
    """Ends like any program whose reader has gone away, without a second error at shutdown."""
    silence(sys.stdout)
    sys.exit(EXIT_PIPE_CLOSED)
