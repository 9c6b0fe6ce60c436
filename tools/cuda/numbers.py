"""Checks of numbers: a device gives those of the CPU."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

import flowzoo
from flowzoo.data.epochs import as_set
from flowzoo.evaluation.of_flow import evaluate_flow
from flowzoo.evaluation.precision import full_precision
from flowzoo.flow import Flow
from flowzoo.manifest.read import load_manifests
from flowzoo.nets.keyed import keyed_noise
from flowzoo.testing.capabilities.probe import Probe, gradients
from flowzoo.testing.conformance import CHECKS
from flowzoo.testing.subject import Subject
from tools.cuda.settings import Settings, Skipped

SAME_BITS = 1e-5
"""Largest difference of a shipped model's bits/dim of one image, float32."""

SAME_GRADIENTS = 1e-4
"""Largest difference of a gradient, as a share of the length of all gradients."""

QUICK = ("inverse, float32", "batch equals items", "exact reconstruction")


def conformance(settings: Settings) -> str:
    """Every conformance check of every architecture with its models on the device, float32 and float64."""
    wrong, passed = [], 0
    for name in settings.architectures():
        subject = Subject(name, settings.device)
        for check, run in CHECKS.items():
            if settings.smallest and check not in QUICK:
                continue
            try:
                run(subject)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this check's result
                wrong.append(f"{name}, {check}: {type(error).__name__}: {str(error).splitlines()[0]}")
            else:
                passed += 1
    assert not wrong, "; ".join(wrong)
    return f"{passed} checks of {len(settings.architectures())} architectures"


def tiny_models(settings: Settings) -> str:
    """log_prob and gradients of the tiny models with random weights, beside the CPU's in float64 and float32."""
    worst = {torch.float64: 0.0, torch.float32: 0.0}
    for name in settings.architectures():
        for dtype, allowed in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
            here, there = (Probe(Subject(name, place).build(1, dtype)) for place in ("cpu", settings.device))
            with torch.no_grad():
                pairs = [(here.log_prob(), there.log_prob())]
            with full_precision(there.flow, settings.place):
                pairs += zip(gradients(here), gradients(there), strict=True)
            scale = max(float(expected.abs().max()) for expected, _ in pairs)
            apart = max(float((found.cpu() - expected).abs().max()) for expected, found in pairs) / scale
            assert apart <= allowed, (
                f"{name}, {dtype}: off by {apart:.1e} of the largest, allowed {allowed:.0e}"
            )
            worst[dtype] = max(worst[dtype], apart)
    return f"float64 {worst[torch.float64]:.1e}, float32 {worst[torch.float32]:.1e} of the largest value"


def shipped(settings: Settings) -> Iterator[tuple[str, Flow]]:
    """The models that come with the checkout, on the CPU."""
    names = [e.name for e in load_manifests().entries if e.weights is not None and e.status == "released"]
    for name in ["cdf-mnist"] if settings.smallest else names:
        yield name, flowzoo.load(name, device="cpu", offline=True)


def images_for(flow: Flow, count: int) -> Tensor:
    """Test images for a shipped model: MNIST's, or its own samples, where the set is not here."""
    if tuple(flow.data_shape) == (1, 28, 28):
        return as_set("mnist", "test", None)[:count]
    with torch.random.fork_rng(devices=[]):
        return flow.sample(count, temperature=0.7, generator=torch.Generator().manual_seed(0))


def bits_of_shipped_models(settings: Settings) -> str:
    """bits/dim of each image within 1e-5 of the CPU's, and gradients within 1e-4; TF32 off, keyed noise."""
    count, details = (4, []) if settings.smallest else (32, [])
    for name, flow in shipped(settings):
        x = images_for(flow, count)
        noise = keyed_noise(flow.noise_kind, flow.data_shape, 0, range(count), 0)
        other = copy.deepcopy(flow).to(settings.place)
        answers = []
        for model, place in ((flow, torch.device("cpu")), (other, settings.place)):
            with full_precision(model, place):
                bits = model.nats_to_bits(model(x.to(place), noise.to(place)))
                found = torch.autograd.grad(
                    bits.mean(), list(model.parameters()), allow_unused=True, materialize_grads=True
                )
            gradient = torch.cat([g.double().cpu().flatten() for g in found])
            answers.append((bits.detach().double().cpu(), gradient))
        (expected, slope), (bits, gradient) = answers
        apart = float((bits - expected).abs().max())
        turned = float((gradient - slope).norm() / slope.norm().clamp_min(1e-30))
        assert apart <= SAME_BITS, f"{name}: {apart:.1e} bits/dim from the CPU, allowed {SAME_BITS:.0e}"
        assert turned <= SAME_GRADIENTS, f"{name}: gradients {turned:.1e} from the CPU's"
        details.append(f"{name} {apart:.0e} bits/dim, gradients {turned:.0e}")
    return "; ".join(details)


def keyed_figure(settings: Settings) -> str:
    """An evaluation on the device gives the CPU's figure, whatever the batch size: float64 to 1e-9, float32 to 1e-5."""
    details = []
    for name, flow in shipped(settings):
        x = images_for(flow, 6 if settings.smallest else 16)
        for dtype, allowed in (("float64", 1e-9), ("float32", SAME_BITS)):
            found = [
                evaluate_flow(flow, x, dtype=dtype, device=place, batch_size=size, audit=False).bpd  # type: ignore[arg-type]
                for place, size in (("cpu", len(x)), (settings.device, len(x)), (settings.device, 5))
            ]
            apart = max(found) - min(found)
            assert apart <= allowed, f"{name}, {dtype}: figures {found} differ by {apart:.1e}"
        details.append(f"{name} {found[1]:.6f}")
    return "; ".join(details)


def exact_round_trip(settings: Settings) -> str:
    """decode(encode(x)) == x for 1,000 images of every shipped model."""
    count, details = (20, []) if settings.smallest else (1000, [])
    for name, flow in shipped(settings):
        # Their own samples are drawn on the device, where a thousand do not take minutes.
        x = images_for(flow.to(settings.place), count)
        with full_precision(flow, settings.place), torch.no_grad():
            parts = x.to(settings.place).split(100)
            wrong = sum(int((flow.decode(flow.encode(p)) != p).flatten(1).any(1).sum()) for p in parts)
        assert wrong == 0, f"{name}: {wrong} of {len(x)} images come back changed"
        details.append(f"{name} {len(x)}")
    if not details:
        raise Skipped("no shipped model is here")
    return ", ".join(details)
