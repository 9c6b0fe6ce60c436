"""Plans: a flow's bijectors as parts that are run one after the other, without the values of their parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flowzoo.bijectors.base import Bijector
from flowzoo.bijectors.chain import Chain
from flowzoo.bijectors.coupling import Coupling
from flowzoo.bijectors.invertible import Arithmetic, run_by_inversion
from flowzoo.bijectors.linear import InvertibleConv1x1
from flowzoo.bijectors.multiscale import FactorOut
from flowzoo.bijectors.partitions import AlternateColumns, ChannelHalves, Checkerboard, InterleavedFeatures
from flowzoo.bijectors.recompute import run_again_in_backward
from flowzoo.engine.networks import FOLDED, Accelerator
from flowzoo.engine.rules import RULES, Call, mapped
from flowzoo.engine.values import CONV, MIXING, Folding, Values
from flowzoo.nets.accelerate import accelerating
from flowzoo.ops.layout import channel_major
from flowzoo.ops.rows import RecordedStep, record_row, run_row

LONGEST = 8
"""Steps of a row that stores activations: they are freed only after the row's whole backward pass."""

LONGEST_RECOMPUTED = 2
"""Steps of a row that computes activations again: those of all its steps are there at once."""

PACKING = (ChannelHalves, InterleavedFeatures, AlternateColumns, Checkerboard)
"""Partitions of which two instances differ in ``swap`` alone."""

Terms = list[Tensor]


class Part(ABC):
    """Consecutive bijectors that are computed together."""

    @abstractmethod
    def run(self, x: Tensor, context: Tensor | None, call: Call) -> tuple[Tensor, Terms]:
        """Maps a batch, or takes it back: the result and log-determinants ``(B,)``."""

    @abstractmethod
    def describe(self) -> Iterator[str]:
        """Says line by line what is fused."""


class CallPart(Part):
    """A bijector that is called; the networks inside may be accelerated."""

    def __init__(self, bijector: Bijector) -> None:
        self.bijector = bijector

    def run(self, x: Tensor, context: Tensor | None, call: Call) -> tuple[Tensor, Terms]:
        """See :class:`Part`."""
        x, term = self.bijector.inverse(x, context) if call.inverse else self.bijector(x, context)
        return x, [term]

    def describe(self) -> Iterator[str]:
        """See :class:`Part`."""
        yield f"called: {type(self.bijector).__name__}"


class RecomputedPart(Part):
    """A bijector that keeps its input and is computed again in the backward pass."""

    def __init__(self, bijector: Bijector) -> None:
        self.bijector = bijector

    def run(self, x: Tensor, context: Tensor | None, call: Call) -> tuple[Tensor, Terms]:
        """See :class:`Part`."""
        if call.inverse:
            return CallPart(self.bijector).run(x, context, call)
        x, term = run_again_in_backward(self.bijector, x, context, _evaluate)
        return x, [term]

    def describe(self) -> Iterator[str]:
        """See :class:`Part`."""
        yield f"computed again: {type(self.bijector).__name__}"


