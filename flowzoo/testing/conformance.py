"""Running all conformance checks on an architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

from flowzoo.testing import checks_contract, checks_kind, checks_math, checks_module
from flowzoo.testing.subject import Subject

CHECKS: dict[str, Callable[[Subject], str]] = {
    "metadata imports no torch": checks_contract.metadata_without_torch,
    "tiny preset": checks_contract.tiny_preset,
    "config round trip": checks_contract.config_round_trip,
    "meta-device build": checks_contract.meta_build,
    "inverse, float64": checks_math.inverse_float64,
    "inverse, float32": checks_math.inverse_float32,
    "log_det is the Jacobian's": checks_kind.log_det_is_jacobian,
    "kind of map": checks_kind.kind_is_said,
    "estimates are keyed": checks_kind.estimates_are_keyed,
    "density integrates": checks_kind.density_integrates,
    "dequantization density": checks_math.dequantization_density,
    "probabilities sum": checks_math.probabilities_sum,
    "gradient reaches all": checks_math.gradient_reaches_all,
    "batch equals items": checks_math.batch_equals_items,
    "exact reconstruction": checks_math.reconstruction_exact,
    "deterministic sampling": checks_math.sampling_deterministic,
    "save and load": checks_contract.save_and_load,
    "initialisation once": checks_contract.initialization_once,
    "functional_call": checks_module.functional_call,
    "per-sample gradients": checks_module.gradients_of_samples,
    "weights changed count": checks_module.changed_weights,
    "second derivatives": checks_module.second_derivatives,
    "engine equals plain": checks_module.engine_equals_plain,
}
"""All checks by name; each takes a :class:`Subject`, returns a detail and raises what is wrong."""


class CheckResult(NamedTuple):
    """The outcome of one check; the detail of one that does not concern the architecture is a ``NotAsked``."""

    check: str
    passed: bool
    detail: str


def run_conformance(architecture: str, device: str = "cpu", *, engine: bool = True) -> Iterator[CheckResult]:
    """Runs every check on an installed architecture, one after the other.

    Args:
        architecture: Its name, such as ``"glow"``.
        device: Where its models are computed.
        engine: Whether the engine is on.

    Yields:
        One result per check; a check that fails does not stop the others.

    Raises:
        PluginError: The plugin is not usable at all.
    """
    yield from run_checks(Subject(architecture, device), engine=engine)


def run_checks(
    subject: Subject, names: Iterable[str] = tuple(CHECKS), *, engine: bool = True
) -> Iterator[CheckResult]:
    """Runs checks on a subject, such as a :meth:`Subject.variant`, one after the other.

    Args:
        subject: What is checked.
        names: Keys of :data:`CHECKS`.
        engine: Whether the engine is on.

    Yields:
        One result per check; a check that fails does not stop the others.
    """
    from flowzoo.engine import disabled

    for name in names:
        try:
            with nullcontext() if engine else disabled():
                detail = CHECKS[name](subject)
            yield CheckResult(name, True, detail)
        except Exception as error:  # noqa: BLE001 - whatever a third party's code raises is this check's result
            yield CheckResult(name, False, f"{type(error).__name__}: {error}")


def conformance_suite(architecture: str) -> Callable[..., None]:
    """A parametrised pytest test, one case per check; assign it to a name that starts with ``test_``."""
    import pytest

    @pytest.mark.parametrize("check", [pytest.param(c, id=name) for name, c in CHECKS.items()])
    def test(check: Any) -> None:
        check(Subject(architecture))

    found: Callable[..., None] = test
    return found
