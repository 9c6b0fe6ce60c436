"""A faster way to the numbers of the mathematics; the only package that knows both bijectors and ops.

``run`` evaluates a bijector as ``bijector(x, context)`` or ``bijector.inverse(x, context)`` would, fused where that is
possible. ``disabled()``, and ``FLOWZOO_ENGINE=0`` in the environment, switch it off; ``explain`` says what is fused.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowzoo.bijectors.base import Bijector, sum_terms
from flowzoo.bijectors.multiscale import ConditionalPrior
from flowzoo.bijectors.scale_maps import ScaleMap
from flowzoo.engine.applies import disabled, is_disabled, original_methods, reason_against, signature_of
from flowzoo.engine.networks import NETWORKS, Accelerator
from flowzoo.engine.plan import Plan, make_plan
from flowzoo.engine.rules import RULES, SETTINGS, Call, Rule
from flowzoo.engine.values import Frozen, Values
from flowzoo.nets.accelerate import accelerating

if TYPE_CHECKING:
    from flowzoo.flow import Flow

__all__ = ["RULES", "Engine", "Rule", "disabled", "explain", "is_enabled", "run"]

VARIABLE = "FLOWZOO_ENGINE"
"""The environment variable that switches the engine off, with the value 0."""

MOST_PLANS = 32

_METHODS = original_methods((*SETTINGS, *NETWORKS, ScaleMap, ConditionalPrior))


def is_enabled() -> bool:
    """Whether flows are computed by the engine where it applies."""
    return os.environ.get(VARIABLE) != "0" and not is_disabled()


class Engine:
    """The plans of one flow, and the values that it keeps while it is frozen. Copies and pickles begin empty."""

    def __init__(self) -> None:
        self._plans: dict[tuple[object, ...], Plan] = {}
        self._lock = threading.Lock()
        self._frozen: dict[tuple[object, ...], Frozen] | None = None
        self._freezes = 0

    def __reduce__(self) -> tuple[type[Engine], tuple[()]]:
        return Engine, ()

    def run(
        self, bijector: Bijector, x: Tensor, context: Tensor | None = None, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Evaluates a bijector, or its inverse.

        Args:
            bijector: The bijector.
            x: A batch, or a latent.
            context: The context of conditional bijectors.
            inverse: Whether to invert.

        Returns:
            The result and the log-determinant ``(B,)`` of this direction, as the bijector itself gives them.
        """
        recorded = torch.is_grad_enabled()
        # Gradients of an inverse are those of the plain operations.
        applies = not (torch.compiler.is_compiling() or (inverse and recorded)) and is_enabled()
        if applies and reason_against(x, context) is None:
            plan, frozen = self._plan(bijector, x, context, recorded)
            if plan is not None:
                return self._run(plan, frozen, x, context, inverse, recorded)
        return bijector.inverse(x, context) if inverse else bijector(x, context)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """A context in which values made of parameters outlive a call, where no gradients are recorded."""
        with self._lock:
            self._freezes += 1
            self._frozen = {} if self._frozen is None else self._frozen
        try:
            yield
        finally:
            with self._lock:
                self._freezes -= 1
                if not self._freezes:
                    self._frozen = None

    def explain(self, bijector: Bijector, x: Tensor, context: Tensor | None = None) -> str:
        """Says what is fused in a call of :meth:`run`, or why nothing is."""
        against = reason_against(x, context) if is_enabled() else "the engine is switched off"
        if against is None:
            signature = signature_of(bijector, SETTINGS, x)
            against = signature.reason or _patched_class()
        if against is not None:
            return f"plain: {against}"
        recorded = torch.is_grad_enabled()
        plan = make_plan(bijector, signature.modules, conditional=context is not None, recorded=recorded)
        return "\n".join(plan.part.describe())

    def _plan(
        self, bijector: Bijector, x: Tensor, context: Tensor | None, recorded: bool
    ) -> tuple[Plan | None, Frozen | None]:
        """The plan of a call, or None if it is to be plain; and the kept values, if the flow is frozen."""
        frozen = None if recorded else self._frozen
        # Also while frozen: weights are promised not to change, hooks and settings are not.
        signature = signature_of(bijector, SETTINGS, x)
        if signature.reason is not None or _patched_class() is not None:
            return None, None
        key = (context is None, recorded, *signature.key)
        plan = self._plans.get(key)
        if plan is None:
            plan = make_plan(bijector, signature.modules, conditional=context is not None, recorded=recorded)
            with self._lock:
                if len(self._plans) >= MOST_PLANS:
                    self._plans.clear()
                self._plans[key] = plan
        if frozen is None:
            return plan, None
        return plan, frozen.setdefault((*key, x.dtype, x.device), Frozen())

    @staticmethod
    def _run(
        plan: Plan, frozen: Frozen | None, x: Tensor, context: Tensor | None, inverse: bool, recorded: bool
    ) -> tuple[Tensor, Tensor]:
        values = Values(plan.folded) if frozen is None else frozen.get("values", lambda: Values(plan.folded))
        with accelerating(Accelerator(values, frozen)):
            y, terms = plan.part.run(x, context, Call(values, frozen, inverse, recorded))
        return y, sum_terms(terms)


def run(
    bijector: Bijector, x: Tensor, context: Tensor | None = None, *, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Evaluates a bijector once; a :class:`Flow` keeps an :class:`Engine`, which plans once for many calls."""
    return Engine().run(bijector, x, context, inverse=inverse)


def explain(flow: Flow, like: Tensor) -> str:
    """Says how ``flow.log_prob`` is computed on the flow's device: which way in the first line, then its parts.

    The ways are the engine, plain operations and why, and ``torch.compile``, for a flow that was compiled. No flow is
    replayed as a CUDA graph.

    Args:
        flow: The flow, or what ``torch.compile`` made of it.
        like: Images ``uint8 (B, C, H, W)``, or a batch of the bijector's inputs.
    """
    parameter = next(flow.parameters(), torch.empty(0))
    # By the name of its module: asking for the class would import the compiler, which takes seconds.
    if hasattr(flow, "_orig_mod"):
        return f"on {parameter.device}, by torch.compile: plain operations, which the compiler fuses"
    parts = flow.engine.explain(flow.bijector, like.to(parameter))
    if parts.startswith("plain: "):
        return f"on {parameter.device}, {parts}"
    return f"on {parameter.device}, by the engine, neither compiled nor as a CUDA graph:\n{parts}"


def _patched_class() -> str | None:
    """The class of which somebody has replaced a method, if there is one."""
    for kind, name, method in _METHODS:
        if getattr(kind, name) is not method:
            return f"{kind.__name__}.{name} is patched"
    return None