def _evaluate(bijector: Bijector, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Evaluates one bijector, also in a backward pass, where the call's own folded tensors are not to be used."""
    with accelerating(Accelerator(Values(()), None)):
        rule = RULES.get(type(bijector))
        if rule is None or rule.mapped is None or not isinstance(bijector, Coupling):
            return bijector(x, context)
        given, b = bijector.partition.split(x)
        parameters = bijector.parameters_of(given, context, keep_dtype=True)
        b, log_det = mapped(bijector, b, parameters, inverse=False)
        return bijector.partition.merge(given, b), log_det


class RowPart(Part):
    """Maps of images with channels, fused into one operation."""

    def __init__(self, bijectors: Sequence[Bijector], memory: str) -> None:
        self.bijectors, self.memory = bijectors, memory

    def run(self, x: Tensor, context: Tensor | None, call: Call) -> tuple[Tensor, Terms]:
        """See :class:`Part`."""
        if not self._fits(x):
            # Calling them raises the error that says what does not fit.
            return ChainPart([CallPart(bijector) for bijector in self.bijectors]).run(x, context, call)
        steps = []
        for bijector in reversed(self.bijectors) if call.inverse else self.bijectors:
            make = RULES[type(bijector)].step
            assert make is not None
            steps.append(make(bijector, x, call))
        if not call.recorded or call.inverse:
            x, term = run_row(steps, x, inverse=call.inverse)
            return x, [term]
        terms = []
        recorded = [step for step in steps if isinstance(step, RecordedStep)]
        length = {"store": LONGEST, "checkpoint": LONGEST_RECOMPUTED}.get(self.memory, len(recorded))
        for start in range(0, len(recorded), length):
            row = recorded[start : start + length]
            recompute, invert = self.memory == "checkpoint", self.memory == "invertible"
            x, term = record_row(row, x, recompute=recompute, invert=invert)
            terms.append(term)
        return x, terms

    def _fits(self, x: Tensor) -> bool:
        channels = [b.channels for b in self.bijectors if isinstance(b, InvertibleConv1x1)]
        return x.ndim == 4 and x.shape[1] >= 2 and all(c == x.shape[1] for c in channels)

    def describe(self) -> Iterator[str]:
        """See :class:`Part`."""
        names = ", ".join(type(bijector).__name__ for bijector in self.bijectors)
        yield f"fused into a row ({self.memory}): {names}"


class CouplingPart(Part):
    """Couplings that alternate on the same two halves: split once, merged once, each with a fused elementwise map."""

    def __init__(self, couplings: Sequence[Coupling]) -> None:
        self.couplings = couplings

    def run(self, x: Tensor, context: Tensor | None, call: Call) -> tuple[Tensor, Terms]:
        """See :class:`Part`."""
        partition = self.couplings[0].partition
        # The halves in order, whichever conditions first.
        partition = partition.complement() if partition.swap else partition
        halves, terms = list(partition.split(x)), []
        for coupling in reversed(self.couplings) if call.inverse else self.couplings:
            given = int(coupling.partition.swap)
            parameters = coupling.parameters_of(halves[given], context, keep_dtype=True)
            halves[1 - given], term = mapped(coupling, halves[1 - given], parameters, call.inverse)
            terms.append(term)
        return partition.merge(*halves), terms

    def describe(self) -> Iterator[str]:
        """See :class:`Part`."""
        yield "elementwise maps fused: " + ", ".join(type(c).__name__ for c in self.couplings)


class InvertedPart(Part):
    """Bijectors whose activations are rebuilt by inversion."""

    def __init__(self, bijectors: Sequence[Bijector]) -> None:
        self.bijectors = bijectors

    def run(self, x: Tensor, context: Tensor | None, call: Call) -> tuple[Tensor, Terms]:
        """See :class:`Part`."""
        # Folded tensors belong to the graph of this call; in the backward pass modules are folded again.
        again = Accelerator(Values(()), None)
        arithmetic = Arithmetic(
            partial(_mapped, inverse=False), partial(_mapped, inverse=True), lambda: accelerating(again)
        )
        x, term = run_by_inversion(self.bijectors, x, context, arithmetic)
        return x, [term]

    def describe(self) -> Iterator[str]:
        """See :class:`Part`."""
        yield "rebuilt by inversion: " + ", ".join(type(b).__name__ for b in self.bijectors)


def _mapped(coupling: Any, x: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
    return mapped(coupling, x, parameters, inverse)


class FactorOutPart(Part):
    """A split whose rest is a plan of its own."""

    def __init__(self, split: FactorOut, rest: Part) -> None:
        self.split, self.rest = split, rest

    def run(self, x: Tensor, context: Tensor | None, call: Call) -> tuple[Tensor, Terms]:
        """See :class:`Part`."""
        split = self.split
        if call.inverse:
            z_rest, z_out = x.chunk(2, dim=1)
            kept, terms = self.rest.run(z_rest, context, call)
            out = channel_major(z_out.reshape(kept.shape))
            if split.prior is not None:
                out, term = split.prior.inverse(out, kept)
                terms = [*terms, term]
            return split.partition.merge(kept, out), terms
        kept, out = split.partition.split(x)
        terms = []
        if split.prior is not None:
            out, term = split.prior(out, kept)
            terms.append(term)
        z, found = self.rest.run(kept, context, call)
        return torch.cat((z.flatten(1), out.flatten(1)), dim=1), [*terms, *found]

    def describe(self) -> Iterator[str]:
        """See :class:`Part`."""
        yield "factor out, then:"
        for line in self.rest.describe():
            yield f"  {line}"


class ChainPart(Part):
    """Parts one after the other."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts

    def run(self, x: Tensor, context: Tensor | None, call: Call) -> tuple[Tensor, Terms]:
        """See :class:`Part`."""
        terms: Terms = []
        for part in reversed(self.parts) if call.inverse else self.parts:
            x, found = part.run(x, context, call)
            terms += found
        return x, terms

    def describe(self) -> Iterator[str]:
        """See :class:`Part`."""
        for part in self.parts:
            yield from part.describe()


class Plan(NamedTuple):
    """A plan, the modules that it is of, and those whose parameters are folded."""

    part: Part
    modules: list[nn.Module]
    folded: list[tuple[nn.Module, Folding]]


def make_plan(root: Bijector, modules: list[nn.Module], *, conditional: bool, recorded: bool) -> Plan:
    """Plans a bijector.

    Args:
        root: The bijector.
        modules: All modules inside.
        conditional: Whether there is a context, which couplings in rows cannot take.
        recorded: Whether gradients are.
    """
    folded: list[tuple[nn.Module, Folding]] = []
    for module in dict.fromkeys(modules):
        if type(module) in FOLDED:
            folded.append((module, CONV))
        elif (
            isinstance(module, InvertibleConv1x1)
            and type(module) in RULES
            and RULES[type(module)].is_step(module)
        ):
            folded.append((module, MIXING))
    return Plan(_Planner(conditional, recorded).part_of(root), modules, folded)


class _Planner:
    def __init__(self, conditional: bool, recorded: bool) -> None:
        self.conditional, self.recorded = conditional, recorded

    def part_of(self, bijector: Bijector) -> Part:
        """The part that a bijector comes to by itself."""
        if type(bijector) is Chain:
            return self._chain(bijector)
        if type(bijector) is FactorOut:
            return FactorOutPart(bijector, self.part_of(bijector.rest))
        return self._joined([bijector], "store")

    def _chain(self, chain: Chain) -> Part:
        memory = chain.memory if self.recorded else "store"
        parts: list[Part] = []
        run: list[Bijector] = []
        for bijector in [*chain, None]:
            kind = self._kind(bijector)
            if run and (kind != self._kind(run[0]) or kind == "other"):
                parts.append(self._joined(run, memory))
                run = []
            if bijector is not None and kind == "nested":
                parts.append(self.part_of(bijector))
            elif bijector is not None:
                run.append(bijector)
        return ChainPart(self._inverted(parts) if memory == "invertible" else parts)

    def _kind(self, bijector: Bijector | None) -> object:
        """Neighbours of one kind are joined; those of kind "other" and "nested" are parts of their own."""
        if bijector is None or type(bijector) in (Chain, FactorOut):
            return "nested"
        rule = RULES.get(type(bijector))
        if rule is None:
            return "other"
        takes_context = isinstance(bijector, Coupling) and bijector.takes_context
        if rule.is_step(bijector) and not (self.conditional and takes_context):
            return "row"
        if rule.mapped is not None and isinstance(bijector, Coupling):
            return type(bijector.partition) if type(bijector.partition) in PACKING else "other"
        return "other"

    def _joined(self, bijectors: Sequence[Bijector], memory: str) -> Part:
        kind = self._kind(bijectors[0])
        if kind == "row":
            return RowPart(bijectors, memory)
        if memory == "checkpoint":
            return ChainPart([RecomputedPart(bijector) for bijector in bijectors])
        rule = RULES.get(type(bijectors[0]))
        if rule is not None and rule.mapped is not None:
            return CouplingPart(bijectors)  # type: ignore[arg-type]
        return ChainPart([CallPart(bijector) for bijector in bijectors])

    @staticmethod
    def _inverted(parts: Sequence[Part]) -> list[Part]:
        """Joins everything between rows and nested parts: rebuilt by inversion, they need no storage between them."""
        found: list[Part] = []
        between: list[Bijector] = []
        for part in [*parts, None]:
            own = [] if part is None else _bijectors_of(part)
            if part is None or not own:
                if between:
                    found.append(InvertedPart(between))
                    between = []
                if part is not None:
                    found.append(part)
            between += own
        return found


def _bijectors_of(part: Part) -> list[Bijector]:
    """The bijectors of a part that inversion may join with its neighbours; none of a row or a nested part."""
    if isinstance(part, CouplingPart):
        return list(part.couplings)
    if isinstance(part, ChainPart) and all(isinstance(p, CallPart) for p in part.parts):
        return [p.bijector for p in part.parts if isinstance(p, CallPart)]
    return []
