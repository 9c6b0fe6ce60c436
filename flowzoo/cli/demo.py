"""``flowzoo demo``: a page in the browser, served from this machine to this machine."""

from __future__ import annotations

import click

from flowzoo.cli.output import note, print_line


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 takes a free one."
)
@click.option("--browser/--no-browser", default=True, help="Open the page in the browser.")
def demo(names: tuple[str, ...], port: int, browser: bool) -> None:
    """Open a page in the browser to sample, slide between images, drag attributes and draw digits.

    It offers the models whose weights are on this machine, or the models, runs and paths NAME. The page is
    reachable from this machine alone, on 127.0.0.1; Ctrl-C ends it.
    """
    from flowzoo.demo.server import DemoServer
    from flowzoo.demo.work import Work, local_models
    from flowzoo.errors import WeightsUnavailable

    offered = list(dict.fromkeys(names)) or local_models()
    if not offered:
        raise WeightsUnavailable(
            "no model's weights are on this machine. Run `flowzoo pull glow-mnist`, or name a run or a path."
        )
    work = Work(offered)
    if names:
        for name in offered:
            work.do("model", {"model": name})  # whatever is wrong with it is said now
    with DemoServer(work, port) as server:
        print_line(server.url)
        note(f"{len(offered)} models. Ctrl-C ends it.")
        if browser:
            _open(server.url)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            note("Ended.")


def _open(url: str) -> None:
    """Opens the page, without waiting for a browser that takes its time."""
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
