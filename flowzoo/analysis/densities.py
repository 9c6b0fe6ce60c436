"""Pictures of flows over one or two numbers: data, density, samples, and the way of the points through the layers."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowzoo.analysis.layers import Stage, through_layers
from flowzoo.atomic import write_chunks
from flowzoo.errors import InputError
from flowzoo.evaluation.metrics import mean_and_stderr

if TYPE_CHECKING:
    from flowzoo.data.vectors import VectorSet
    from flowzoo.flow import Flow

__all__ = ["Fit", "measure_fit", "save_picture"]

_BATCH = 4096
_POINTS = 4000
_STAGES = 6
_SIDE = 200
_COLOURS = "viridis"
_MODEL, _TRUE, _DATA = "#1f5fa8", "#d1495b", "#b8bcc2"


@dataclass(frozen=True, slots=True)
class Fit:
    """How well a flow fits vectors.

    Attributes:
        nats: Mean negative log density, nats; an upper bound where the flow's log density is a lower one.
        error: Its standard error.
        count: Number of vectors.
        entropy: The true entropy, nats, which no density can beat; None if it is not known.
        divergence: Mean of log p(x) - log q(x), p the true density and q the flow's, nats: an estimate of the
            Kullback-Leibler divergence; None if the true density is not known.
        divergence_error: Its standard error, which lacks the scatter that both densities share.
    """

    nats: float
    error: float
    count: int
    entropy: float | None
    divergence: float | None = None
    divergence_error: float | None = None

    @property
    def gap(self) -> float | None:
        """Nats above the true entropy."""
        return None if self.entropy is None else self.nats - self.entropy


def measure_fit(flow: Flow, data: VectorSet) -> Fit:
    """Measures the mean negative log density of vectors, without labels."""
    losses = mean_and_stderr(-(log_prob := _log_prob(flow, data.vectors).double()))
    found = losses.value, losses.stderr, losses.count, data.true_entropy
    if data.true_entropy is None:
        return Fit(*found)
    apart = mean_and_stderr(data.true_log_prob(data.vectors) - log_prob)
    return Fit(*found, apart.value, apart.stderr)


def save_picture(flow: Flow, data: VectorSet, path: str | Path, *, name: str = "flow", seed: int = 0) -> Fit:
    """Draws a flow over one or two numbers into a PNG, atomically.

    In the plane: the data, the true density where it is known, the model's, and its samples; below, the data on their
    way through the layers of the bijector to the latent. On the line: the densities over a histogram of the data, the
    map to the latent, and the histograms on the way.

    Args:
        flow: The flow.
        data: Vectors to compare it with, such as a test split.
        path: The file.
        name: The model's name, for the caption.
        seed: Of the samples.

    Returns:
        The fit that the caption states.

    Raises:
        InputError: The flow is over images or over more than two numbers, or the data are of another shape, or
            matplotlib is not installed.
        CheckpointError: The file cannot be written.
    """
    _check(flow, data)
    try:
        from matplotlib.figure import (
            Figure,  # not pyplot, which keeps figures and a backend for the whole process
        )
    except ImportError as error:
        raise InputError("Pictures of densities need matplotlib: pip install 'flowzoo[plots]'.") from error
    was_training = flow.training
    flow.eval()
    try:
        fit = measure_fit(flow, data)
        caption = _caption(flow, data, name, fit)
        figure = Figure(layout="constrained", dpi=130)
        (_draw_plane if flow.dims == 2 else _draw_line)(figure, flow, data, seed)
    finally:
        flow.train(was_training)
    figure.suptitle(caption, fontsize=13)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Title": name, "Description": caption})
    write_chunks(Path(path), [buffer.getvalue()])
    return fit


def _check(flow: Flow, data: VectorSet) -> None:
    if flow.data_kind != "vectors":
        raise InputError("the model is of images; draw a grid of them by `flowzoo sample`.")
    if flow.dims > 2:
        raise InputError(f"the model is of vectors of {flow.dims} numbers; a picture needs one of 1 or 2.")
    if data.data_shape != flow.data_shape:
        raise InputError(
            f"{data.id} has items of shape {data.data_shape}, the model is of vectors of {flow.dims} numbers."
        )


def _caption(flow: Flow, data: VectorSet, name: str, fit: Fit) -> str:
    bound = "at most " if flow.is_lower_bound else ""
    text = f"{name} on {data.id}, {data.split} split: {bound}{fit.nats:.4f} ± {fit.error:.4f} nats"
    if fit.divergence is None:
        return text
    apart = f"{bound}{fit.divergence:.4f} ± {fit.divergence_error:.4f}"
    return f"{text}   (true entropy {fit.entropy:.4f}; KL divergence {apart})"


def _device(flow: Flow) -> torch.device:
    return next((tensor.device for tensor in (*flow.parameters(), *flow.buffers())), torch.device("cpu"))


@torch.no_grad()
def _log_prob(flow: Flow, x: Tensor) -> Tensor:
    """Log density (B,) of the model, a batch at a time, on the CPU."""
    generator = torch.Generator(_device(flow)).manual_seed(0)
    parts = [flow.log_prob(part.to(_device(flow)), generator=generator).cpu() for part in x.split(_BATCH)]
    return torch.cat(parts)


def _box(data: VectorSet) -> list[tuple[float, float]]:
    """The range to draw: nearly all of the data and a margin, as long in one dimension as in the other."""
    low, high = (data.vectors.double().quantile(share, dim=0) for share in (0.001, 0.999))
    reach = 0.6 * float((high - low).max().clamp(min=1e-6))
    return [(middle - reach, middle + reach) for middle in ((low + high) / 2).tolist()]


def _stages(flow: Flow, data: VectorSet) -> list[Stage]:
    """At most :data:`_STAGES` stages from data to latent; none where the layers need more dimensions or labels."""
    x = data.vectors[:_POINTS].to(_device(flow))
    y = None
    if flow.labels is not None and data.labels is not None and data.num_classes <= flow.labels.classes:
        y = data.labels[:_POINTS].to(x.device)
    averaged = flow.labels is not None and not flow.labels.dropout and y is None
    if flow.augmentation is not None or averaged:
        return []
    found = through_layers(flow, x, y, waypoints=_STAGES - 2)
    stages = [stage for stage in found if stage.points.shape[1] == flow.dims]
    *before, last = stages
    stages = [*(stage for stage in before if not stage.rescaled), last]
    if len(stages) <= _STAGES:
        return stages
    return [stages[round(place * (len(stages) - 1) / (_STAGES - 1))] for place in range(_STAGES)]


def _title(stage: Stage, stages: Sequence[Stage]) -> str:
    if stage.layer == 0:
        return "data $x$"
    if stage is stages[-1]:
        return "latent $z$"
    if stage.time is not None:
        return f"time {stage.time:.2f}"
    return f"after layer {stage.layer} of {stages[-1].layer}"


# --- the plane ----------------------------------------------------------------------------------------------


def _draw_plane(figure: Any, flow: Flow, data: VectorSet, seed: int) -> None:
    from matplotlib.colors import PowerNorm

    stages = _stages(flow, data)
    known = data.true_entropy is not None
    figure.set_size_inches(13.5, 6.9 if stages else 4.0)
    rows = figure.subfigures(
        2 if stages else 1, 1, height_ratios=[1.35, 1] if stages else None, squeeze=False
    )
    top = rows[0][0]
    panels = list(top.subplots(1, 4 if known else 3))
    box = _box(data)
    densities: list[tuple[str, Callable[[Tensor], Tensor]]] = [
        *([("true density", data.true_log_prob)] if known else []),
        ("model density", lambda x: _log_prob(flow, x)),
    ]
    _scatter(panels[0], data.vectors[:_POINTS], box, "data", "black")
    images = [(title, _grid(log_prob, box)) for title, log_prob in densities]
    # Of the first: an overshooting model must not darken the truth beside it.
    highest = float(images[0][1].flatten().quantile(0.999))
    # The square root shows what is faint: bridges between modes, and wide parts beside narrow ones.
    scale = PowerNorm(0.5, vmin=0, vmax=highest)
    for panel, (title, values) in zip(panels[1:], images, strict=False):
        shown = panel.imshow(
            values.T.numpy(), origin="lower", extent=[*box[0], *box[1]], cmap=_COLOURS, norm=scale,
            interpolation="bilinear",
        )  # fmt: skip
        panel.set_title(title)
        panel.set_axis_off()
    generator = torch.Generator().manual_seed(seed)
    samples = flow.sample(_POINTS, generator=generator, batch_size=_BATCH).cpu()
    _scatter(panels[-1], samples, box, "model samples", _MODEL)
    top.colorbar(shown, ax=panels, label="density (square-root scale)", extend="max", shrink=0.8)
    if stages:
        _draw_stages(rows[1][0], stages, flow, data)


def _scatter(panel: Any, points: Tensor, box: Sequence[tuple[float, float]], title: str, colour: Any) -> None:
    panel.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=2, c=colour, linewidths=0, alpha=0.6)
    panel.set(title=title, xlim=box[0], ylim=box[1], aspect="equal")
    panel.set_axis_off()


def _grid(log_prob: Callable[[Tensor], Tensor], box: Sequence[tuple[float, float]]) -> Tensor:
    """A density at the centres of the cells of a grid, (side, side), first coordinate first."""
    steps = (torch.arange(_SIDE) + 0.5) / _SIDE
    axes = [low + (high - low) * steps for low, high in box]
    return log_prob(torch.cartesian_prod(*axes)).double().exp().reshape(_SIDE, _SIDE)


def _draw_stages(row: Any, stages: Sequence[Stage], flow: Flow, data: VectorSet) -> None:
    classes = data.labels is not None and data.num_classes <= 10
    by = "its class" if classes else "its direction from the mean"
    through = "time" if any(stage.time is not None for stage in stages) else "the layers"
    row.suptitle(f"the data on their way through {through}, each point coloured by {by}", fontsize=11)
    panels = row.subplots(1, len(stages), squeeze=False)[0]
    colours = _point_colours(data, classes)
    for panel, stage in zip(panels, stages, strict=True):
        reach = 1.08 * float(stage.points.abs().quantile(0.999, dim=0).max())
        last = stage is stages[-1]
        panel.scatter(stage.points[:, 0].numpy(), stage.points[:, 1].numpy(), s=2, c=colours, linewidths=0)
        panel.set_title(_title(stage, stages), fontsize=11)
        panel.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        panel.set_axis_off()
        if last:
            _contours(panel, flow, reach)


def _contours(panel: Any, flow: Flow, reach: float) -> None:
    """Lines of equal base density, which the latent of a perfect model has."""
    box = [(-reach, reach)] * 2
    device = _device(flow)
    values = _grid(lambda z: flow.base.log_prob(z.to(device)).detach().cpu(), box).T.numpy()
    levels = [float(values.max()) * math.exp(-0.5 * radius**2) for radius in (3, 2, 1)]
    panel.contour(
        values, levels, extent=[*box[0], *box[1]], colors="black", linewidths=0.7, linestyles="dashed"
    )


def _point_colours(data: VectorSet, classes: bool) -> Any:
    """A colour for each point drawn: of its class, or of its direction from the mean."""
    from matplotlib import colormaps

    points = data.vectors[:_POINTS]
    if classes and data.labels is not None:
        return colormaps["tab10"](data.labels[:_POINTS].numpy())
    x, y = (points - points.mean(0)).unbind(1)
    return colormaps["hsv"](((torch.atan2(y, x) / (2 * math.pi)) % 1).numpy())


# --- the line -----------------------------------------------------------------------------------------------


def _draw_line(figure: Any, flow: Flow, data: VectorSet, seed: int) -> None:
    stages = _stages(flow, data)
    figure.set_size_inches(12, 7.2 if stages else 4.5)
    rows = figure.subfigures(2 if stages else 1, 1, height_ratios=[1.6, 1] if stages else None, squeeze=False)
    left, right = rows[0][0].subplots(1, 2, width_ratios=[1.6, 1])
    ((low, high),) = _box(data)
    x = torch.linspace(low, high, 1000)[:, None]
    left.hist(
        data.vectors[:, 0].numpy(), bins=120, range=(low, high), density=True, color=_DATA, label="data"
    )
    generator = torch.Generator().manual_seed(seed)
    samples = flow.sample(len(data), generator=generator, batch_size=_BATCH).cpu()
    left.hist(
        samples[:, 0].numpy(), bins=120, range=(low, high), density=True, histtype="step", color=_MODEL, alpha=0.5,
        label="model samples",
    )  # fmt: skip
    left.plot(x[:, 0], _log_prob(flow, x).exp(), color=_MODEL, label="model density")
    if data.true_entropy is not None:
        left.plot(x[:, 0], data.true_log_prob(x).exp(), color=_TRUE, linestyle="dashed", label="true density")
    left.set(title="density", xlabel="$x$", ylabel="density", xlim=(low, high))
    left.legend(fontsize=9)
    if not stages or flow.labels is not None:
        right.remove()
    if not stages:
        return
    _draw_histograms(rows[1][0], stages, flow)
    if flow.labels is not None:
        return
    z = through_layers(flow, x.to(_device(flow)))[-1].points
    right.plot(x[:, 0], z[:, 0], color=_MODEL)
    right.set(title="the map from data to latent", xlabel="$x$", ylabel="$z = f(x)$", xlim=(low, high))
    right.grid(alpha=0.3)


def _draw_histograms(row: Any, stages: Sequence[Stage], flow: Flow) -> None:
    row.suptitle("the data on their way through the layers", fontsize=10)
    panels = row.subplots(1, len(stages), squeeze=False)[0]
    for panel, stage in zip(panels, stages, strict=True):
        last = stage is stages[-1]
        panel.hist(stage.points[:, 0].numpy(), bins=60, density=True, color=_DATA)
        panel.set_title(_title(stage, stages), fontsize=9)
        panel.tick_params(labelsize=7)
        if last:
            low, high = panel.get_xlim()
            z = torch.linspace(low, high, 400)[:, None]
            base = flow.base.log_prob(z.to(_device(flow))).detach().cpu().exp()
            panel.plot(z[:, 0], base, color=_TRUE, linestyle="dashed", label="base density")
            panel.legend(fontsize=7)
