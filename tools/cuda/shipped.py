"""Checks of the models that come with the checkout: a device gives the CPU's figures and brings back their data."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

import flowzoo
from flowzoo.data.epochs import as_set
from flowzoo.errors import FlowzooError
from flowzoo.evaluation.audit import same_items
from flowzoo.evaluation.of_flow import evaluate_flow
from flowzoo.evaluation.precision import full_precision
from flowzoo.flow import Flow
from flowzoo.manifest.read import load_manifests
from flowzoo.manifest.schema import Entry
from flowzoo.nets.keyed import Keys, keyed_noise
from tools.cuda.settings import Findings, Settings, Skipped

SAME_BITS = 1e-5
"""Largest difference of a shipped model's bits/dim of one image from the CPU's."""

SAME_GRADIENTS = 1e-4
"""Largest difference of a gradient, as a share of the length of all gradients."""

OWN_ERRORS = 3
"""The same in float32, in multiples of the CPU's own error, where that is larger."""

SAME_FIGURE = 1e-9
"""Largest difference of a figure in float64, of a map that solves no equations."""

BFLOAT16_BITS = 0.01
"""Largest difference of the bits/dim of networks in bfloat16 from those in float32."""

CPU = torch.device("cpu")


def shipped(settings: Settings) -> Iterator[tuple[Entry, Flow]]:
    """The models that come with the checkout, on the CPU; those that take longest to invert last."""
    entries = [e for e in load_manifests().entries if e.weights is not None and e.status == "released"]
    wanted = settings.models or (("cdf-mnist",) if settings.smallest else tuple(e.name for e in entries))
    found = [entry for entry in entries if entry.name in wanted]
    if not found:
        raise Skipped("no shipped model is here")
    for entry in sorted(found, key=lambda entry: entry.sampling_passes or 0):
        yield entry, flowzoo.load(entry.name, device="cpu", offline=True)


def data_for(settings: Settings, entry: Entry, flow: Flow, count: int) -> Tensor:
    """Test data for a shipped model, or its own samples where the set is not here."""
    count = settings.images or count
    try:
        return as_set(entry.data.id, "test", None)[:count]
    except FlowzooError:
        # Drawn on the device, where a thousand do not take minutes.
        generator = torch.Generator().manual_seed(0)
        there = copy.deepcopy(flow).to(settings.place)
        return there.sample(count, temperature=0.7, generator=generator, batch_size=count).cpu()


def answer(flow: Flow, x: Tensor, dtype: torch.dtype, place: torch.device) -> tuple[Tensor, Tensor]:
    """Bits (of vectors nats) per dimension ``(B,)`` and the gradient of their mean, on the CPU in float64."""
    model = copy.deepcopy(flow).to(place, dtype)
    n = len(x)
    # Of float32's numbers in both, so that one noise is compared.
    noise = keyed_noise(model.noise_kind, model.data_shape, 0, range(n), 0).to(place, dtype)
    x = x.to(place) if model.data_kind == "images" else x.to(place, dtype)
    with full_precision(model, place):
        each = model.per_dim(model.log_prob(x, noise=noise, keys=Keys(seed=0, items=range(n))))
        weights = list(model.parameters())
        slopes = torch.autograd.grad(each.mean(), weights, allow_unused=True, materialize_grads=True)
    return each.detach().double().cpu(), torch.cat([slope.double().cpu().flatten() for slope in slopes])


