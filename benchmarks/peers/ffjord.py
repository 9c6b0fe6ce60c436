"""Continuous flows in other libraries: torchdiffeq on the same grid, zuko by adaptive steps."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers.common import Builders, Peer
from benchmarks.workloads import Workload

NOTES = {
    "normflows": "cannot express it: it has no continuous flows.",
    "nflows": "cannot express it: it has no continuous flows.",
    "FrEIA": "cannot express it: it has no continuous flows.",
    "zuko": "its CNF, of vectors alone, by adaptive steps at its own tolerances of 1e-6 and 1e-5, with the "
    "adjoint method; its network sees the time as six sines and cosines.",
    "torchdiffeq": "odeint with rk4 on the same grid; the equation, its trace and its network are ours, after FFJORD's "
    "code, which is built on this library. A sample solves the equation backwards on the grid and does not ask whether "
    "that leads back; flowzoo inverts the steps as the density takes them, to 1e-5, which takes at least twice as many "
    "evaluations.",
    "UMNN": "cannot express it: it integrates positive networks of one value.",
}


class _Layer(nn.Module):
    """A linear layer, or a convolution 3x3, that sees the time as a further channel."""

    def __init__(self, inputs: int, outputs: int, *, image: bool) -> None:
        super().__init__()
        self.layer = nn.Conv2d(inputs + 1, outputs, 3, padding=1) if image else nn.Linear(inputs + 1, outputs)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        time = torch.ones_like(z[:, :1]) * t
        out: Tensor = self.layer(torch.cat((time, z), dim=1))
        return out


class _Velocity(nn.Module):
    """The network f(z, t)."""

    def __init__(self, config: Any, channels: int) -> None:
        super().__init__()
        widths = (channels, *config.hidden, channels)
        image = config.image_shape is not None
        self.layers = nn.ModuleList(
            _Layer(widths[i], widths[i + 1], image=image) for i in range(len(widths) - 1)
        )
        self.activation = nn.Softplus() if config.activation == "softplus" else nn.Tanh()

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """dz/dt."""
        *hidden, last = self.layers
        for layer in hidden:
            z = self.activation(layer(t, z))
        out: Tensor = last(t, z)
        return out


class _Dynamics(nn.Module):
    """The equation of z and of the log-determinant."""

    def __init__(self, velocity: _Velocity, *, exact: bool) -> None:
        super().__init__()
        self.velocity, self.exact = velocity, exact
        self.probe: Tensor | None = None

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        recorded = torch.is_grad_enabled()
        with torch.enable_grad():
            z = state[0] if recorded and state[0].requires_grad else state[0].detach().requires_grad_()
            f = self.velocity(t, z)
            return f, self._trace(f, z, recorded)

    def _trace(self, f: Tensor, z: Tensor, recorded: bool) -> Tensor:
        if not self.exact:
            assert self.probe is not None
            (row,) = torch.autograd.grad(f, z, self.probe, create_graph=recorded)
            return (row * self.probe).flatten(1).sum(1)
        columns = (
            torch.autograd.grad(f[:, i].sum(), z, create_graph=recorded, retain_graph=True)[0][:, i]
            for i in range(z.shape[1])
        )
        return torch.stack(list(columns)).sum(0)


def torchdiffeq_ffjord(workload: Workload) -> Peer:
    """FFJORD by torchdiffeq."""
    odeint = import_module("torchdiffeq").odeint
    config = workload.resolved()
    image = config.image_shape is not None
    channels = 4 * config.image_shape[0] if image else config.dims
    dynamics = _Dynamics(_Velocity(config, channels), exact=config.trace == "exact")
    grid = {"method": "rk4", "options": {"step_size": 1 / config.steps}}
    times = torch.tensor([0.0, 1.0], device=workload.device)

    def log_prob(x: Tensor) -> Tensor:
        x, log_det = _opened(x, config.alpha) if image else (x, x.new_zeros(len(x)))
        dynamics.probe = torch.randint(0, 2, x.shape, device=x.device).mul(2).sub(1).to(x.dtype)
        found, term = odeint(dynamics, (x, log_det), times, **grid)
        z: Tensor = found[-1].flatten(1)
        normal = -0.5 * z.square().sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)
        out: Tensor = normal + term[-1]
        return out

    def sample(n: int) -> Tensor:
        shape = (channels, *(size // 2 for size in config.image_shape[1:])) if image else (channels,)
        z = torch.randn(n, *shape, device=workload.device)
        x: Tensor = odeint(dynamics.velocity, z, times.flip(0), **grid)[-1]
        return _closed(x, config.alpha) if image else x

    return Peer(dynamics, log_prob, sample, images=image)


def _opened(x: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] to squeezed logits, and the log-determinant of that."""
    p = alpha + (1 - 2 * alpha) * x
    log_det = -(p.log() + torch.log1p(-p)).flatten(1).sum(1) + math.log(1 - 2 * alpha) * x[0].numel()
    return nn.functional.pixel_unshuffle(torch.logit(p), 2), log_det


def _closed(z: Tensor, alpha: float) -> Tensor:
    return (nn.functional.pixel_shuffle(z, 2).sigmoid() - alpha) / (1 - 2 * alpha)


def zuko_ffjord(workload: Workload) -> Peer:
    """CNF of zuko."""
    zuko = import_module("zuko")
    config = workload.resolved()
    activation = nn.Softplus if config.activation == "softplus" else nn.Tanh
    model = zuko.flows.CNF(
        config.dims,
        exact=config.trace == "exact",
        hidden_features=config.hidden,
        activation=activation,
    )
    return Peer(model, lambda x: model().log_prob(x), lambda n: model().sample((n,)), images=False)


BUILDERS: Builders = {"zuko": zuko_ffjord, "torchdiffeq": torchdiffeq_ffjord}
