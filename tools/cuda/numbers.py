"""Checks of small models with random weights: conformance, and the CPU's numbers."""

from __future__ import annotations

import torch

from flowzoo.evaluation.precision import full_precision
from flowzoo.testing.capabilities.probe import Probe, gradients, one_line
from flowzoo.testing.conformance import CHECKS
from flowzoo.testing.subject import Subject
from tools.cuda.settings import Settings

QUICK = ("inverse, float32", "batch equals items", "exact reconstruction")

ANYWHERE = ("metadata imports no torch", "tiny preset", "config round trip", "meta-device build")
"""Conformance checks that compute nothing on the device; the CPU's tests have made them."""

SLOW = ("weights changed count", "second derivatives")
"""Those that take longest, which come last."""


def conformance(settings: Settings) -> str:
    """Every conformance check of every architecture with its models on the device, float32 and float64."""
    found = settings.findings
    subjects = {name: Subject(name, settings.device) for name in settings.architectures()}
    names = QUICK if settings.smallest else (*(c for c in CHECKS if c not in ANYWHERE + SLOW), *SLOW)
    for check in names:
        wrong = len(found.wrong)
        for name, subject in subjects.items():
            try:
                CHECKS[check](subject)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this check's result
                found.wrong.append(f"{name}, {check}: {one_line(error)}")
        if len(found.wrong) == wrong:
            found.details.append(check)
    return f"{len(subjects)} architectures: {found.result()}"


def tiny_models(settings: Settings) -> str:
    """log_prob and gradients of the tiny models with random weights, beside the CPU's in float64 and float32."""
    found, worst = settings.findings, {torch.float64: 0.0, torch.float32: 0.0}
    for name in settings.architectures():
        for dtype, allowed in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
            here, there = (Probe(Subject(name, place).build(1, dtype)) for place in ("cpu", settings.device))
            with torch.no_grad():
                pairs = [(here.log_prob(), there.log_prob())]
            with full_precision(there.flow, settings.place):
                pairs += zip(gradients(here), gradients(there), strict=True)
            scale = max(float(expected.abs().max()) for expected, _ in pairs)
            errors = torch.stack([(there.cpu() - here).abs().max() for here, there in pairs])
            apart = float(errors.max()) / scale
            found.hold(f"{name}, {dtype}", apart, allowed, " of the largest")
            worst[dtype] = max(worst[dtype], apart)
    found.details.append(
        f"float64 {worst[torch.float64]:.1e}, float32 {worst[torch.float32]:.1e} of the largest value"
    )
    return found.result()