def apart(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """The largest difference per dimension, and that of the gradients as a share of their length."""
    values = float((found[0] - expected[0]).abs().max())
    return values, float((found[1] - expected[1]).norm() / expected[1].norm().clamp_min(1e-30))


def bits_of_shipped_models(settings: Settings) -> str:
    """Each image's bits/dim within 1e-5 of the CPU's, gradients within 1e-4, in float64; TF32 off, keyed noise.

    In float32 the device may be three times as far from float64 as the CPU is, where that is more.
    """
    found = settings.findings
    for entry, flow in shipped(settings):
        x = data_for(settings, entry, flow, 4 if settings.smallest else 8)
        expected = answer(flow, x, torch.float64, CPU)
        own = apart(answer(flow, x, torch.float32, CPU), expected)
        wide = apart(answer(flow, x, torch.float64, settings.place), expected)
        single = apart(answer(flow, x, torch.float32, settings.place), expected)
        limits = (SAME_BITS, SAME_GRADIENTS)
        for i, what in enumerate((flow.unit, "gradients")):
            found.hold(f"{entry.name}, float64, {what}", wide[i], limits[i])
            found.hold(f"{entry.name}, float32, {what}", single[i], max(limits[i], OWN_ERRORS * own[i]))
        above = any(error > limit for error, limit in zip(own, limits, strict=True))
        found.details.append(
            f"{entry.name} float64 {wide[0]:.0e} and gradients {wide[1]:.0e}, "
            f"float32 {single[0]:.0e} and {single[1]:.0e}"
            + (f" (the CPU itself {own[0]:.0e} and {own[1]:.0e})" if above else "")
        )
    return found.result()


def keyed_figure(settings: Settings) -> str:
    """An evaluation gives the CPU's figure, whatever the batch size: float64 to 1e-9, float32 to 1e-5 or its error."""
    found = settings.findings
    for entry, flow in shipped(settings):
        x = data_for(settings, entry, flow, 6 if settings.smallest else 16)
        expected = _each(flow, x, "float64", "cpu", len(x))
        own = float((_each(flow, x, "float32", "cpu", len(x)) - expected).abs().max())
        # A density that is had by solving is as exact as it is solved.
        kind = flow.bijector.map_kind
        solved = (kind.tolerance or 0.0) if kind.forward == "numeric" else 0.0
        limits: dict[Literal["float64", "float32"], float] = {
            "float64": max(SAME_FIGURE, solved),
            "float32": max(SAME_BITS, OWN_ERRORS * own),
        }
        for dtype, allowed in limits.items():
            for size in (len(x), 5):
                mean = _each(flow, x, dtype, settings.device, size).mean()
                what = f"{entry.name}, {dtype}, batches of {size}, {flow.unit}"
                found.hold(what, float((mean - expected.mean()).abs()), allowed)
        found.details.append(f"{entry.name} {float(expected.mean()):.6f}")
    return found.result()


def _each(flow: Flow, x: Tensor, dtype: Literal["float64", "float32"], device: str, size: int) -> Tensor:
    """What an evaluation says of each item, in bits or nats per dimension."""
    data = x if flow.data_kind == "images" else x.to(getattr(torch, dtype))
    measured = evaluate_flow(flow, data, dtype=dtype, device=device, batch_size=size, audit=False)
    return flow.per_dim(measured.per_image.log_prob)


def exact_round_trip(settings: Settings) -> str:
    """decode(encode(x)) == x for 1,000 images of every shipped model; vectors to a ten-thousandth.

    Images that float32 changes have to come back in float64, and may be no more than the model's record lets expect.
    """
    found = settings.findings
    for entry, flow in shipped(settings):
        x = data_for(settings, entry, flow, 20 if settings.smallest else 1000)
        there = copy.deepcopy(flow).to(settings.place)
        changed = ~comes_back(there, x)
        wrong, allowed = int(changed.sum()), allowed_changes(entry, len(x))
        if wrong > allowed:
            found.wrong.append(f"{entry.name}: {wrong} of {len(x)} come back changed, allowed {allowed}")
        left = int((~comes_back(there.double(), x[changed])).sum()) if wrong else 0
        if left:
            found.wrong.append(f"{entry.name}: {left} of {len(x)} come back changed in float64")
        more = f" ({wrong} of them in float64 alone)" if wrong else ""
        found.details.append(f"{entry.name} {len(x)}{more}")
    return found.result()


def comes_back(flow: Flow, x: Tensor, batch_size: int = 500) -> Tensor:
    """Which items ``(B,)`` are what they were after encoding and decoding, as the audit judges it."""
    place, dtype = flow._placement()
    x = x.to(place) if flow.data_kind == "images" else x.to(place, dtype)
    # Under any label the map has to be one-to-one.
    y = 0 if flow.labels is not None and not flow.labels.dropout else None
    with full_precision(flow, place), torch.no_grad():
        back = flow.decode(flow.encode(x, y, batch_size=batch_size), y, batch_size=batch_size)
    return same_items(flow, x, back).cpu()


def allowed_changes(entry: Entry, count: int) -> int:
    """How many of some images float32 may change: what the record lets expect of another machine, and five errors.

    A record of none lost among N still has a bound of 3 / N (the rule of three, 95 %): another processor rounds
    otherwise, and now and then an image that came back on one does not on the other.
    """
    on_record = entry.measured
    if on_record is None or on_record.reconstruction_exact is None:
        return 0
    lost = max(3, on_record.num_images - on_record.reconstruction_exact)
    expected = count * lost / on_record.num_images
    return math.floor(expected + 5 * math.sqrt(expected))


def bfloat16(settings: Settings) -> str:
    """The same weights with networks in bfloat16 are within 0.01 bits/dim of float32; a short training of each."""
    from tools.cuda.trainings import short_training

    name = "glow-mnist"
    [(entry, flow)] = shipped(Settings(settings.device, models=(name,)))
    x = data_for(settings, entry, flow, 4 if settings.smallest else 200)
    figures = [in_network_dtype(flow, x, settings.place, dtype) for dtype in (None, torch.bfloat16)]
    found: Findings = settings.findings
    found.hold(f"{name}, bfloat16 networks, bits/dim", abs(figures[0] - figures[1]), BFLOAT16_BITS)
    found.details.append(
        f"{name} {figures[0]:.4f}, with networks in bfloat16 {figures[1]:.4f} bits/dim of {len(x)} images"
    )
    trained = [short_training(settings, precision) for precision in ("float32", "bfloat16")]
    found.details.append(f"short trainings end at {trained[0]:.4f} and {trained[1]:.4f} (not compared)")
    return found.result()


@torch.no_grad()
def in_network_dtype(flow: Flow, x: Tensor, place: torch.device, dtype: torch.dtype | None) -> float:
    """Mean bits/dim of a copy of a flow whose networks compute in a dtype, under keyed noise."""
    model = copy.deepcopy(flow).to(place)
    model.set_network_dtype(dtype)
    n = len(x)
    noise = keyed_noise(model.noise_kind, model.data_shape, 0, range(n), 0)
    found = []
    for first in range(0, n, 100):
        keys = Keys(seed=0, items=range(first, min(first + 100, n)))
        part = slice(first, first + 100)
        found.append(model.log_prob(x[part].to(place), noise=noise[part].to(place), keys=keys))
    return float(model.per_dim(torch.cat(found)).double().mean())
