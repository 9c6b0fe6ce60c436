"""Prints how far the engine's numbers are from the plain ones: ``python -m tools.equality [ARCHITECTURE...]``."""

from __future__ import annotations

from collections.abc import Iterator

import click

HEADER = ("architecture", "memory", "dtype", "log_prob", "gradients", "latent", "inverse", "parts")


def rows(name: str) -> Iterator[tuple[str, ...]]:
    """The rows of an architecture's tiny model in eval mode: the largest relative differences, by memory and dtype."""
    import torch

    from flowzoo import engine
    from flowzoo.testing.capabilities.probe import MODES, Probe, difference, gradients
    from flowzoo.testing.subject import Subject

    for dtype in (torch.float64, torch.float32):
        for memory in MODES:
            flow = Subject(name).build(seed=1, dtype=dtype)
            flow.set_memory(memory)
            probe = Probe(flow, 3)
            y, context = probe.unit_batch(), probe.context()
            with torch.no_grad(), engine.disabled():
                z = flow.bijector(y, context)[0]
            results = []
            for plainly in (True, False):
                with engine.disabled() if plainly else torch.enable_grad():
                    found = [[probe.log_prob().detach()], gradients(probe)]
                    with torch.no_grad(), probe.drawing():
                        found.append([flow.engine.run(flow.bijector, y, context)[0]])
                        found.append([flow.engine.run(flow.bijector, z, context, inverse=True)[0]])
                results.append(found)
            told = flow.engine.explain(flow.bijector, y, context)
            ways = [way for way in ("fused", "computed again", "by inversion", "called") if way in told]
            errors = [f"{difference(other, one):.0e}" for one, other in zip(*results, strict=True)]
            yield name, memory, str(dtype).removeprefix("torch."), *errors, ", ".join(ways)


@click.command()
@click.argument("names", nargs=-1, metavar="[ARCHITECTURE]...")
def main(names: tuple[str, ...]) -> None:
    """Prints a table of the largest differences between the engine on and off, relative to the largest value."""
    import torch

    from flowzoo.registry import list_architectures

    torch.set_num_threads(1)
    click.echo(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for name in names or list_architectures():
        for row in rows(name):
            click.echo(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
